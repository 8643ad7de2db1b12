"""Passwords of people and programs that log in, by SMTP or in the browser, and guessing at them.

Knows no protocol: who asks says for whom failures are counted. May import `settings`, `mail`
and `errors`.
"""
