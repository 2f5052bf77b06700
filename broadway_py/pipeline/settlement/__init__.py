"""Settles messages: why one failed, what becomes of it, and what its source is told."""
