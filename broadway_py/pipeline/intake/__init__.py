"""Lets messages in: the running producer, the gate before it, and their entry into the books."""
