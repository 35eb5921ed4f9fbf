"""The language model: vocabularies, families, state, sampling, scoring and checkpoints."""
