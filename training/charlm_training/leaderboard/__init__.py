"""All families on one text at equal cost, ranked."""
