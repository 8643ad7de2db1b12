"""The Log section: how the mail log reads, where it goes, what it does not show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from relaygw.settings.section import Section

_FILE = "/var/log/relaygw/mail.log"


def _target(value: str) -> str:
    if value in ("stderr", "syslog"):
        return value
    kind, colon, path = value.partition(":")
    if kind == "file" and colon:
        return f"file:{_path(path)}"
    raise ValueError(f"is not a target; write stderr, syslog or file:{_FILE}")


def _path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError(f"has no absolute path of a file; write e.g. {_FILE}")
    return path


def _tag(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,31}", name):
        return name
    raise ValueError("is not 1-32 letters, digits or any of . _ / -; write e.g. postfix")


class Log(Section):
    """What is logged and how."""

    format: Literal["postfix", "json"] = "postfix"
    target: Annotated[str, AfterValidator(_target)] = "stderr"
    subject: bool = True  # subject and source behind what Postfix writes
    redact: tuple[Literal["subject", "local_part", "addresses"], ...] = ()  # see observe.redaction
    syslog_name: Annotated[str, AfterValidator(_tag)] = "relaygw"  # in front of the daemon's name
    syslog_socket: Annotated[str, AfterValidator(_path)] = Field(
        default="/dev/log", examples=["/dev/log"]
    )

    @property
    def file(self) -> Path | None:
        """The file that the log goes to, if it does."""
        kind, _, path = self.target.partition(":")
        return Path(path) if kind == "file" else None
