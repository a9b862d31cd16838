"""laconic: train PyTorch models over slow, lossy and unreliable networks, with every byte counted."""

__version__ = "0.1.0"
