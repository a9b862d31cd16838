"""Loops over lanes of a vector register, written as LLVM IR. docs/kernels.md says how to read them."""
