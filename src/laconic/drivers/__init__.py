"""What moves the packets: `simulated` (one process, a virtual clock) and `processes` (torch.distributed).

Both run the same two halves (`halves.py`) over the same layouts (`layout.py`); they differ in how bytes travel.
"""
