"""Calls the user's code: in the loop, in a thread, in a process; time-out, cancellation, stuck thread."""
