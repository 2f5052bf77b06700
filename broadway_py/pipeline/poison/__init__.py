"""Finds the messages that were being handled when a worker died, and runs these suspects alone."""
