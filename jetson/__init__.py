"""The board: power, telemetry, engine build, units, packaging."""
