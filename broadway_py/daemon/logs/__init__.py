"""Writes the log: one handler for everything that logs, and a thread that writes its lines."""
