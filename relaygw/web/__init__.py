"""The web role: health, and captured mail in the form of Mailpit's API.

Starlette and uvicorn live here only. What a page or an answer says is decided here, what it
says it about is read from the repositories of `store`. May import `inbound`, `delivery`, `operations`,
the repositories of `store`, `policy`, `access`, `observe`, `settings`, `mail` and `errors`.
"""
