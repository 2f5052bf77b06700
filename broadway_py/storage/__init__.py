"""Keeps data in SQLite: one writer thread per file and process, group commit, schema versions, locks.

The embedded queue (``queue_*`` modules) and stored window state use it. Nothing here knows about pipelines.
"""
