"""What tells how far a detection can be trusted, beside its probability: a second look, and novelty."""
