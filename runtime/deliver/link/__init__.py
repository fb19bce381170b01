"""What goes over one connection beside the reports: other messages, commands, alarms, TLS."""
