"""All families on one text, at equal cost: who is best, and by how much."""
