"""Checks the settings of a RabbitMQ producer: each by itself, and which go together."""
