"""Settles messages: deletes them, or shows them again, ten at a time."""
