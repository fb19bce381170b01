"""Pictures of what was decided, raw and annotated, with private zones made unreadable before."""
