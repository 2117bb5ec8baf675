"""Group commit and the gate: what may leave waits here for durable."""
