"""Many runs as one experiment: methods, seeds, networks and partitions on one task, each combination a cell."""
