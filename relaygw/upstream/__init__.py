"""The wire to providers: connecting, transactions, and what their replies mean.

What to do about an outcome is `policy`, when to try is `delivery`. May import `policy`, `observe`,
`settings`, `mail` and `errors`.
"""
