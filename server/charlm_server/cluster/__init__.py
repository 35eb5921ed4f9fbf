"""The same servicers as replicas on a Ray cluster, behind its gRPC proxy."""
