"""Settles deliveries at the broker, with as few frames as possible."""
