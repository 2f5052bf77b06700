"""Makes messages from deliveries, on both delivery paths."""
