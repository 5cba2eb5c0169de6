"""The demonstration: a whole run on generated scenes."""
