"""What was done to the station and by whom: hash-chained lines, and their verification."""
