"""Takes messages in: runs the producer, holds fetching back when needed, and enters messages into the ledger."""
