"""Serves the HTTP port: metrics, health checks, the live page and its data."""
