"""The demonstration on scenes that are made on the spot."""
