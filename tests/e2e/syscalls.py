"""System calls of a running process, as the real strace sees them.

    with Strace(pid, tmp_path / "front.trace") as strace:
        ... drive the process ...
    calls = strace.calls()

Order is that of the lines. strace stops a thread when a call begins and when it ends, and
writes the lines in that order; a call that ended on an earlier line than another began ended
before it, whatever the clocks say. Times are for people who read a failure.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

SYNCS = ("fsync", "fdatasync")
READS = ("read", "readv", "recvfrom", "recvmsg")
WRITES = ("write", "writev", "sendto", "sendmsg", "pwrite64", "pwritev", "pwritev2")
SHOWN_BYTES = 8192
"""How much of each buffer is shown: more than a page of the database."""

_LINE = re.compile(r"^(\d+) +(\d+)\.(\d{6}) (.*)$")
_WHOLE = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)(?: .*)?$")
_BEGUN = re.compile(r"^(\w+)\((.*) <(?:unfinished|detached) \.\.\.>$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)\) += (-?\d+|\?)(?: .*)?$")
_FILE = re.compile(r"^(\d+<[^>]*>)")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call; `began` and `ended` are line numbers, `ended` None if it never returned."""

    thread: int
    name: str
    arguments: str
    began: int
    began_us: int
    ended: int | None = None
    result: int | None = None

    @property
    def file(self) -> str:
        """The first argument, "5</var/x>" or "25<socket:[77]>": one open file of the process."""
        found = _FILE.match(self.arguments)
        return found[1] if found else ""

    @property
    def path(self) -> str:
        """The path of that file."""
        return self.file.partition("<")[2].removesuffix(">")

    def is_before(self, other: Call) -> bool:
        """True when this call had returned before `other` began."""
        return self.ended is not None and self.ended < other.began

    def __str__(self) -> str:
        shown = self.arguments if len(self.arguments) < 150 else f"{self.arguments[:150]}..."
        at = f"{self.began_us // 1_000_000}.{self.began_us % 1_000_000:06}"
        lines = f"lines {self.began} to {self.ended}"
        return f"[{self.thread}] {at} {self.name}({shown}) = {self.result}, {lines}"


def parse(lines: Iterable[str]) -> list[Call]:
    """Return the calls in the order in which they began, from `strace -f -ttt -y -o`."""
    calls: list[Call] = []
    open_calls: dict[int, int] = {}  # thread: where its call is in `calls`
    for number, line in enumerate(lines):
        head = _LINE.match(line)
        if head is None:
            continue
        thread, at_us, text = int(head[1]), int(head[2] + head[3]), head[4]
        if begun := _BEGUN.match(text) or _WHOLE.match(text):
            call = Call(
                thread=thread, name=begun[1], arguments=begun[2], began=number, began_us=at_us
            )
            if begun.re is _BEGUN:
                open_calls[thread] = len(calls)
            else:
                call = replace(call, ended=number, result=_result(begun[3]))
            calls.append(call)
        elif (resumed := _RESUMED.match(text)) and thread in open_calls:
            place = open_calls.pop(thread)
            call = calls[place]
            calls[place] = replace(
                call,
                arguments=call.arguments + resumed[2],
                ended=number,
                result=_result(resumed[3]),
            )
    return calls


def _result(text: str) -> int | None:
    return None if text == "?" else int(text)


class Strace:
    """strace attached to every thread of a process, also to those that it starts later."""

    def __init__(self, pid: int, output: Path, *options: str) -> None:
        self.output = output
        program = shutil.which("strace")
        assert program is not None, "strace is not installed: tests/system-packages.sh brings it"
        chosen = options or ("-e", f"trace={','.join(SYNCS + READS + WRITES)}")
        how = ["-f", "-ttt", "-y", "-s", str(SHOWN_BYTES), *chosen]
        self.process = subprocess.Popen(
            [program, *how, "-o", str(output), "-p", str(pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        if " attached" not in said:
            self.close()
            raise AssertionError(
                f"strace could not attach to process {pid}: {said.strip()}; run as root, or allow "
                "it: sysctl kernel.yama.ptrace_scope=0, docker run --cap-add=SYS_PTRACE"
            )

    def close(self) -> None:
        """Let the process go on untraced; the output is complete on return."""
        self.process.terminate()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def calls(self) -> list[Call]:
        """Return the calls so far."""
        with self.output.open(errors="replace", newline="\n") as stream:
            return parse(line.rstrip("\n") for line in stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
