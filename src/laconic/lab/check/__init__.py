"""`laconic check`: whether the ranks that torchrun started can train together, and how fast they reach each other."""
