"""Experiments: data sets, models, partitions, and runs with their records."""
