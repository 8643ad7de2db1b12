"""Captured mail for programs: Mailpit's API (a subset), and the wait for a mail.

Test suites written for Mailpit run against it. It serves captured mail only and never touches
what waits to be sent.
"""
