"""Commands over MQTT: read, authorised, answered."""
