"""Decentralized training: graphs of workers and the weights with which models are mixed."""
