"""The `edge` command: one file for each command group."""
