"""Reads the settings from files, environment and ``--set``, notes where each was given, and checks them once."""
