"""What one stage does with its lists, as plain state machines without a loop."""
