"""Settles messages: deletes them or changes their visibility, ten at a time."""
