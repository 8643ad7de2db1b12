"""Which mail is never answered by a notice: RFC 3834, section 2."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relaygw.mail.content import header_end, header_fields

_TELLING = ("auto-submitted", "precedence", "content-type")
_BULK = frozenset({"bulk", "list", "junk"})
_IN_COMMENT = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_OUTSIDE = re.compile(r'"(?:[^"\\]|\\.)*"?|\\.|[()]|[^"\\()]+|\\', re.DOTALL)
_NO_WORD = re.compile(r"[^!-~]+")


def objection(head: bytes, *, to_sender: bool) -> str:
    """Return why mail with this header is not answered, "" if it may be.

    Not `to_sender`: to somebody who is told of everything. Only reports are not reported then.
    """
    for field in header_fields(head, 0, header_end(head)):
        name = field.name.decode("ascii").lower()
        if name not in _TELLING and not name.startswith("list-"):
            continue
        word = _first_word(head[field.value_start : field.value_end])
        if name == "content-type" and word == "multipart/report":
            return "it is a report itself"
        if not to_sender or name == "content-type":
            continue
        if name.startswith("list-"):
            return f"it has a field {field.name.decode('ascii')[:40]}"
        if word in _BULK if name == "precedence" else word != "no":
            said = f"is {word[:40]}" if word else "has no value"
            return f"its {field.name.decode('ascii')} {said}"
    return ""


def _first_word(value: bytes) -> str:
    """Return what stands before the parameters, lower-case, without white space or comments."""
    text = "".join(_outside_comments(value.decode("ascii", "replace")))
    return _NO_WORD.sub("", text.partition(";")[0]).lower()


def _outside_comments(text: str) -> Iterator[str]:
    """Yield the pieces that stand in no comment (RFC 5322, section 3.2.2: they nest)."""
    depth, at = 0, 0
    while match := (_IN_COMMENT if depth else _OUTSIDE).match(text, at):
        piece, at = match[0], match.end()
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
        elif not depth:
            yield piece
