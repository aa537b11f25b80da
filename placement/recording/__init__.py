"""Records routing from models that run here: Hugging Face transformers, which the extra `record` installs."""
