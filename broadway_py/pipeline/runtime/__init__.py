"""Builds the stages, runs one task for each, drains them, and changes and shows them while they run."""
