"""Calls user code in the loop, in a thread or in a process, with time-out, cancellation and care of stuck threads."""
