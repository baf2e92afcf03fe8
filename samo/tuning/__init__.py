"""Search for settings by validation macro-F1."""
