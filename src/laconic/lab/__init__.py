"""Experiments: data sets, models, partitions, and runs that leave records."""
