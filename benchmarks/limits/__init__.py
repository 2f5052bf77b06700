"""Limits and peers: what a hand-written loop and other libraries do with the same work.

Each was written before ours was measured, and is left alone afterwards.
"""
