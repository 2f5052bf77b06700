"""Writes the log: one handler for all loggers, and a thread that writes its lines."""
