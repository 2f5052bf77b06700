"""Plans receives, and makes messages of their answers."""
