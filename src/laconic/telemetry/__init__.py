"""What is counted and timed: bytes, bits, messages, phases."""
