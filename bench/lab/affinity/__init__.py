"""The study of paths between GPUs, and of which of them expert traffic takes."""
