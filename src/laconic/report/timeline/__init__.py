"""Timelines: who sends, receives and computes when; as text, PNG, SVG or HTML."""
