"""One process a worker, over torch.distributed."""
