"""Makes messages of deliveries, whichever path they take."""
