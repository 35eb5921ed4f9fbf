"""Vocabularies: characters, bytes and sentencepiece."""
