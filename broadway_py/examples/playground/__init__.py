"""Exercises for Flow, with shipments of containers. Run ``python -m broadway_py.examples.playground``."""
