"""From a command to a claim, and from what comes back to whoever writes it down."""
