"""Shows, puts back and removes dead letters, wherever they are kept."""
