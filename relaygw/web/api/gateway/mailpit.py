"""The part of the API that is Mailpit's, as it is described: listed, not spelled out."""

from __future__ import annotations

MAILPIT: tuple[tuple[str, str, str], ...] = (
    ("get", "/api/v1/info", "Version and numbers"),
    ("get", "/api/v1/messages", "List captured mail"),
    ("put", "/api/v1/messages", "Mark as read or unread"),
    ("delete", "/api/v1/messages", "Delete"),
    ("get", "/api/v1/search", "Search captured mail"),
    ("delete", "/api/v1/search", "Delete what a search finds"),
    ("get", "/api/v1/tags", "List tags"),
    ("put", "/api/v1/tags", "Set tags"),
    ("put", "/api/v1/tags/{tag}", "Rename a tag"),
    ("delete", "/api/v1/tags/{tag}", "Delete a tag"),
    ("post", "/api/v1/send", "Capture a message given as JSON"),
    ("get", "/api/v1/chaos", "Not there: 400"),
    ("put", "/api/v1/chaos", "Not there: 400"),
    ("get", "/api/v1/message/{queue_id}", "Show one message"),
    ("get", "/api/v1/message/{queue_id}/headers", "Show its header"),
    ("get", "/api/v1/message/{queue_id}/raw", "Show its source"),
    ("get", "/api/v1/message/{queue_id}/part/{part_id}", "Show a part"),
    ("get", "/api/v1/message/{queue_id}/link-check", "List its links"),
    ("post", "/api/v1/message/{queue_id}/release", "Send it after all"),
    ("get", "/view/latest", "The newest message in the sandbox"),
    ("get", "/view/{queue_id}.html", "Its HTML, cleaned"),
    ("get", "/view/{queue_id}.txt", "Its text"),
)
"""Method, path and what it does; its live events (a websocket) have no place in OpenAPI."""
