"""Worker processes and the claims on their way to them: forked, bound, fed, timed, killed."""
