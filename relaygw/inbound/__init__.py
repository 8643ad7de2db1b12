"""The front: SMTP in, content read, policy applied, one commit for many messages.

aiosmtpd lives here only. May import the repositories of `store`, `access`, `policy`, `observe`, `settings`,
`mail` and `errors`.
"""
