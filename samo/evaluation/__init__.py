"""From logits to scores, intervals and reports."""
