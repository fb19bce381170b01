"""Pictures on their way to the model: registration, tiles, and what each prompt shows."""
