"""What handlers publish: as messages, in lists, to the places of the option ``publishers``."""
