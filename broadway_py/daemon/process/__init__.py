"""Runs one process: its signals, its main thread, the thread of the event loop, and its end."""
