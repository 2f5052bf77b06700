"""Keeps what is held hidden from others."""
