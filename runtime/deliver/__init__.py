"""Outbox, MQTT, commands, evidence."""
