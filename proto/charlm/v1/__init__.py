"""Generated code of package charlm.v1: see the protos beside it."""
