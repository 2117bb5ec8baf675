"""The runtime daemon: the single writer, its scheduler loop, its workers and its socket."""
