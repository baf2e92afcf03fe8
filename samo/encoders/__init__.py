"""What encoders of speech and of text share."""
