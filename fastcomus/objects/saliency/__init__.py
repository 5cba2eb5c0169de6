"""Ways to find the objects in an image: one file for each method."""
