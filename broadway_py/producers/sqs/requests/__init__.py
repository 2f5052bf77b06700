"""Makes requests to SQS, and says in words what goes wrong with them."""
