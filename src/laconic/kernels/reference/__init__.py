"""What is meant: ordinary torch, on any device."""
