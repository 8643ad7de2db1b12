"""Which time grows faster than the size of what a stranger writes: measured, not read."""
