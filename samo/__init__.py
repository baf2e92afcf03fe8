"""What audio and text share: settings, data splits, one trainer, honest judging."""

__version__ = "0.1.0"

__all__ = ["__version__"]
