"""The web role: health, dashboard, pages and APIs of the queue and of captured mail, over HTTP.

Starlette and uvicorn live here only. By subject: `gate` (who may ask), `mail` (hostile content),
`queue`, `sandbox`, `dashboard`. APIs are packages named `api`; they and pages do not know each
other, and what both need stands in their subject.
"""
