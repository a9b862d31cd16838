"""When a worker sends and when it skips. One file per policy or family of policies."""
