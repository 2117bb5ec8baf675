"""Worker processes: forked from the zygote, locked in, one claim at a time."""
