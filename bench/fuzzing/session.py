"""One session: its script against the front, its transcript, and the rule that it broke."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bench.fuzzing.front import Front
from bench.fuzzing.model import Broken, Meant, Model, Reply
from bench.fuzzing.queue import FuzzedDatabase, Stored, taken_from
from bench.fuzzing.script import Script, Step, walk

_SILENCE_S = 4000.0  # longer than anybody is waited for
_ADDED = re.compile(
    rb"Received: from [^\r\n]*\r\n\tby gw\.test \(relaygw\) with [A-Z0-9]+ id ([A-Z0-9a-z]+)"
    rb"(?:\r\n\tfor <[^\r\n]*>)?;\r\n\t[^\r\n]*\r\n"
    rb"(?:Date: [^\r\n]*\r\n)?(?:Message-ID: <[^\r\n]*>\r\n)?(?:\r\n|X-Mailbox-Line: )?"
)


@dataclass
class Result:
    """What came of a seed."""

    seed: int
    profile: str
    transcript: list[str] = field(default_factory=list)
    broken: str = ""
    replies: int = 0
    stored: int = 0


class _Session:
    def __init__(self, seed: int, script: Script, database: FuzzedDatabase) -> None:
        self.script, self.database = script, database
        self.result = Result(seed, script.profile.name)
        self.replies: list[Reply] = []
        self.sent = bytearray()  # what the front was given
        self.is_ended = self.is_gone = False
        self.front = Front(seed, script.profile, database, self._replied)
        self.front.took = self._took
        self.bound: str | None = None

    def _note(self, text: str) -> None:
        self.result.transcript.append(text)

    def _replied(self, data: bytes) -> None:
        self.replies.append(Reply(data, len(self.sent)))
        self._note(f"S: {data!r}")

    def _took(self, data: bytes) -> None:
        self.sent += data
        self._note(f"C: {data!r}")

    # --- what the client does

    def run(self) -> None:
        """Take all steps, then leave."""
        self.front.settle()
        leaves = self.script.hang_up
        for number, step in enumerate(self.script.steps):
            if leaves is not None and leaves.step == number:
                self._step(step, leaves.at_byte)
                self._leave(leaves.kind)
                break
            self._step(step, None)
        self.front.fill(False)
        self.front.settle()
        self._check_bounds()

    def finish(self) -> None:
        """Let a client that is still there leave."""
        if not self.front.wire.is_closed:
            self.front.hang_up(None)
        self.front.settle()

    def _step(self, step: Step, limit_bytes: int | None) -> None:
        if step.kind == "silence":
            self._note(f"C: (silent for {_SILENCE_S:.0f} s)")
            self.front.settle()
            self.front.wait(_SILENCE_S)
            self.front.settle()
        elif step.kind in ("full", "read"):
            self._note("C: (reads no replies)" if step.kind == "full" else "C: (reads on)")
            self.front.fill(step.kind == "full")
        else:
            self.front.settle()
            is_asked = bool(self.replies) and self.replies[-1].code == 354
            if step.kind == "say" or is_asked:
                self._say(step, limit_bytes)

    def _say(self, step: Step, limit_bytes: int | None) -> None:
        left = limit_bytes
        for piece in step.pieces:
            data = piece if left is None else piece[:left]
            left = None if left is None else left - len(data)
            if data:
                self.front.hear(data)
            if step.settles:
                self.front.settle()
                self._check_bounds()

    def _leave(self, kind: str) -> None:
        self._note(f"C: ({kind})")
        if kind == "end":
            self.is_ended = True
            self.front.hear(None)
            return
        self.is_gone = True
        self.front.hang_up(ConnectionResetError("reset") if kind == "reset" else None)

    def _check_bounds(self) -> None:
        self.bound = self.bound or self.front.bounds()

    # --- the rules

    def judge(self) -> None:
        """Raise Broken if something was not as it has to be."""
        model = Model(
            self.script,
            bytes(self.sent),
            self.replies,
            is_ended=self.is_ended,
            is_gone=self.is_gone,
        )
        try:
            model.judge()
            if not self.is_gone and model.is_closed != self.was_closed:
                raise Broken("the front hung up" if self.was_closed else "the front hangs on")
            if self.bound is not None:
                raise Broken(self.bound)
        finally:
            self.finish()
        for trouble in self.front.leftovers():
            raise Broken(trouble)
        stored = taken_from(self.database.queue)
        self.result.stored = len(stored)
        _compare(stored, model.meant, model.maybe)

    @property
    def was_closed(self) -> bool:
        """True if the front hung up."""
        return self.front.wire.is_closed and not self.is_gone


def run_seed(seed: int, database: FuzzedDatabase) -> Result:
    """Run the session of a seed; nothing is left of it."""
    session = _Session(seed, walk(seed), database)
    try:
        session.run()
        session.judge()
    except Broken as broken:
        session.result.broken = str(broken)
    except Exception as error:  # of the front, called as a transport calls it
        session.result.broken = f"{type(error).__name__}: {error}"
    finally:
        taken_from(database.queue)
        session.front.close()
    session.result.replies = len(session.replies)
    return session.result


def _compare(stored: list[Stored], meant: list[Meant], maybe: Meant | None) -> None:
    left = {one.queue_id: one for one in stored}
    for message in meant:
        found = left.pop(message.queue_id, None)
        if found is None:
            raise Broken(f"{message.queue_id} was answered with 250, and is not stored")
        why = _difference(found, message)
        if why:
            raise Broken(f"{message.queue_id}: {why}")
    for one in left.values():
        if maybe is None or _difference(one, maybe):
            raise Broken(f"{one.queue_id} is stored, and nobody was told: {one.content[-300:]!r}")
        maybe = None


def _difference(stored: Stored, meant: Meant) -> str:
    if stored.sender != meant.sender:
        return f"the sender is {stored.sender!r}, not {meant.sender!r}"
    if tuple(stored.recipients) != meant.recipients:
        return f"the recipients are {stored.recipients}, not {meant.recipients}"
    added = stored.content[: len(stored.content) - len(meant.content)]
    match = _ADDED.fullmatch(added)
    if not stored.content.endswith(meant.content) or match is None:
        return f"the content is {stored.content!r}, not {meant.content!r}"
    if match[1].decode() != stored.queue_id:
        return "the Received field names another queue id"
    return ""
