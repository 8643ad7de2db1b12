"""How a part of a message can be shown, by its type and its name."""

from __future__ import annotations

from pathlib import PurePath

from relaygw.web.mail.mime_tree import Part

_TYPES = {
    **dict.fromkeys(("png", "jpeg", "gif", "webp", "bmp"), "picture"),
    **dict.fromkeys(("json", "xml", "yaml", "javascript", "rfc822"), "text"),
    "calendar": "calendar",
    "ics": "calendar",
    "pdf": "pdf",
}
_ENDINGS = {
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "bmp"), "picture"),
    **dict.fromkeys(
        ("txt", "text", "csv", "tsv", "log", "md", "json", "xml", "html", "htm", "svg", "yaml",
         "yml", "eml", "vcf", "css", "js"),
        "text",
    ),
    "ics": "calendar",
    "pdf": "pdf",
}  # fmt: skip


def kind_of(part: Part) -> str:
    """Return how a part can be shown: picture, text, calendar or pdf; "" if it can only be saved.

    The name decides where the type says nothing.
    """
    main, _, sub = part.content_type.partition("/")
    sub = sub.removeprefix("x-").rpartition("+")[2]
    kind = "text" if main == "text" and sub not in _TYPES else _TYPES.get(sub, "")
    if main == "image" and kind != "picture":
        return "text" if part.content_type == "image/svg+xml" else ""
    if kind or part.content_type != "application/octet-stream":
        return kind
    return _ENDINGS.get(PurePath(part.file_name.lower()).suffix[1:], "")
