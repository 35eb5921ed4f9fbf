"""From logits to a token: processors, parameters and draws."""
