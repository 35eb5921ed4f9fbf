"""The `charlm` command."""
