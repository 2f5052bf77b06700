"""``broadway check --connect``: examines the places that the pipelines of some settings use."""
