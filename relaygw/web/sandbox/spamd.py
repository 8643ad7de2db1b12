"""The spam score of a mail by SpamAssassin's spamd: its own protocol, one question a connection.

Nothing is learnt or reported by it. Whatever spamd answers, it costs at most `LIMIT_S` and
`MAX_ANSWER_BYTES`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from relaygw.settings.addresses import split_host_port

LIMIT_S = 30.0
CONNECT_S = 5.0
MAX_ASKED_BYTES = 4 * 2**20  # spamc asks about 500 kB unless told otherwise
MAX_ANSWER_BYTES = 256 * 1024
MAX_RULES = 300

_STATUS = re.compile(r"SPAMD/\d+\.\d+ (\d+) ?(\S*)")
_NUMBER = r"(-?\d{1,9}(?:\.\d{1,9})?)"  # never too large for JSON
_SPAM = re.compile(rf"Spam:\s*(\w+)\s*;\s*{_NUMBER}\s*/\s*{_NUMBER}(?!\d)", re.IGNORECASE)
_RULE = re.compile(rf"\s*{_NUMBER}\s+([A-Z][A-Z0-9_]{{2,80}})\s*(.*)")
_GOES_ON = re.compile(r"\s{10,}(\S.*)")


class NoScore(Exception):
    """Why there is no score, and what to do."""


@dataclass(frozen=True, slots=True)
class SpamRule:
    """A rule that a mail meets."""

    score: float
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class SpamScore:
    """What SpamAssassin says."""

    is_spam: bool
    score: float
    limit: float  # from here on it is spam
    rules: tuple[SpamRule, ...]


def check_size(size_bytes: int) -> None:
    """Raise NoScore for a mail that is too large to ask about."""
    if size_bytes > MAX_ASKED_BYTES:
        limit = f"{MAX_ASKED_BYTES // 2**20} MiB"
        raise NoScore(f"The mail is larger than {limit}; SpamAssassin does not check it.")


async def ask_spamd(address: str, content: bytes) -> SpamScore:
    """Return the score of a mail; raises NoScore."""
    where = f"SpamAssassin (sandbox.spamd: {address})"
    try:
        async with asyncio.timeout(LIMIT_S):
            answer = await _exchange(address, content)
    except TimeoutError:
        raise NoScore(f"{where} does not answer within {LIMIT_S:g} s; check spamd.") from None
    except (OSError, asyncio.IncompleteReadError) as error:
        is_refused = isinstance(error, ConnectionRefusedError)
        why = (
            "connection refused" if is_refused else getattr(error, "strerror", None) or "it hung up"
        )
        remedy = "check that spamd runs, and that its -A allows this host"
        raise NoScore(f"{where} does not answer: {why}; {remedy}.") from None
    found = read_answer(answer)
    if found is None:
        said = answer[:60].decode("ascii", "replace").partition("\r")[0]
        raise NoScore(f"{where} gives an unknown answer: {said!r}.")
    return found


async def _exchange(address: str, content: bytes) -> bytes:
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(*split_host_port(address))
    try:
        writer.write(b"REPORT SPAMC/1.2\r\nContent-length: %d\r\n\r\n" % len(content))
        writer.write(content)
        await writer.drain()
        writer.write_eof()
        pieces, left = [], MAX_ANSWER_BYTES
        while left > 0 and (piece := await reader.read(min(left, 65536))):
            pieces.append(piece)
            left -= len(piece)
        if not pieces:
            raise asyncio.IncompleteReadError(b"", None)
        return b"".join(pieces)
    finally:
        writer.transport.abort()  # to close would wait until spamd has read all of the mail


def read_answer(answer: bytes) -> SpamScore | None:
    """Return the report in an answer to REPORT, None for anything else; never raises."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("ascii", "replace").split("\r\n")
    status = _STATUS.match(lines[0])
    spam = next(filter(None, map(_SPAM.match, lines[1:])), None)
    if status is None or status[1] != "0" or spam is None:
        return None
    return SpamScore(
        is_spam=spam[1].lower() in ("true", "yes"),
        score=float(spam[2]),
        limit=float(spam[3]),
        rules=_rules(body.decode("utf-8", "replace")),
    )


def _rules(report: str) -> tuple[SpamRule, ...]:
    """Return the table of a report, largest effect first; a description may take several lines."""
    rules: list[SpamRule] = []
    is_table = False
    for line in report.splitlines():
        match = _RULE.fullmatch(line)
        if match and is_table and len(rules) < MAX_RULES:
            rules.append(SpamRule(float(match[1]), match[2], match[3].strip()))
        elif line.lstrip().startswith("----"):
            is_table = True
        elif is_table and rules and (more := _GOES_ON.fullmatch(line)):
            last = rules[-1]
            text = f"{last.description} {more[1].strip()}"[:500]
            rules[-1] = SpamRule(last.score, last.name, text)
    return tuple(sorted(rules, key=lambda rule: (-abs(rule.score), rule.name)))
