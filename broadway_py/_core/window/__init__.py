"""Windows: which events belong together, and when their result is due. Flow and the aggregators use the same engine."""
