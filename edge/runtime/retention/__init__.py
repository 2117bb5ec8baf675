"""What is kept and for how long: pruning the log's beginning, and refusing requests where there is no room."""
