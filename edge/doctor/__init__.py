"""What may keep this machine from being a good box, one finding at a time. Asked by `edge doctor`; mends nothing."""
