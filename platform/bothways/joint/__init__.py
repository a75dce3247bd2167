"""What holds both sides together: how the terms of a loss are weighed, and objectives in which the sides meet."""
