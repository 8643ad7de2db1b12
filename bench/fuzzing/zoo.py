"""Planted bugs of the front: each must be found by some session."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from bench.rig.seeds import Patch, patched
from relaygw.inbound import committer, connection, content, login, replies, session
from relaygw.inbound.replies import Refusal
from relaygw.mail.content import normalise_line_ends


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug, and what it puts where."""

    what: str
    patches: Callable[[], list[Patch]]
    seed: int = 0  # that has found it


def planted(name: str) -> AbstractContextManager[None]:
    """Run a block with a bug; an empty name: with none."""
    return patched(BUGS[name].patches() if name else [])


def _bare_lf_ends() -> list[Patch]:
    feed = content.ContentReader.feed

    def loose(self: Any, data: bytes) -> Any:
        return feed(self, data.replace(b"\n.\n", b"\r\n.\r\n"))

    return [(content.ContentReader, "feed", loose)]


def _dots_kept() -> list[Patch]:
    def work_up(self: Any) -> None:
        piece = b"".join(self._pieces)
        self._pieces, self._pieces_bytes = [], 0
        if not self.content.is_lost:
            self.content.add(normalise_line_ends(piece[:-3]))

    return [(content.ContentReader, "work_up", work_up)]


def _edge_forgotten() -> list[Patch]:
    feed = content.ContentReader.feed

    def forgetful(self: Any, data: bytes) -> Any:
        self._tail = b"\r\n" if self._raw_bytes == 0 else self._tail[-1:]
        return feed(self, data)

    return [(content.ContentReader, "feed", forgetful)]


def _chunk_is_commands() -> list[Patch]:
    check = session.Session._check_line

    def go_on(self: Any, line: bytes, verb: bytes) -> None:
        try:
            check(self, line, verb)
        finally:
            if verb == b"BDAT":
                self.connection.is_done = False

    return [(session.Session, "_check_line", go_on)]


def _rset_forgets_nothing() -> list[Patch]:
    async def rset(session: Any, _argument: bytes) -> None:
        session.connection.say(replies.OK)

    return [(session._COMMANDS, b"RSET", rset)]


def _taken_though_refused() -> list[Patch]:
    rcpt = session._rcpt

    async def take(session: Any, argument: bytes) -> None:
        envelope = session.connection.envelope
        try:
            await rcpt(session, argument)
        except Refusal:
            if envelope.mail_from is not None:
                envelope.recipients += session.listener.intake.resolve_recipients("x@y.test")
            raise

    return [(session._COMMANDS, b"RCPT", take)]


def _content_ahead() -> list[Patch]:
    return [(connection.Connection, "has_sent_ahead", property(lambda self: False))]


def _stored_before_dot() -> list[Patch]:
    def end(self: Any) -> bool:
        if self._arrival is not None and not self._arrival.arrived.done():
            self._arrival.arrived.set_result(None)
            self._arrival.reader._pieces.append(b".\r\n")
        self._has_ended = True
        self._hand_over_line()
        return True

    return [(connection.Connection, "eof_received", end)]


def _answered_before_commit() -> list[Patch]:
    async def submit(self: Any, message: Any) -> Any:
        self._pending_bytes += committer._size_bytes(message)
        self._writer.add(message)
        return message.queue_id

    return [(committer.GroupCommitter, "submit", submit)]


def _size_by_one() -> list[Patch]:
    begin = content.ContentReader.__init__

    def larger(self: Any, *, limit_bytes: int, spool_directory: Any) -> None:
        begin(self, limit_bytes=limit_bytes + 1, spool_directory=spool_directory)

    return [(content.ContentReader, "__init__", larger)]


def _base64_raises() -> list[Patch]:
    return [(login, "_decoded", lambda text: b64decode(text.decode(), validate=True))]


def _ehlo_forgets_nothing() -> list[Patch]:
    greet = session._COMMANDS[b"EHLO"]

    async def keep(session: Any, argument: bytes) -> None:
        before = session.connection.envelope
        await greet(session, argument)
        session.connection.envelope = before

    return [(session._COMMANDS, b"EHLO", keep)]


BUGS = {
    "bare-lf-ends": Bug("a bare LF around the dot ends content", _bare_lf_ends, 45),
    "dots-kept": Bug("dot stuffing is not undone", _dots_kept),
    "edge-forgotten": Bug("an end cut in the middle is not seen", _edge_forgotten),
    "chunk-is-commands": Bug(
        "what stands behind a refused BDAT is executed", _chunk_is_commands, 25
    ),
    "rset-forgets-none": Bug("RSET forgets nothing", _rset_forgets_nothing, 31),
    "ehlo-forgets-none": Bug(
        "EHLO within a transaction forgets nothing", _ehlo_forgets_nothing, 225
    ),
    "refused-is-taken": Bug("a refused recipient is one", _taken_though_refused, 2),
    "content-ahead": Bug("content that came before 354 is taken", _content_ahead, 42),
    "stored-before-dot": Bug("half of a content is stored at a hang-up", _stored_before_dot, 76),
    "answered-early": Bug("250 comes before the commit", _answered_before_commit, 75),
    "size-by-one": Bug("the size limit is off by one", _size_by_one, 465),
    "base64-raises": Bug("a login that is no base64 raises", _base64_raises, 90),
}
