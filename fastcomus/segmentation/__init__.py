"""Class maps to a trained network to masks (steps 8 to 10)."""
