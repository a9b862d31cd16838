"""Processes of this machine: a pool of tasks, ranks in a group, and their start, supervision and end."""
