"""Shows, puts back and removes dead letters, from embedded queues and from RabbitMQ."""
