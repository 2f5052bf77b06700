"""Measurements: one program per figure, each run in a fresh interpreter and printing one line of JSON."""
