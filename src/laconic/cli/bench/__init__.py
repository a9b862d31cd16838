"""`laconic bench`."""
