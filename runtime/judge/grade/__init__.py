"""From a measured size to a severity and to a statement of compliance."""
