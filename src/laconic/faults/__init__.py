"""Seeded faults: a plan of what fails in which round, and the code that applies it to packets."""
