"""The audio frontend: clips, log-mel spectrograms, CNNs."""
