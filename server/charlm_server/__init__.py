"""Serves character-level language models over gRPC: engine, scheduler, servicers."""
