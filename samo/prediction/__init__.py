"""From files, arrays and texts to answers."""
