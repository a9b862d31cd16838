"""What things cost on this machine: kernels, whole steps, packets, the simulator, and how cost grows."""
