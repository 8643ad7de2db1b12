"""The parts of a message (RFC 2046), found in one pass and without recursion, as spans of it.

What goes beyond a limit is left out and said so: what is built to be expensive costs no more.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from pathlib import PurePath

from relaygw.mail.content import READ_HEADER_BYTES, normalise_line_ends
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content
from relaygw.web.mail.mime_header import decode_base64, decode_text, read_fields, read_parameters

MAX_PARTS = 1000
MAX_LEVELS = 100
MAX_HEADER_BYTES = 64 * 1024
MAX_BOUNDARY_BYTES = 1000  # RFC 2046 has 70
MAX_DELIMITER_LOOKS = 200_000  # lines that start with two hyphens
MAX_LOADED_BYTES = 32 * 2**20  # of a message above this only the first chunk is read
_BYTES_A_CHARACTER = 4
# bytes of content for one decoded byte, with line ends; quoted-printable may be nothing but these
_RAW_BYTES = {"base64": 1.5, "quoted-printable": 4}

_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"*:<>?|]+')
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


@dataclass(slots=True, kw_only=True)
class Part:
    """One part of a message: what its header says, and where its body lies."""

    part_id: str  # "0" for the message itself, "2" for its second part, "2.1" below that
    content_type: str = "text/plain"
    charset: str = ""
    boundary: bytes = b""  # empty: not a usable multipart
    disposition: str = ""
    has_disposition_parameters: bool = False
    file_name: str = ""
    content_id: str = ""
    encoding: str = ""
    start: int = 0
    end: int = 0
    children: int = 0

    @property
    def is_body(self) -> bool:
        """True for text that is read, not filed."""
        return self.content_type in ("text/plain", "text/html") and self.disposition != "attachment"


@dataclass(slots=True, kw_only=True)
class MimeTree:
    """A message in parts, in the order of the content; `leaves` are those with a body."""

    content: bytes
    fields: list[tuple[str, str]]
    root: Part
    parts: list[Part] = field(default_factory=list)  # all but the root
    leaves: list[Part] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # what was not looked at, for people

    def first(self, name: str) -> str:
        """Return the first value of a field of the message's header, "" without one."""
        name = name.lower()
        return next((value for key, value in self.fields if key.lower() == name), "")

    def body(self, part: Part, *, limit_bytes: int | None = None) -> bytes:
        """Return the decoded bytes of a leaf, of at most `limit_bytes` before decoding."""
        end = part.end if limit_bytes is None else min(part.end, part.start + limit_bytes)
        raw = self.content[part.start : end]
        if part.encoding == "base64":
            return decode_base64(raw)
        if part.encoding == "quoted-printable":
            return binascii.a2b_qp(raw)
        return raw

    def text(self, part: Part, *, limit_characters: int) -> tuple[str, bool]:
        """Return a leaf as text of at most `limit_characters`, and whether there is more of it."""
        # cut before it is decoded: one sign outside of Latin makes each character four bytes
        limit_bytes = limit_characters * _BYTES_A_CHARACTER
        raw_bytes = int(limit_bytes * _RAW_BYTES.get(part.encoding, 1))
        body = self.body(part, limit_bytes=raw_bytes)
        text = decode_text(body[:limit_bytes], part.charset)
        has_more = part.end - part.start > raw_bytes or len(body) > limit_bytes
        return text[:limit_characters], has_more or len(text) > limit_characters


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
    """Find the parts of a message; never raises."""
    content = normalise_line_ends(content)
    fields, start = _read_header(content, 0, limit_bytes=READ_HEADER_BYTES)
    root = _new_part("0", fields)
    root.start, root.end = start, len(content)
    tree = MimeTree(content=content, fields=fields, root=root)
    if root.boundary:
        _Splitter(tree).run()
    if not tree.leaves:
        if root.content_type.startswith("multipart/"):
            root.content_type = "text/plain"  # no part found: what is there is shown as it is
        tree.leaves.append(root)
    return tree


def _read_header(
    content: bytes, start: int, *, limit_bytes: int
) -> tuple[list[tuple[str, str]], int]:
    if content.startswith(b"\r\n", start):
        return [], start + 2
    limit = min(len(content), start + limit_bytes)
    blank = content.find(b"\r\n\r\n", start, limit)
    end, body = (limit, limit) if blank < 0 else (blank + 2, blank + 4)
    return read_fields(content[start:end]), body


def _new_part(part_id: str, fields: list[tuple[str, str]]) -> Part:
    values: dict[str, str] = {}
    for name, value in fields:
        values.setdefault(name.lower(), value)
    media_type, parameters = read_parameters(values.get("content-type", ""))
    disposition, more = read_parameters(values.get("content-disposition", ""))
    part = Part(
        part_id=part_id,
        charset=parameters.get("charset", ""),
        disposition=disposition,
        has_disposition_parameters=bool(more),
        file_name=more.get("filename") or parameters.get("name", ""),
        content_id=values.get("content-id", "").strip("<> "),
        encoding=values.get("content-transfer-encoding", "").lower(),
    )
    if _MEDIA_TYPE.fullmatch(media_type):
        part.content_type = media_type
    boundary = parameters.get("boundary", "").encode()
    if media_type.startswith("multipart/") and len(boundary) <= MAX_BOUNDARY_BYTES:
        part.boundary = boundary
    return part


class _Splitter:
    def __init__(self, tree: MimeTree) -> None:
        self._tree = tree
        self._content = tree.content
        self._open = [tree.root]  # the multiparts around the current line, outermost first
        self._levels = {tree.root.boundary: 0}
        self._leaf: Part | None = None
        self._count = 0

    def run(self) -> None:
        # the line end of the header's blank line, so that a delimiter may be the first line
        position = self._tree.root.start - 2
        for _ in range(MAX_DELIMITER_LOOKS):
            found = self._content.find(b"\r\n--", position)
            if found < 0 or not self._open:
                break
            line, position = self._line_at(found + 2)
            if line is not None and not self._cut(line, found=found, line_end=position):
                break
        else:
            self._leave_out("what follows many lines of hyphens")
        self._finish_leaf(len(self._content))

    def _line_at(self, start: int) -> tuple[bytes | None, int]:
        """Return a line that may be a delimiter without its hyphens, and where it ends."""
        limit = start + MAX_BOUNDARY_BYTES + 80  # RFC 2046 lets blanks follow
        end = self._content.find(b"\r\n", start, limit)
        if end < 0:
            if limit < len(self._content):
                return None, start
            end = len(self._content)
        return self._content[start + 2 : end].rstrip(b" \t"), end

    def _cut(self, line: bytes, *, found: int, line_end: int) -> bool:
        """End a part and begin the next if `line` delimits; False when that is enough."""
        level, last = self._levels.get(line), self._levels.get(line.removesuffix(b"--"))
        if level is not None:
            self._finish_leaf(found)
            self._close(level + 1)
            return self._begin(line_end + 2)
        if last is not None:
            self._finish_leaf(found)
            self._close(last)
        return True

    def _finish_leaf(self, end: int) -> None:
        if self._leaf is not None:
            self._leaf.end = max(self._leaf.start, end)
            self._leaf = None

    def _close(self, level: int) -> None:
        """Leave the multiparts from `level` on; an outer delimiter ends the inner ones too."""
        for part in self._open[level:]:
            del self._levels[part.boundary]
        del self._open[level:]

    def _begin(self, start: int) -> bool:
        if self._count == MAX_PARTS:
            self._leave_out(f"everything after {MAX_PARTS} parts")
            return False
        self._count += 1
        parent = self._open[-1]
        parent.children += 1
        outer = "" if parent is self._tree.root else parent.part_id + "."
        # the next delimiter ends a header that has no blank line
        delimiter = self._content.find(b"\r\n--", start - 2, start + MAX_HEADER_BYTES)
        limit_bytes = MAX_HEADER_BYTES if delimiter < 0 else max(0, delimiter - start)
        fields, body = _read_header(self._content, start, limit_bytes=limit_bytes)
        part = _new_part(f"{outer}{parent.children}", fields)
        part.start = body
        self._tree.parts.append(part)
        if self._may_open(part):
            self._levels[part.boundary] = len(self._open)
            self._open.append(part)
        else:
            self._tree.leaves.append(part)
            self._leaf = part
        return True

    def _may_open(self, part: Part) -> bool:
        # a boundary that is open already could not be told apart from the outer one
        if not part.boundary or part.boundary in self._levels:
            return False
        if len(self._open) == MAX_LEVELS:
            self._leave_out(f"parts more than {MAX_LEVELS} levels deep")
            return False
        return True

    def _leave_out(self, what: str) -> None:
        if what not in self._tree.left_out:
            self._tree.left_out.append(what)


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
