"""Decentralized training: graphs of workers, and the weights with which neighbors average their models."""
