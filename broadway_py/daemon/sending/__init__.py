"""Puts lines on a queue, to try things out or to load the lines of a file."""
