"""``make types`` reads what is here as mypy reads a user's modules, so that the public types stay usable.

Only ``pages`` runs: it checks what the documentation shows.
"""
