"""Checks the settings of an SQS producer."""
