"""The outbox's file: schema and versions, bounds, damage and what can be saved of it."""
