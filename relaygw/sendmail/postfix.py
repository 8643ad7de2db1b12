"""postqueue and postsuper: which commands of relaygw do what their words ask for."""

from __future__ import annotations

from relaygw.sendmail.arguments import EX_USAGE, Failure

POSTQUEUE = b"postqueue"
POSTSUPER = b"postsuper"
_VERBS = {"d": "delete", "e": "expire", "f": "expire", "h": "hold", "H": "release", "r": "retry"}
_NOTHING_TO_DO = "psSv"  # what Postfix mends in its own directories, and its -v
_STATES = {"active": "active", "deferred": "deferred", "hold": "held", "incoming": "incoming"}
_USAGE = {
    POSTQUEUE: "use -p, -j, -f, -i ID or -s SITE",
    POSTSUPER: "use -d, -e, -f, -h, -H or -r with ID, ALL or -, then names of queues",
}


def is_listing(program: bytes, words: list[str]) -> bool:
    """True for `postqueue -p`, which is mailq."""
    return program == POSTQUEUE and "p" in dict(_options(program, words)[0])


def gateway_words(program: bytes, words: list[str]) -> list[list[str]]:
    """Return the words of each call of relaygw, in order; raises Failure."""
    options, rest = _options(program, words)
    if program == POSTQUEUE:
        return [_of_postqueue(letter, value, rest) for letter, value in options[:1]]
    states = [_state(name) for name in rest]
    return [
        _of_postsuper(letter, value, states)
        for letter, value in options
        if letter not in _NOTHING_TO_DO
    ]


def _options(program: bytes, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    takes = "is" if program == POSTQUEUE else "defhHr"
    alone = "fjpv" if program == POSTQUEUE else _NOTHING_TO_DO
    options: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0][:1] == "-" and rest[0] != "-":
        letters = rest.pop(0)[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in takes:
                if not letters and not rest:
                    raise Failure(EX_USAGE, f"option -{letter} needs a value")
                options.append((letter, letters or rest.pop(0)))
                break
            if letter not in alone:
                raise Failure(EX_USAGE, f"-{letter} is not supported; {_USAGE[program]}")
            if letter != "v":
                options.append((letter, ""))
    if not options:
        raise Failure(EX_USAGE, _USAGE[program])
    return options, rest


def _of_postqueue(letter: str, value: str, rest: list[str]) -> list[str]:
    if rest:
        raise Failure(EX_USAGE, _USAGE[POSTQUEUE])
    return {
        "p": ["queue", "list", "--mailq"],
        "j": ["queue", "list", "--postfix-json"],
        "f": ["queue", "flush"],
        "i": ["queue", "flush", value],
        "s": ["queue", "flush", "--recipient", f"@{value}"],
    }[letter]


def _state(name: str) -> str:
    if name not in _STATES:
        raise Failure(EX_USAGE, f"no queue of the name {name!r}; there are {', '.join(_STATES)}")
    return _STATES[name]


def _of_postsuper(letter: str, value: str, states: list[str]) -> list[str]:
    chosen = [word for state in states for word in ("--state", state)]
    whom = [value] if value != "ALL" else [] if chosen else ["--all"]
    return ["queue", _VERBS[letter], *whom, *chosen, "--yes"]
