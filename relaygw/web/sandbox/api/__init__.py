"""Captured mail for programs: Mailpit's API (a subset) and the wait for a mail, nothing else."""
