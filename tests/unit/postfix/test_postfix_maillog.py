"""A maillog that is followed while others rotate it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw_postfix import maillog
from relaygw_postfix.maillog import followed_lines


def followed(path: Path, steps: list[Callable[[], object]], patch: pytest.MonkeyPatch) -> list[str]:
    """Return what is read when a step is done each time that nothing is left to read."""
    patch.setattr(maillog, "_LOOK_S", 0.0)

    def is_over() -> bool:
        if not steps:
            return True
        steps.pop(0)()
        return False

    return list(followed_lines(path, is_over=is_over))


def add(path: Path, text: str) -> None:
    with path.open("a") as log:
        log.write(text)


def test_a_renamed_log_is_read_on_beside_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, old, older = (tmp_path / name for name in ("mail.log", "mail.log.1", "mail.log.2"))
    log.write_text("one\n")
    steps: list[Callable[[], object]] = [
        lambda: log.rename(old),
        lambda: log.write_text("three\n"),
        lambda: add(old, "two\n"),  # by a daemon that was not told yet
        lambda: (old.rename(older), log.rename(old), log.write_text("five\n")),
        lambda: add(old, "four\n"),
    ]
    assert followed(log, steps, monkeypatch) == ["one", "three", "two", "five", "four"]


def test_a_log_that_is_emptied_and_grows_to_its_size_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "mail.log"
    log.write_text("1 one\n")
    steps: list[Callable[[], object]] = [
        lambda: log.write_text("2 two\n"),
        lambda: log.write_text("3 three\nmore\n"),
        lambda: add(log, "half"),
        lambda: add(log, " a line\n"),
    ]
    read = followed(log, steps, monkeypatch)
    assert read == ["1 one", "2 two", "3 three", "more", "half a line"]
