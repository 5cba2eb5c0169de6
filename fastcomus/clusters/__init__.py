"""Embeddings to clusters, their names and their files (steps 4 to 7)."""
