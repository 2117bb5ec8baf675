"""Everything that waits without a worker: hosted tasks, timers, callbacks' tokens, deadlines, parked executions."""
