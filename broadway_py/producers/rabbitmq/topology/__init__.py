"""Declares queues and bindings, and names the queues in which retries wait."""
