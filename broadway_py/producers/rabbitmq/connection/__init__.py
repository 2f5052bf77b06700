"""Connects to the broker, and says in words what goes wrong with a connection."""
