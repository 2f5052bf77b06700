"""A shop that takes orders from a queue."""
