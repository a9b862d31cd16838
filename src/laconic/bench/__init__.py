"""Measures kernels, full steps, packets, the simulator, and how its cost grows, on this machine."""
