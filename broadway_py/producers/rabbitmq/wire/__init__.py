"""Reads and writes the bytes of AMQP that the client library does not. Pure."""
