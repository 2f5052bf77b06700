"""Stores what aggregators hold, and loads it again: records, checkpoints, the opening of the state."""
