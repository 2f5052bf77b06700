"""Recognises messages that were handled before, for pipelines with ``deduplicate_by``. Nothing here waits."""
