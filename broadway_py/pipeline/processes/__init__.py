"""Runs callbacks in worker processes, for ``executor="process"``."""
