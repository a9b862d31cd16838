"""The same functions in Triton."""
