"""The objects of a user's training loop, the distributed optimizer and the simulation, and their parts."""
