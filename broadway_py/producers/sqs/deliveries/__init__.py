"""Plans receives, and makes messages of what they bring."""
