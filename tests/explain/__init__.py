"""What `doctor explain "ERROR"` finds."""
