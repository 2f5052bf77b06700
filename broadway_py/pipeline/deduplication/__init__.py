"""Acks messages that were handled before, and stores the ids of those that are handled."""
