"""Ten thousand mails of every kind rewritten to 7 bits: they read as before, no more changes."""

from __future__ import annotations

import re
from email.errors import CloseBoundaryNotFoundDefect
from email.message import Message
from itertools import zip_longest

import pytest

from relaygw.upstream.seven_bit import to_seven_bit
from tests.campaign import times
from tests.tables import each_of
from tests.unit.upstream.seven_bit_mails import (
    ADDED,
    charset_of,
    fields_of,
    leaf_bytes,
    one_mail,
    parsed,
    read_field,
)

pytestmark = pytest.mark.campaign

MAILS = times(300, campaign=10_000)
GROUPS = 10
_ENCODING = "content-transfer-encoding"
_FIELD = re.compile(rb"(?m)^[A-Za-z-]+[ \t]*:(?:[^\r\n]|\r\n[ \t])*\r\n")


def check(before: Message, after: Message, charset: str, *, is_open: bool = False) -> None:
    """Compare a part, and all in it, as it was written and as it was rewritten.

    `is_open`: no delimiter ends it, so that nobody can say whose its last line ends are.
    """
    is_open |= any(isinstance(found, CloseBoundaryNotFoundDefect) for found in before.defects)
    assert before.get_content_type() == after.get_content_type()
    is_body_changed = not_ascii(before)
    old, new = fields_of(before), fields_of(after)
    added = new[len(old) :]
    for (name, raw), (new_name, new_raw) in zip(old, new, strict=False):
        assert new_name == name
        assert new_raw.isascii()
        if name.lower() == _ENCODING and is_body_changed:
            continue
        if raw.isascii():
            assert new_raw == raw
        else:
            taken_for = charset_of(raw, charset)
            assert read_field(name, new_raw, taken_for) == read_field(name, raw, taken_for)
    names = {name.lower() for name, _ in old}
    assert len(new) >= len(old)
    for name, _ in added:
        assert is_body_changed and name in ADDED and name.lower() not in names
    if before.is_multipart():
        parts = zip_longest(before.get_payload(), after.get_payload())
        for one, other in parts:
            check(one, other, charset, is_open=is_open)
    elif is_body_changed:
        ends = b"\r\n" if is_open else b""
        assert leaf_bytes(after).rstrip(ends) == leaf_bytes(before).rstrip(ends)
        assert all(len(line) <= 76 for line in str(after.get_payload()).splitlines())
    else:
        assert after.get_payload() == before.get_payload()
    assert ignored(after.preamble) == ignored(before.preamble)
    assert ignored(after.epilogue) == ignored(before.epilogue)


def ignored(text: str | None) -> str:
    """Return text that is no part as it is rewritten."""
    return "".join(sign if sign.isascii() else "?" for sign in text or "")


def check_untouched(content: bytes, converted: bytes) -> None:
    """Compare the fields in ASCII byte by byte, spaces before the colon and folding included."""
    for found in _FIELD.findall(content):
        if found.isascii() and not found.lower().startswith(_ENCODING.encode()):
            assert found in converted


def is_ascii_text(text: str | None) -> bool:
    return text is None or text.isascii()


def not_ascii(part: Message) -> bool:
    """True if the body of a part, with all parts in it, has 8-bit bytes."""
    if not part.is_multipart():
        return not str(part.get_payload()).isascii()
    if not (is_ascii_text(part.preamble) and is_ascii_text(part.epilogue)):
        return True
    return any(
        not_ascii(inner) or any(not raw.isascii() for _, raw in fields_of(inner))
        for inner in part.get_payload()
    )


@each_of("group", range(GROUPS))
def test_rewritten_mail_reads_as_before(group: int) -> None:
    size = MAILS // GROUPS
    changed = 0
    for seed in range(group * size, (group + 1) * size):
        content, charset = one_mail(seed)
        declared = charset if b"charset=" + charset.encode() in content else ""
        converted = to_seven_bit(content)
        try:
            assert converted.isascii()
            assert b"\r" not in converted.replace(b"\r\n", b"")
            check(parsed(content), parsed(converted), declared)
            check_untouched(content, converted)
        except AssertionError as error:
            raise AssertionError(f"mail {seed}: {error}") from error
        changed += converted != content
    assert changed > size * 0.8
