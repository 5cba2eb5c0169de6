"""Truth to score against: one file for each kind."""
