"""What ``broadway check --connect`` asks a broker. Nothing is consumed, published or changed."""
