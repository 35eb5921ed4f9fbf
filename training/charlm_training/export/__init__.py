"""A trained model as one step that other runtimes can compute."""
