"""The result as an HTML page with pictures: self-contained, no script, no network."""
