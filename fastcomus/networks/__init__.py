"""Weights of networks, and what makes networks run well on a device."""
