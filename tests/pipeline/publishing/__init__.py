"""Whole pipelines in one event loop, on a clock that only moves when told to."""
