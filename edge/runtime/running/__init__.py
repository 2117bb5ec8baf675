"""One execution while it runs: its state beside its values, outputs put back, outcomes for the log."""
