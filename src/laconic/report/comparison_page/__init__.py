"""A comparison as one page: its tables, curves with bands over seeds, timelines, and the files beside it."""
