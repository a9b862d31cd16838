"""Packet kinds, one file each."""
