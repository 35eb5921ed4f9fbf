"""A load generator: many streams against a server, and how it fared."""
