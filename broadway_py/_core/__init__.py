"""Decisions without waiting: plain state machines, no event loop, no clock, no logging."""
