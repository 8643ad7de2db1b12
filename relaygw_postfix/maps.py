"""Lookup tables of Postfix: `hash:/etc/postfix/x`, read as Postfix reads them, or asked of it.

Text lies beside an indexed table (`.db`, `.lmdb`, `.cdb`); Postfix looks into the index alone, so
where a Postfix is installed the index is read by it. Keys fold to lower case.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from relaygw.settings.tree import Place
from relaygw_postfix.main_cf import (
    HOMES,
    Configuration,
    PostfixUnreadable,
    logical_lines,
    read_text,
    split_list,
    unbraced,
)
from relaygw_postfix.patterns import PatternLine, read_patterns

INDEXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag",
           "sdbm": ".pag"}  # fmt: skip
"""Tables that `postmap` makes of a text file, and what their file ends with."""
_PATTERNS = ("regexp", "pcre")
_ELSEWHERE = {
    **dict.fromkeys(("ldap", "mysql", "pgsql", "sqlite", "mongodb", "memcache", "nis", "nisplus",
                     "netinfo"), "is in a database"),
    **dict.fromkeys(("tcp", "socketmap", "unix", "proxywrite"), "asks a program"),
    **dict.fromkeys(("cidr", "environ", "fail", "randmap", "pipemap", "unionmap", "internal"),
                    "has no list of addresses"),
}  # fmt: skip
_PAIR = re.compile(r'("(?:[^"\\]|\\.)*"\S*|\S+)\s+(.*)', re.S)
_ALIAS = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^:\s]+)\s*:\s*(.*)', re.S)

Reader = Callable[["Table"], list[tuple[str, str]] | None]
"""Returns what an indexed table holds, None where only its text file can tell."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table."""

    key: str
    value: str
    place: Place


@dataclass(slots=True)
class Table:
    """One table of a parameter."""

    spec: str  # as it is written, but relocated and without proxy:
    kind: str
    path: Path | None = None
    entries: list[Entry] = field(default_factory=list)
    patterns: list[PatternLine] = field(default_factory=list)
    problem: str = ""  # why nothing of it can be used
    failure: str = ""  # why Postfix cannot use it
    notes: list[str] = field(default_factory=list)  # what is odd about its lines
    is_static: bool = False
    is_secret: bool = False  # it holds passwords
    _by_key: dict[str, Entry] = field(default_factory=dict)

    @property
    def index(self) -> Path | None:
        """The file that Postfix looks into, of an indexed table."""
        ending = INDEXES.get(self.kind)
        return self.path.with_name(self.path.name + ending) if self.path and ending else None

    @property
    def missing_index(self) -> str:
        """What is missing of an indexed table, without which Postfix defers mail."""
        index = self.index
        if index is None or index.exists():
            return ""
        return f"{index}: is not there, so Postfix would defer the mail: run postmap {self.spec}"

    def add(self, entry: Entry) -> None:
        """Take a line; of two with one key the first holds, as with postmap, else the last."""
        key = entry.key.lower()
        if key in self._by_key:
            earlier = self._by_key[key]
            twice = f"{entry.place}: {entry.key} exists already ({earlier.place})"
            if self.kind == "texthash":
                self.failure = f"{twice}, so Postfix cannot open {self.spec}"
            if self.kind != "inline":
                self.notes.append(f"{self.failure or f'{twice}, which applies'}; remove one")
                return
            self.notes.append(f"{twice}, and the last applies; remove one")
            self.entries.remove(earlier)
        self._by_key[key] = entry
        self.entries.append(entry)

    def find(self, key: str, *, partial: bool = False) -> Entry | None:
        """Return the entry for a key; patterns see whole addresses only, not parts of them."""
        if self.is_static:
            return self.entries[0]
        if self.patterns and not partial:
            for line in self.patterns:
                if line.matches(key):
                    return Entry(key, line.result(key), line.place)
        return self._by_key.get(key.lower())


class Tables:
    """The tables of a configuration, each read once."""

    def __init__(self, configuration: Configuration, reader: Reader = lambda _: None) -> None:
        self.configuration = configuration
        self._reader = reader
        self._read: dict[tuple[str, bool], Table] = {}

    @property
    def all(self) -> list[Table]:
        """Every table that was asked for."""
        return list(self._read.values())

    def of(self, name: str, service: object = None, *, aliases: bool = False) -> list[Table]:
        """Return the tables of a parameter. Raises PostfixUnreadable."""
        configuration = self.configuration
        words = configuration.values(name, service)  # type: ignore[arg-type]
        place = configuration.place(name, service)  # type: ignore[arg-type]
        found = [self.table(word, place, aliases=aliases) for word in words]
        for table in found:
            table.is_secret |= "password" in name
        return found

    def table(self, word: str, place: Place, *, aliases: bool = False) -> Table:
        """Return the table that a word such as `hash:/etc/postfix/x` names."""
        while word.startswith("proxy:"):
            word = word.removeprefix("proxy:")
        if (word, aliases) not in self._read:
            self._read[word, aliases] = self._load(word, place, aliases)
        return self._read[word, aliases]

    def relocated(self, path: str) -> Path:
        """Return where a file lies: a copy of a directory brings its own."""
        directory, given = self.configuration.directory, Path(path)
        if not given.is_absolute():
            return directory / given
        if self.configuration.is_of_this_host:
            return given
        for home in HOMES:
            if given.is_relative_to(home) and (directory / given.relative_to(home)).exists():
                return directory / given.relative_to(home)
        beside = directory / given.name  # as aliases, which lies in /etc
        return beside if beside.exists() and given.parent == Path("/etc") else given

    def _load(self, word: str, place: Place, aliases: bool) -> Table:
        kind, colon, rest = word.partition(":")
        if not colon:
            default = self.configuration.value("default_database_type")
            kind, rest = default, word
        table = Table(f"{kind}:{rest}", kind)
        try:
            self._fill(table, rest, place, aliases)
        except PostfixUnreadable as error:
            table.problem = str(error)
            if table.path is not None and not table.path.exists():
                table.problem = (
                    f"{place}: {table.path} is not there; put it there, or remove it here"
                )
        return table

    def _fill(self, table: Table, rest: str, place: Place, aliases: bool) -> None:
        if table.kind == "static":
            table.is_static = True
            table.entries.append(Entry("*", unbraced(rest), place))
        elif table.kind == "inline":
            for pair in split_list(unbraced(rest)):
                key, _, value = unbraced(pair).partition("=")
                table.add(Entry(key.strip(), value.strip(), place))
        elif table.kind in _PATTERNS:
            self._fill_patterns(table, rest, place)
        elif table.kind in INDEXES or table.kind == "texthash":
            table.path = self.relocated(rest)
            table.spec = f"{table.kind}:{table.path}"
            self._fill_from_text(table, aliases)
        elif table.kind in _ELSEWHERE:
            raise PostfixUnreadable(
                f"{place}: {table.kind}: {_ELSEWHERE[table.kind]}; write its lines into a file "
                "and name that as texthash:FILE"
            )
        else:
            raise PostfixUnreadable(
                f"{place}: {table.kind!r} is not a table type that relaygw supports (`postconf "
                "-m` lists those of this Postfix); write its lines into a file, as texthash:FILE"
            )

    def _fill_patterns(self, table: Table, rest: str, place: Place) -> None:
        if rest.startswith("{"):
            lines = [(place, unbraced(word)) for word in split_list(unbraced(rest))]
        else:
            table.path = self.relocated(rest)
            table.spec = f"{table.kind}:{table.path}"
            short = Place(table.path.name, file=table.path)
            lines = list(logical_lines(read_text(table.path), short))
        table.patterns = read_patterns(lines, table.notes)

    def _fill_from_text(self, table: Table, aliases: bool) -> None:
        assert table.path is not None
        indexed = self._reader(table) if table.index is not None else None
        try:
            text: str | None = read_text(table.path)
        except PostfixUnreadable:
            if indexed is None:
                raise
            text = None
        if text is not None:
            short = Place(table.path.name, file=table.path)
            for entry in _entries(text, short, table.notes, aliases):
                table.add(entry)
        if indexed is not None:
            _replace(table, indexed)


def _entries(text: str, short: Place, notes: list[str], aliases: bool) -> Iterator[Entry]:
    for place, line in logical_lines(text, short):
        match = (_ALIAS if aliases else _PAIR).fullmatch(line)
        if match is None:
            form = "NAME: ADDRESS" if aliases else "KEY VALUE"
            notes.append(f"{place}: is not {form}, so Postfix ignores it; complete or remove it")
            continue
        key, value = match[1], match[2].strip()
        if not aliases and key.endswith(":") and "@" not in key:
            notes.append(f"{place}: {key} ends with a colon, as in a file of aliases; remove it")
        yield Entry(_unquoted(key) if aliases else key, value, place)


def _unquoted(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


def _replace(table: Table, indexed: Sequence[tuple[str, str]]) -> None:
    """Let a table hold what its index does; places are those of the same line in the text."""
    assert table.path is not None and table.index is not None
    known = {entry.key.lower(): entry for entry in table.entries}
    place = Place(table.index.name, file=table.index)
    table.entries, table._by_key = [], {}
    for key, value in indexed:
        here = known.get(key.lower())
        is_same = here is not None and here.value.split() == value.split()
        table.add(here if here is not None and is_same else Entry(key, value, place))


Lookup = Callable[[Table, str, bool], Entry | None]
"""Looks a key up in a table; the last says that the key is a part of an address."""


def look_up(table: Table, key: str, partial: bool) -> Entry | None:
    """Return the table's result, as it was read."""
    return table.find(key, partial=partial)


def find(
    tables: Sequence[Table], key: str, *, partial: bool = False, lookup: Lookup = look_up
) -> Entry | None:
    """Return the first entry for a key in several tables."""
    found = (lookup(table, key, partial) for table in tables if not table.problem)
    return next((entry for entry in found if entry is not None), None)


# --- the Postfix of this host, asked: what its tables hold, what they answer, what it knows

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
        _write_main_cf(Path(home), {"compatibility_level": "3.6"})
        yield Postfix([postmap, "-c", home], [postconf, "-c", home])


def _write_main_cf(directory: Path, values: Mapping[str, str]) -> None:
    main_cf = directory / "main.cf"
    main_cf.write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
    os.utime(main_cf, (1, 1))  # where it changed just now, each program waits for two seconds


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
        """Return the content of an indexed table; None where only its text can tell."""
        if table.kind not in self.types or table.index is None or not table.index.exists():
            return None
        code, lines = self._run([*self.postmap, "-s", table.spec])
        if code:
            return None
        pairs = (line.partition("\t") for line in lines.splitlines())
        # of a file of aliases the keys end with the NUL that programs in C see
        entries = [(key.rstrip("\0"), value.rstrip("\0")) for key, tab, value in pairs if tab]
        # YP_LAST_MODIFIED and YP_MASTER_NAME, which postalias writes for NIS
        return [entry for entry in entries if not entry[0].startswith("YP_")]

    def learn(self, table: Table, keys: Iterable[str]) -> None:
        """Ask for many keys at once; what is asked again is known then."""
        wanted = [fromkey for fromkey in dict.fromkeys(keys) if fromkey and fromkey.isprintable()]
        wanted = [key for key in wanted if (table.spec, key) not in self._answers]
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
        """Return Postfix's answer, with the place as it was read."""
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

    def start_failures(self, configuration: Configuration) -> list[str]:
        """Return why it does not start with this host's configuration, each with its place.

        Every program of it reads the values of main.cf at its start, a harmless one as well.
        """
        door = configuration.door
        parameters = configuration.parameters | (dict(door.overrides) if door is not None else {})
        values = {name: parameter.value for name, parameter in parameters.items()}
        with tempfile.TemporaryDirectory(prefix="relaygw-postmap-") as home:
            _write_main_cf(Path(home), values)
            done = self._done([self.postmap[0], "-c", home, "-q", "key", "static:value"])
        said = re.findall(r"fatal: (?:file \S+: )?(.+)", done.stderr if done is not None else "")
        return [f"{_place_of(text, configuration)}: {text}" for text in said]

    def _run(self, command: list[str], text: str = "") -> tuple[int, str]:
        done = self._done(command, text)
        if done is None:
            return -1, ""
        if done.returncode not in (0, 1) or done.stderr:
            self.problems += done.stderr.splitlines()
        # where it cannot open a table its exit code is that of a key which is not there
        return -1 if "fatal:" in done.stderr else done.returncode, done.stdout

    def _done(self, command: list[str], text: str = "") -> subprocess.CompletedProcess[str] | None:
        try:
            return subprocess.run(
                command, input=text, capture_output=True, timeout=_PATIENCE_S, check=False,
                encoding="utf-8", errors="replace", cwd=Path("/"),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            self.problems.append(f"{Path(command[0]).name}: {error}")
            return None


def _place_of(text: str, configuration: Configuration) -> Place:
    """Return where a parameter is set that a message of Postfix names."""
    door = configuration.door
    words = re.findall(r"\w+", text)
    name = next((word for word in words if configuration.parameter(word, door) is not None), "")
    return configuration.place(name, door)
