"""Builds the pipelines that the settings name, and runs them in one event loop."""
