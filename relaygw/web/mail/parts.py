"""The parts of a message as they are shown: which are read, which are filed, under which name."""

from __future__ import annotations

import re
from pathlib import PurePath

from relaygw.mail import mime_tree
from relaygw.mail.content import normalise_line_ends
from relaygw.mail.mime_tree import MAX_LEVELS, Limit, MimeTree, Part
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content

MAX_PARTS = 1000
MAX_LOADED_BYTES = 32 * 2**20  # of a message above this only the first chunk is read
_LEFT_OUT = {
    Limit.PARTS: f"everything after {MAX_PARTS} parts",
    Limit.LEVELS: f"parts more than {MAX_LEVELS} levels deep",
    Limit.LINES: "what follows many lines of hyphens",
}
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"*:<>?|]+')


def load_tree(store: Store, entry: QueueEntry) -> MimeTree:
    """Return a stored message in parts; `left_out` says what is not there. Blocks."""
    is_whole = entry.size_bytes <= MAX_LOADED_BYTES
    chunks = read_content(store, entry)
    tree = read_tree(b"".join(chunks) if is_whole else next(chunks, b""))
    if not is_whole:
        tree.left_out.append("all but the start; the source is complete")
    elif not tree.content and entry.size_bytes:
        tree.left_out.append("the content, which is no longer stored")
    return tree


def read_tree(content: bytes) -> MimeTree:
    """Find the parts of a message, attached ones as a whole; never raises."""
    content = normalise_line_ends(content)
    tree = mime_tree.read_tree(content, max_parts=MAX_PARTS, with_messages=False)
    tree.left_out += (words for limit, words in _LEFT_OUT.items() if limit in tree.exceeded)
    if all(leaf.content_type.startswith("multipart/") for leaf in tree.leaves):
        for leaf in tree.leaves:
            leaf.content_type = "text/plain"  # no part found: what is there is shown as it is
    return tree


def filed_parts(tree: MimeTree) -> tuple[list[Part], list[Part]]:
    """Return the parts that are not read but filed: inline ones, and attachments."""
    inline: list[Part] = []
    attachments: list[Part] = []
    for part in tree.leaves:
        is_inline = part.disposition == "inline"
        is_stream = part.content_type == "application/octet-stream"
        is_only_file = tree.leaves == [tree.root] and not part.is_body
        if is_inline and part.has_disposition_parameters:
            is_only_file = False
        if part.disposition == "attachment" or is_stream or is_only_file:
            attachments.append(part)
        elif (part.file_name or part.content_id) and (is_inline or not part.is_body):
            inline.append(part)
    return inline, attachments


def filed_ids(tree: MimeTree) -> frozenset[str]:
    """Return the ids of the parts that are not read but filed."""
    return frozenset(part.part_id for parts in filed_parts(tree) for part in parts)


def file_name_of(part: Part) -> str:
    """Return a name that is safe to save under: no path, no control characters, not empty."""
    name = part.file_name or part.content_id
    name = re.split(r"[/\\]", _UNSAFE.sub("_", name))[-1].strip(" .")
    if len(name) > 120:
        stem, dot, ending = name.rpartition(".")
        name = stem[:100] + dot + ending[:19] if stem else name[:120]
    if _RESERVED_NAMES.match(name):
        name = f"_{name}"
    return name or f"part-{part.part_id}"


# --- how a part can be shown ------------------------------------------------------------


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
