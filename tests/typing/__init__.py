"""Nothing here runs: ``make types`` reads it as mypy reads a user's modules, so that the public types stay usable."""
