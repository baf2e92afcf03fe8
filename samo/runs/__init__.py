"""One training: its folder, training, resuming, loading, evaluating."""
