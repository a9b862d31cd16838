"""Plain-numba twins of the LLVM kernels: what these must be faster than. Only benches and tests use them."""
