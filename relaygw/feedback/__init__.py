"""What becomes of mail after a provider's 250: events of providers and bounce mails.

Verifies what strangers post, reads it into the one vocabulary of `mail.verdict`. Knows no SQL, no
role and no page: who listens, stores and fetches hands it in.
"""
