"""Where named numbers go that a run logs: a file of JSON lines, TensorBoard, wandb, trackio."""
