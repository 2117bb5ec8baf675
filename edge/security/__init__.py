"""What the box must keep to itself: the sealed keychain."""
