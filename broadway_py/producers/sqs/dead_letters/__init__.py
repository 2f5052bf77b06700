"""Sends dead letters to their queue."""
