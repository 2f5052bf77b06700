"""Moves failed messages to a queue where they wait for their next attempt, or to the dead letters."""
