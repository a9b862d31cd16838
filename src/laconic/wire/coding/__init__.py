"""Codes for positions and symbols."""
