"""Objectives in which both sides meet: one file a method, of the same family as those of the output side."""
