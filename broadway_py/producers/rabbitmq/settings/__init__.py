"""Checks the settings of a RabbitMQ producer: each by itself, and in combination."""
