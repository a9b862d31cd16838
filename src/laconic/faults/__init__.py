"""Seeded faults: what goes wrong in which round, and doing it to packets."""
