"""Ways to tell people: one file each. What may hang has a limit, and tells nothing of secrets."""
