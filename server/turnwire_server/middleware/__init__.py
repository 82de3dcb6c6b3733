"""What a profile puts around each engine call."""
