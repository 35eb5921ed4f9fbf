"""The language model: vocabularies, families, kernels, sampling, scoring and checkpoints."""
