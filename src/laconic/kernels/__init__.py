"""Arithmetic on flat vectors. `api` is the face; `reference`, `cpu` and `gpu` hold the functions by backend."""
