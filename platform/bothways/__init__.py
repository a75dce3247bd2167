"""bothways: bidirectional fine-tuning of text models."""

__version__ = "0.1.0"
