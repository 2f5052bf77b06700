"""Worker processes: how one starts and ends, what it and its parent send each other, and errors that come from it."""
