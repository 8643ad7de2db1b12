"""The wire to providers: connecting, transactions, and what their replies mean.

May import `policy`, `observe`, `settings`, `mail` and `errors`.
"""
