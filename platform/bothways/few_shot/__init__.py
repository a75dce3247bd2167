"""Tasks of a few rows: a model meta-trained on episodes of some classes, and judged by episodes of others."""
