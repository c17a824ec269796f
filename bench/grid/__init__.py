"""From `grid.yaml` to a plan: reading, checking, multiplying out."""
