"""What a model has learned, and why it learns no more: one measurement a file."""
