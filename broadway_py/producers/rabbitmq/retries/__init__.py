"""Puts failed messages where they wait for their next attempt, or are kept for good."""
