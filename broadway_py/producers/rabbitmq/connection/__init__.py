"""Connects to the broker, and turns connection errors into clear sentences."""
