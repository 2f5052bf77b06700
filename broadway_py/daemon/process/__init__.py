"""Runs one process: its signals, its main thread, the event loop beside it, and the end."""
