"""One block at a time: its passes over all feeds, what is kept on disk, what it will take."""
