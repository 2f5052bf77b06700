"""Keeps the open windows of aggregators: in a file that survives a crash, or in memory."""
