"""What a shift made: counters that agree with the outbox, as a message and as CSV."""
