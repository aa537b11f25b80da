"""The study of how experts are grouped on GPUs."""
