"""Makes requests to SQS, and turns errors into clear sentences."""
