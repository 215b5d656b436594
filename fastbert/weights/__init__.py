"""Where weights come from: Hugging Face's files, PyTorch's layers, or a first draw."""
