"""Pipelines to run and to read; the quick start runs them."""
