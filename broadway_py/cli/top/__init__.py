"""``broadway top``: a page in the terminal that shows a running daemon."""
