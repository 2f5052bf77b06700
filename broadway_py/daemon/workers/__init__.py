"""Runs several worker processes as one: starts, restarts, asks, adds up and drains them."""
