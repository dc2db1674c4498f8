"""Local module of Hugging Face evaluate."""
