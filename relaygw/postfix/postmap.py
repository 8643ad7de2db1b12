"""The Postfix of this host, asked: what its tables hold, what they answer, what it knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from relaygw.postfix.maps import Entry, Table
from relaygw.settings.tree import Place

_PATIENCE_S = 60
_WHERE = "/usr/sbin:/usr/local/sbin:/usr/bin:/sbin"


@contextmanager
def postfix_here() -> Iterator[Postfix | None]:
    """Lend the Postfix of this host, None where there is none.

    Its programs are run with a configuration of our own: that of the host may be the broken one.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), _WHERE))
    postmap, postconf = (shutil.which(name, path=path) for name in ("postmap", "postconf"))
    if not (postmap and postconf):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="relaygw-postmap-") as home:
        (Path(home) / "main.cf").write_text("compatibility_level = 3.6\n")
        yield Postfix([postmap, "-c", home], [postconf, "-c", home])


@dataclass
class Postfix:
    """Answers of a real Postfix; every question that was asked once is remembered."""

    postmap: list[str]
    postconf: list[str]
    problems: list[str] = field(default_factory=list)
    not_asked: dict[str, None] = field(default_factory=dict)  # tables that it could not open
    _answers: dict[tuple[str, str], str | None] = field(default_factory=dict)

    @cached_property
    def types(self) -> frozenset[str]:
        """The types of tables that it knows."""
        return frozenset(self._run([*self.postconf, "-m"])[1].split())

    def entries(self, table: Table) -> list[tuple[str, str]] | None:
        """Return what an indexed table holds; None where only its text can tell."""
        if table.kind not in self.types or table.index is None or not table.index.exists():
            return None
        code, lines = self._run([*self.postmap, "-s", table.spec])
        if code:
            return None
        pairs = (line.partition("\t") for line in lines.splitlines())
        # of a file of aliases the keys end with the NUL that programs in C see
        entries = [(key.rstrip("\0"), value.rstrip("\0")) for key, tab, value in pairs if tab]
        # YP_LAST_MODIFIED and YP_MASTER_NAME, which postalias writes for NIS
        return [one for one in entries if not one[0].startswith("YP_")]

    def learn(self, table: Table, keys: Iterable[str]) -> None:
        """Ask for many keys at once; what is asked again is known then."""
        wanted = [one for one in dict.fromkeys(keys) if one and one.isprintable()]
        wanted = [one for one in wanted if (table.spec, one) not in self._answers]
        if not wanted or not self.can_ask(table):
            return
        command = [*self.postmap, "-q", "-", table.spec]
        code, lines = self._run(command, "\n".join(wanted) + "\n")
        if code not in (0, 1):
            self.not_asked[table.spec] = None
            return
        found = dict.fromkeys(wanted) | {
            key: value for key, tab, value in (line.partition("\t") for line in lines.splitlines())
        }
        self._answers |= {(table.spec, key): value for key, value in found.items()}

    def can_ask(self, table: Table) -> bool:
        """Return whether its own answer can be had."""
        is_there = table.index is None or table.index.exists()
        is_shown = table.is_secret and table.path is None  # in the list of processes
        can_open = table.spec not in self.not_asked and not table.problem
        return is_there and not is_shown and table.kind in self.types and can_open

    def look_up(self, table: Table, key: str, partial: bool) -> Entry | None:
        """Return what Postfix answers, with the place as it was read."""
        read = table.find(key, partial=partial)
        if (partial and table.patterns) or not key or not self.can_ask(table):
            return read
        if (table.spec, key) not in self._answers:
            self.learn(table, [key])
        answer = self._answers.get((table.spec, key), read.value if read else None)
        if answer is None:
            return None
        place = read.place if read is not None else Place(table.spec)
        return Entry(key, answer, place)

    def _run(self, command: list[str], text: str = "") -> tuple[int, str]:
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, timeout=_PATIENCE_S, check=False,
                encoding="utf-8", errors="replace", cwd=Path("/"),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            self.problems.append(f"{Path(command[0]).name}: {error}")
            return -1, ""
        if done.returncode not in (0, 1) or done.stderr:
            self.problems += done.stderr.splitlines()
        # where it cannot open a table its exit code is that of a key which is not there
        return -1 if "fatal:" in done.stderr else done.returncode, done.stdout
