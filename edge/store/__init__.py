"""What is kept on the drive and in tmpfs: journal, event log, blobs, cache."""
