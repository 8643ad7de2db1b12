"""The web role: health, and captured mail in the form of Mailpit's API.

Starlette and uvicorn live here only. What a page or an answer says is decided here, what it
says it about is read from `store`. May import `inbound`, `delivery`, `operations`,
`store`, `policy`, `access`, `observe`, `settings`, `mail` and `errors`.
"""
