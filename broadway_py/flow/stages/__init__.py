"""The stages of a flow in an event loop, what feeds them, and what travels between them."""
