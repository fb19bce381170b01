"""How the station is: the retained `health` message, and the same values for Prometheus."""
