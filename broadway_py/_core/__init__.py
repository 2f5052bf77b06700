"""The decisions of the library as plain state machines. They never wait, and use no event loop, clock or log."""
