"""From a text to token files and windows."""
