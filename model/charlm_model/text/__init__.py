"""Vocabularies: characters, bytes and sentencepiece; incremental encoding."""
