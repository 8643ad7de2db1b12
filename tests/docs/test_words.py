"""What people read is plain English: none of the idioms below stands in a text that is shown."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = {
    "a goodbye": "signing off",
    "a moment's trouble": "a temporary problem",
    "all that waits": "waiting mail",
    "all the same": "anyway",
    "alert told": "alert sent",
    "an object a": "one object per",
    "anew": "again",
    "are taken out": "are removed",
    "as a page says": "see the page",
    "as the line says": "see the line",
    "as the message says": "see the message itself",
    "as the page says": "see the page",
    "asks nothing": "does not ask for confirmation",
    "be hurried": "be retried early",
    "be taken back": "be undone",
    "behind it stands": "after it comes",
    "each 10 s": "every 10 s",
    "each 5 s": "every 5 s",
    "each second": "every second",
    "exclude each other": "cannot be used together",
    "gave no answer": "did not answer",
    "go together": "are used together",
    "goes round in a circle": "is in a loop",
    "goes with": "needs",
    "hands on": "passes on, or: relays",
    "has no room": "is out of space",
    "in a circle": "in a loop",
    "in one go": "at once",
    "is free again": "is available again",
    "is hurried": "is retried early",
    "is looked at again": "is checked again",
    "is meant to its end": "includes its end",
    "is no address": "is not an address",
    "is no command": "is not a command",
    "is no copy": "is not a copy",
    "is no date": "is not a date",
    "is no directory": "is not a directory",
    "is no domain": "is not a domain",
    "is no entry": "is not an entry",
    "is no host": "is not a host",
    "is no key": "is not a key",
    "is no list": "is not a list",
    "is no mail": "is not mail",
    "is no name": "is not a name",
    "is no number": "is not a number",
    "is no object": "is not an object",
    "is no regular file": "is not a regular file",
    "is no size": "is not a size",
    "is no text": "is not text",
    "is no time": "is not a time",
    "is no url": "is not a URL",
    "is no user": "is not a user",
    "is none of": "is not one of",
    "is nothing to be done here": "needs no action here",
    "is of no use": "has no effect",
    "is put back": "is restored",
    "is said in the log": "is logged",
    "is there already": "exists already",
    "is to be hammered": "is hammered",
    "is told again": "is sent again",
    "leave one out": "remove one",
    "left where it is": "left in place",
    "lets go": "releases",
    "lies beside": "is beside",
    "look again": "check it and try again",
    "look later": "check later",
    "looked at again": "checked again",
    "looser than": "less strict than",
    "make room": "free some space",
    "may be repeated": "repeatable",
    "mend it": "fix it",
    "nobody is told": "no channel is notified",
    "nobody knows whether": "it is not known whether",
    "nothing is to be done": "no action is needed",
    "of an own": "of its own",
    "of now": "current, or: in force now",
    "one object a line": "JSON, one object per line",
    "open alone": "open in a tab of its own",
    "out of reach": "unreachable",
    "passes over": "ignores",
    "puts off": "defers",
    "so many messages": "the number of messages",
    "stands behind": "comes after, or: follows",
    "stands beside": "is set together with",
    "stands in the way": "is the obstacle",
    "stands still": "hangs",
    "tell all about": "show all about",
    "tells all about": "shows all about",
    "tells nobody": "names no channel",
    "the last one holds": "the last one applies",
    "the newest first": "newest first",
    "the oldest first": "oldest first",
    "tls at once": "implicit TLS",
    "tried again by itself": "retried automatically",
    "turns it round": "reverses it",
    "what differs in many alike": "what differs between them",
    "what is left of": "the remains of",
    "who gets it": "the recipient",
    "whoever buried": "whatever replaced",
    "without a goodbye": "without signing off",
}
"""What was written once, in lower case, and what says it better."""

_BROKEN = re.compile(r"""["'] *\n *[fr]?["']""")
_PAGES = (
    "CONTRIBUTING.md",
    "SECURITY.md",
    "README.md",
    "docs/**/*.md",
    "config/*.yaml",
    "config/prometheus/rules.yaml",
    "relaygw/**/*.yaml",
    "relaygw_postfix/**/*.yaml",
    "relaygw/web/templates/*.html",
)
_MODULES = (
    "relaygw/**/*.py",
    "relaygw_postfix/**/*.py",
    "tests/docs/troubles*.py",
    "tests/docs/render_*.py",
)


def _odd(text: str) -> Iterator[tuple[str, int]]:
    """Yield the phrases in a text, with their places; `there is no time` is plain English."""
    plain = text.lower().replace("\n", " ")
    for phrase in WORDS:
        if phrase in plain:
            for found in re.finditer(rf"(?<!there )\b{re.escape(phrase)}\b", plain):
                yield phrase, found.start()


def _shown(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module with their lines; of docstrings those of commands, as help."""
    unseen: set[ast.AST] = set()
    for node in ast.walk(module):
        decorators = getattr(node, "decorator_list", [])
        if any(re.search("command|group", ast.unparse(one)) for one in decorators):
            continue
        body = getattr(node, "body", [])
        for one in body if isinstance(body, list) else []:
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
                unseen.add(one.value)
        if isinstance(node, ast.JoinedStr):
            unseen.update(node.values)
            parts = (one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in unseen:
            yield node.lineno, node.value


def _in_module(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines and phrases; most modules have none at all and are not even parsed."""
    joined = re.sub(r"\s+", " ", _BROKEN.sub("", text))
    if next(_odd(joined), None) is None:
        return
    for line, shown in _shown(ast.parse(text)):
        for phrase, _ in _odd(re.sub(r"\s+", " ", shown)):
            yield line, phrase


def _in_page(text: str) -> Iterator[tuple[int, str]]:
    lines = "\n".join(one.strip() for one in text.split("\n"))
    for phrase, at in _odd(lines):
        yield lines.count("\n", 0, at) + 1, phrase


def test_no_odd_idiom_is_shown() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {WORDS[phrase]!r}"
        for patterns, look in ((_PAGES, _in_page), (_MODULES, _in_module))
        for pattern in patterns
        for path in sorted(ROOT.glob(pattern))
        for line, phrase in look(path.read_text())
    ]
    assert not found, "\n".join(found)


def test_what_is_seen_and_what_is_not() -> None:
    texts = '"""Look again."""\nX = f"a {1}; "  "look " "again"\n# look again\n@x.command()\n'
    texts += 'def f():\n    """Make\n    room."""\n'
    assert list(_in_module(texts)) == [(2, "look again"), (6, "make room")]
    assert list(_in_page("a\nplease look\n  again\n")) == [(2, "look again")]
