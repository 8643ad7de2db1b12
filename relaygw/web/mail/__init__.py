"""Content of mail, which may be broken or hostile: MIME, HTML and CSS, read within limits.

Nothing here raises on account of content, and nothing that mail links to is ever fetched.
"""
