"""What a training reads, step by step: which rows, as which tokens, from which domains."""
