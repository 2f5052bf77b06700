"""Says what differs between the settings that run and those that were read again, and runs one reload at a time."""
