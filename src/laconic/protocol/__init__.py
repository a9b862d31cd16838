"""What happens in a round, without I/O: who sends what, what is counted, what is committed."""
