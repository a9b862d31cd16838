"""Arithmetic on flat vectors. `plain` is the truth: ordinary torch, any device."""
