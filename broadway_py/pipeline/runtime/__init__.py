"""Builds the stages, runs one task for each, drains them, and changes and reports them while they run."""
