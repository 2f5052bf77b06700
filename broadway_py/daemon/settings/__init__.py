"""Reads the settings: files, environment and ``--set``, with the place of each, checked once."""
