"""Keeps messages that are held hidden from other readers."""
