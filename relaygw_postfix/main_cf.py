"""main.cf and master.cf as Postfix reads them: logical lines, parameters, services, `$name`.

A problem of a file has its place, `main.cf:12`, and what to do. What cannot be read at all raises
PostfixUnreadable; what Postfix itself cannot use is a line of `problems`, and stops an import.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from relaygw.errors import RelaygwError
from relaygw.settings.tree import Place, read_own

HOMES = ("/etc/postfix", "/usr/local/etc/postfix")
"""Where a host's own Postfix is configured; any other directory may be a copy of another host's."""
_DATA = Path(__file__).with_name("parameters.yaml")
_MAX_BYTES = 4 * 2**20
_MAX_DEPTH = 100
_NAME = re.compile(r"[A-Za-z0-9_]+")
_REFERENCE = re.compile(r"\$(\w+)")
_PARAMETER = re.compile(r"([^\s=]+)\s*=\s*(.*)", re.S)
_COMPARISON = re.compile(r"\s*(<=level|>=level|<level|>level|==level|!=level|<=|>=|<|>|==|!=)\s*")
_NO_START = "Postfix does not start with it"
_NO_DOMAIN = "localdomain"  # of a host whose name has no dot
_BLANKS = " \t\r\n\v\f"


class PostfixUnreadable(RelaygwError):
    """A file of Postfix cannot be understood: the text has file, line and what to do."""


@cache
def known_facts() -> Mapping[str, Any]:
    """Return parameters.yaml, which explains itself."""
    return read_own(_DATA).values


@dataclass(frozen=True, slots=True)
class Parameter:
    """A line `name = value`, not expanded."""

    name: str
    value: str
    place: Place


@dataclass(frozen=True, slots=True)
class Service:
    """A line of master.cf with its `-o` overrides."""

    name: str
    kind: str  # inet, unix, fifo, pass, unix-dgram
    max_processes: str
    command: str
    place: Place
    overrides: Mapping[str, Parameter] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # all of them, as they stand


def read_text(path: Path) -> str:
    """Return the text of a file of Postfix. Raises PostfixUnreadable."""
    try:
        if not path.is_file():
            raise PostfixUnreadable(f"{path}: {_what_is_there(path)}")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); run this as root, or give a copy of it"
        raise PostfixUnreadable(f"{path}: {problem}") from error
    if len(content) > _MAX_BYTES:
        raise PostfixUnreadable(f"{path}: is larger than 4 MiB; is it a text file of Postfix?")
    bad = re.search(rb"[\0-\x08\x0e-\x1f]", content)
    if bad is not None:
        line = content.count(b"\n", 0, bad.start()) + 1
        raise PostfixUnreadable(
            f"{path}:{line}: holds a control character, so it is not a text file; restore it from "
            "a backup, or name the text file it was built from"
        )
    text = content.decode("utf-8", "surrogateescape")
    for number, words in enumerate(text.split("\n"), 1):
        if not words.isascii() and not words.lstrip().startswith("#") and _has_other_bytes(words):
            raise PostfixUnreadable(
                f"{path}:{number}: is not UTF-8; convert a copy of it: iconv -f latin1 -t utf-8"
            )
    return text.encode("utf-8", "replace").decode()


def _has_other_bytes(line: str) -> bool:
    return any("\udc80" <= sign <= "\udcff" for sign in line)


def _what_is_there(path: Path) -> str:
    if path.exists():
        return "is not a regular file; give the file itself"
    return "is not there; give the directory with main.cf, as /etc/postfix"


def logical_lines(text: str, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield each line with those that continue it (they begin with a blank), and its place."""
    current, at = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip(_BLANKS)
        if not bare or bare.startswith("#"):
            continue
        if line[0] in _BLANKS and at:
            current += line
            continue
        if at:
            yield Place(place.source, at, place.file), current.strip(_BLANKS)
        current, at = line, number
    if at:
        yield Place(place.source, at, place.file), current.strip(_BLANKS)


def split_list(text: str, separators: str = ", \t\r\n") -> list[str]:
    """Return the words of a list; what stands in {} is one word, as Postfix takes it."""
    words, word, depth = [], "", 0
    for sign in text:
        if sign in separators and depth == 0:
            words.append(word)
            word = ""
            continue
        depth += (sign == "{") - (sign == "}")
        word += sign
    return [piece for piece in (*words, word) if piece]


def unbraced(word: str) -> str:
    """Return a word without the {} around it."""
    return word[1:-1].strip() if word.startswith("{") and word.endswith("}") else word


@dataclass(slots=True)
class Configuration:
    """A directory of Postfix: parameters, services, and what is wrong with their lines."""

    directory: Path
    parameters: dict[str, Parameter] = field(default_factory=dict)
    repeated: list[Parameter] = field(default_factory=list)  # not in force: a later line is
    services: list[Service] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # lines that Postfix fails with
    start_failures: list[str] = field(default_factory=list)  # values Postfix does not start with
    is_of_this_host: bool = False  # what depends on its addresses and users can be looked up

    def parameter(self, name: str, service: Service | None = None) -> Parameter | None:
        """Return where a parameter is set: for a service, else in main.cf; None: nowhere."""
        found = service.overrides.get(name) if service is not None else None
        return found or self.parameters.get(name)

    def value(self, name: str, service: Service | None = None) -> str:
        """Return the value in force, expanded. Raises PostfixUnreadable."""
        return self._of(name, service, ())

    def values(self, name: str, service: Service | None = None) -> list[str]:
        """Return the words of a list. Raises PostfixUnreadable."""
        return split_list(self.value(name, service))

    def is_on(self, name: str, service: Service | None = None) -> bool:
        """Return whether a parameter is `yes`. Raises PostfixUnreadable."""
        return self.value(name, service).lower() == "yes"

    def place(self, name: str, service: Service | None = None) -> Place:
        """Return where a parameter is set, or the one that it is by default; else main.cf."""
        found = self.parameter(name, service)
        if found is not None:
            return found.place
        default = _REFERENCE.fullmatch(str(known_facts()["defaults"].get(name)))
        return self.place(default[1], service) if default is not None else Place("main.cf")

    def service(self, name: str, kind: str = "unix") -> Service | None:
        """Return a service of master.cf."""
        return next(
            (service for service in self.services if (service.name, service.kind) == (name, kind)),
            None,
        )

    @property
    def door(self) -> Service | None:
        """The service that takes mail of this host's networks; None: it is not known."""
        servers = [service for service in self.services if service.command == "smtpd"]
        usual = (("smtp", "inet"), ("smtpd", "pass"))  # the second is behind postscreen
        found = [
            server for name in usual for server in servers if (server.name, server.kind) == name
        ]
        return next(iter((*found, *(server for server in servers if server.kind == "inet"))), None)

    def expanded(self, text: str, place: Place, service: Service | None = None) -> str:
        """Return a text with its `$name` replaced. Raises PostfixUnreadable."""
        return _Expander(self, service, place).expand(text, ())

    def _of(self, name: str, service: Service | None, seen: tuple[str, ...]) -> str:
        found = self.parameter(name, service)
        if found is None:
            default = known_facts()["defaults"].get(name)
            if default is None or (default == "" and name == "mydomain"):
                return self._own_name(name, seen)
            found = Parameter(name, str(default), Place("main.cf"))
        return _Expander(self, service, found.place).expand(found.value, (*seen, name)).strip()

    def _own_name(self, name: str, seen: tuple[str, ...]) -> str:
        if name == "myhostname":  # as Postfix makes it: no resolver is asked
            host = socket.gethostname()
            if "." in host:
                return host
            is_set = self.parameter("mydomain") is not None
            return f"{host}.{self._of('mydomain', None, (*seen, name)) if is_set else _NO_DOMAIN}"
        if name != "mydomain":
            return ""
        if "mydomain" in seen:
            place = self.place("myhostname")
            raise PostfixUnreadable(f"{place}: $mydomain refers to itself through $myhostname")
        host = self._of("myhostname", None, (*seen, name))
        return host.partition(".")[2] or _NO_DOMAIN


class _Expander:
    """Postfix's own little language of values (mac_expand)."""

    def __init__(self, configuration: Configuration, service: Service | None, place: Place) -> None:
        self._configuration = configuration
        self._service = service
        self._place = place

    def expand(self, text: str, seen: tuple[str, ...]) -> str:
        if len(seen) > _MAX_DEPTH:
            raise self._broken(f"${seen[0]} is nested too deeply")
        done, at = "", 0
        while at < len(text):
            if text[at] != "$":
                done, at = done + text[at], at + 1
                continue
            value, at = self._reference(text, at + 1, seen)
            done += value
        return done

    def _reference(self, text: str, at: int, seen: tuple[str, ...]) -> tuple[str, int]:
        """Return the value of what follows a `$`, and where it ends."""
        if text.startswith("$", at):
            return "$", at + 1
        if at < len(text) and text[at] in "({":
            end = _closing(text, at)
            if end is None:
                raise self._broken(f"{text[at - 1 : at + 20]!r} is not closed")
            return self._braced(text[at + 1 : end], seen), end + 1
        match = _NAME.match(text, at)
        if match is None:
            raise self._broken("a $ is not followed by a name; write $$ for a literal $")
        return self._named(match[0], seen), match.end()

    def _named(self, name: str, seen: tuple[str, ...]) -> str:
        if name in seen:
            way = " -> ".join((*seen[seen.index(name) :], name))
            raise self._broken(f"${name} refers to itself: {way}")
        return self._configuration._of(name, self._service, seen)

    def _braced(self, text: str, seen: tuple[str, ...]) -> str:
        text = text.strip()
        if text.startswith("{"):
            return self._compared(text, seen)
        match = _NAME.match(text)
        if match is None:
            raise self._broken(f"{text[:20]!r} is not a name")
        rest = text[match.end() :].strip()
        value = self._named(match[0], seen)
        if not rest:
            return value
        if rest[0] not in "?:":
            raise self._broken(f"{rest[:10]!r} after {match[0]} is neither ? nor :")
        return self._chosen(bool(value), rest, seen)

    def _chosen(self, is_true: bool, rest: str, seen: tuple[str, ...]) -> str:
        """Return the value of `?yes`, `:no` or `?{yes}:{no}`."""
        sign, body = rest[0], rest[1:].strip()
        if not body.startswith("{"):
            return self.expand(body, seen) if is_true == (sign == "?") else ""
        end = _closing(body, 0)
        if end is None:
            raise self._broken(f"{body[:20]!r} is not closed")
        first, other = body[1:end].strip(), body[end + 1 :].strip().removeprefix(":").strip()
        if is_true == (sign == "?"):
            return self.expand(first, seen)
        return self.expand(unbraced(other), seen)

    def _compared(self, text: str, seen: tuple[str, ...]) -> str:
        """Return the value of `{a} == {b} ? {yes} : {no}`."""
        end = _closing(text, 0)
        sign = _COMPARISON.match(text, end + 1) if end is not None else None
        last = _closing(text, sign.end()) if sign is not None else None
        if end is None or sign is None or last is None:
            raise self._broken(f"{text[:30]!r} is not a comparison")
        value, other = (
            self.expand(part.strip(), seen) for part in (text[1:end], text[sign.end() + 1 : last])
        )
        is_true = _compare(value, sign[1], other)
        rest = text[last + 1 :].strip()
        return self._chosen(is_true, rest, seen) if rest else str(is_true or "")

    def _broken(self, problem: str) -> PostfixUnreadable:
        return PostfixUnreadable(f"{self._place}: {problem}; fix it; `postconf -n` shows it, too")


def _closing(text: str, at: int) -> int | None:
    """Return where the bracket that opens at `at` is closed."""
    if at >= len(text) or text[at] not in "({":
        return None
    opening, depth = text[at], 0
    closing = ")" if opening == "(" else "}"
    for position in range(at, len(text)):
        depth += (text[position] == opening) - (text[position] == closing)
        if depth == 0:
            return position
    return None


def _compare(value: str, sign: str, other: str) -> bool:
    pair: tuple[Any, Any] = (value, other)
    if sign.endswith("level"):
        pair = (_level(value), _level(other))
        sign = sign.removesuffix("level")
    elif value.isdecimal() and other.isdecimal():
        pair = int(value), int(other)
    left, right = pair
    results = {
        "==": left == right, "!=": left != right, "<": left < right, ">": left > right,
        "<=": left <= right, ">=": left >= right,
    }  # fmt: skip
    return bool(results[sign])


def _level(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


# --- reading ------------------------------------------------------------------------------


def read_configuration(
    directory: Path, overrides: Mapping[str, str] | None = None
) -> Configuration:
    """Read main.cf and master.cf of a directory. Raises PostfixUnreadable.

    `overrides` are laid over main.cf, as Postfix's `-o` does it.
    """
    found = Configuration(directory, is_of_this_host=str(directory.absolute()) in HOMES)
    path = directory / "main.cf"
    for place, line in logical_lines(read_text(path), Place("main.cf", file=path)):
        match = _PARAMETER.fullmatch(line)
        if match is None:
            found.problems.append(f"{place}: {_no_parameter(line)}; {_NO_START}")
            continue
        earlier = found.parameters.get(match[1])
        if earlier is not None:
            found.repeated.append(earlier)
        value = re.sub(r"[\r\n]+", "", match[2]).strip(_BLANKS)
        found.parameters[match[1]] = Parameter(match[1], value, place)
    for name, value in (overrides or {}).items():
        found.parameters[name] = Parameter(name, value, Place("command line"))
    master = directory / "master.cf"
    if master.exists():
        _read_services(found, master)
    return found


def _no_parameter(line: str) -> str:
    word = line.split()[0][:40]
    if line.startswith(("cat ", "EOF", "<<")) or ">>" in line:
        return "is a shell command, not a line of main.cf; remove it"
    return f"{word!r} is not followed by =; write NAME = VALUE, or begin the line with # or a space"


def _read_services(found: Configuration, path: Path) -> None:
    for place, line in logical_lines(read_text(path), Place("master.cf", file=path)):
        words = split_list(line, " \t\r\n")
        if len(words) < 8:
            found.problems.append(
                f"{place}: has {len(words)} of 8 fields: service type private unpriv chroot wakeup "
                f"maxproc command; remove the line, or complete it; {_NO_START}"
            )
            continue
        name, kind, *_, max_processes, command = words[:8]
        arguments = tuple(words[8:])
        overrides = dict(_overrides(arguments, place, found.problems))
        found.services.append(
            Service(name, kind, max_processes, command, place, overrides, arguments)
        )


def _overrides(
    arguments: tuple[str, ...], place: Place, problems: list[str]
) -> Iterator[tuple[str, Parameter]]:
    """Yield what `-o name=value` and `-o { name = value }` set."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-o"):
            continue
        text = word[2:] or next(words, "")
        match = _PARAMETER.fullmatch(unbraced(text))
        if match is None:
            problems.append(
                f"{place}: -o {text!r} is not NAME=VALUE; write it without spaces; Postfix does "
                "not start this service"
            )
            continue
        yield match[1], Parameter(match[1], match[2].strip(), place)
