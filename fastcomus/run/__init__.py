"""A run folder and the commands on it: one file for each command."""
