"""Heavy operations on a device: what a backend does, which one is chosen, and its parts."""
