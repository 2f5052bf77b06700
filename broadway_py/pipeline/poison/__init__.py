"""Finds out which message was at work when a worker died, and runs suspects alone."""
