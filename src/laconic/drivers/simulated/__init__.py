"""All workers in one process, on a virtual clock."""
