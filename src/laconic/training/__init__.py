"""What a user's training loop holds: the optimizer, the simulation, and what they are made of."""
