"""What users chain, as a description: nothing here runs."""
