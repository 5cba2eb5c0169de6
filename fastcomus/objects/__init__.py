"""Images to objects and their embeddings (steps 1 to 3)."""
