"""Settles messages: decides why a message failed and what happens to it, and tells its source."""
