"""Where the stages of a flow run."""
