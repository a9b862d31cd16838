"""Drivers move the packets: `simulated` (one process, a virtual clock) and `distributed` (torch.distributed).

Both run the same worker and server sessions of `protocol` over the same layouts; they differ in how bytes travel.
"""
