"""When the log is sealed: a process of its own is started for it."""
