"""The floors that a model must beat: classical differences of the pair, and a small network on them."""
