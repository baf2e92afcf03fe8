"""Reports for people: pages, pictures, words and the model card."""
