"""Pure decisions: events, state, scheduling. No clock, no randomness, no input or output."""
