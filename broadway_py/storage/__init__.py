"""SQLite as a place to keep things: one writer thread per file and process, group commit, schema versions, locks.

Used by the embedded queue (``queue_*`` modules) and by stored window state. Nothing here knows about pipelines.
"""
