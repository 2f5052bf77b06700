"""Reads and writes AMQP bytes that the client library cannot handle. Pure."""
