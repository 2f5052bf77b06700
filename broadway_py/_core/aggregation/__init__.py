"""Aggregation: windows of messages whose effect is durable before the messages are acked. Pure."""
