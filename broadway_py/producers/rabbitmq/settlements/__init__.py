"""Tells the broker what became of deliveries, in as few words as possible."""
