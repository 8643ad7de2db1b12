"""The wire to providers: connecting, transactions, and what their replies mean.

SMTP as a client lives here and nowhere else, and so does aiosmtplib. What to do about an
outcome (wait, hold, bounce) is `policy`, when to try is `delivery`. May import `policy`,
`observe`, `settings`, `mail` and `errors`.
"""
