"""When a worker sends, and when it skips. One file a policy or a family of them."""
