"""Clients of inference servers: each sends arrays, and returns the arrays of the answer."""
