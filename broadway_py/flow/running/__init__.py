"""Who runs a flow, where its stages live, and who waits for it."""
