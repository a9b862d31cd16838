"""Processes of this machine: a pool of tasks, ranks that exchange, and what starts, watches and ends them."""
