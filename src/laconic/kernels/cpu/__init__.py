"""The same functions compiled by numba."""
