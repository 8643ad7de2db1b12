"""Captured mail for programs: Mailpit's API (a subset), and relaygw's own below /api/gateway.

Test suites written for Mailpit run against it. It serves captured mail only and never touches
what waits to be sent; nothing that mail links to is ever fetched.
"""
