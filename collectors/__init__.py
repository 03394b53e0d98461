"""Sources, one file each, and the agent that runs them."""
