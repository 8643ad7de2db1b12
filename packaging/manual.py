"""Manual pages: commands and options from the command line itself, the rest from its sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from relaygw import __version__
from relaygw.cli import main as main_command

ROOT = Path(__file__).resolve().parents[1]


def relaygw() -> str:
    """Return relaygw(1): every command with its options."""
    context = click.Context(main_command, info_name="relaygw", **main_command.context_settings)
    parts = [
        head("RELAYGW", 1, "relaygw", "a mail gateway between applications and e-mail providers"),
        section("SYNOPSIS", [".B relaygw", "[--config FILE] COMMAND [OPTION]..."]),
        section("DESCRIPTION", paragraphs(main_command.help or "")),
        section("COMMANDS", commands(main_command, context)),
        section(
            "FILES",
            [
                *row("/etc/relaygw/relaygw.yaml", "the configuration, see relaygw.yaml(5)"),
                *row("/etc/relaygw/credentials", "secrets that systemd hands over"),
                *row("/var/lib/relaygw", "the queue, unless it is in PostgreSQL"),
                *row("/var/spool/relaygw/maildrop", "where the sendmail command leaves mail"),
                *row("/usr/share/doc/relaygw", "the guides, and examples"),
            ],
        ),
        section("SEE ALSO", ["relaygw\\-sendmail(1), relaygw.yaml(5)"]),
    ]
    return "\n".join(parts) + "\n"


def sendmail() -> str:
    """Return relaygw-sendmail(1)."""
    lines = (ROOT / "docs/commands.md").read_text().split("## `relaygw install-sendmail`")[1]
    text = lines[lines.index("`sendmail` takes") :].split("\n## ")[0]
    parts = [
        head("RELAYGW-SENDMAIL", 1, "relaygw-sendmail", "sendmail, mailq, postqueue, postsuper"),
        section(
            "SYNOPSIS",
            [
                *(".B sendmail", "[-t] [-i] [-f SENDER] [-F NAME] [RECIPIENT]...", ".br"),
                *(".B mailq", ".br", ".B postqueue", "-f | -i ID | -j | -p | -s SITE", ".br"),
                *(".B postsuper", "[-d|-e|-h|-H|-r ID|ALL|-]... [QUEUE]"),
            ],
        ),
        section("DESCRIPTION", paragraphs(text.replace("`", ""))),
        section("SEE ALSO", ["relaygw(1)"]),
    ]
    return "\n".join(parts) + "\n"


def configuration() -> str:
    """Return relaygw.yaml(5): the commented example, which names every key."""
    example = (ROOT / "config/relaygw.yaml").read_text().splitlines()
    parts = [
        head("RELAYGW.YAML", 5, "relaygw.yaml", "the configuration of relaygw"),
        section("DESCRIPTION", [".nf", *map(escape, example), ".fi"]),
        section("SEE ALSO", ["relaygw(1), /usr/share/doc/relaygw/configuration.md"]),
    ]
    return "\n".join(parts) + "\n"


def head(title: str, number: int, name: str, purpose: str) -> str:
    """Return how a page begins."""
    return (
        f'.TH {title} {number} "" "relaygw {__version__}"\n.SH NAME\n{escape(name)} \\- {purpose}'
    )


def section(title: str, lines: list[str]) -> str:
    """Return a section of a page."""
    return "\n".join([f".SH {title}", *lines])


def commands(group: click.Group, context: click.Context) -> list[str]:
    """Return a subsection for each command, those of groups below them."""
    found: list[str] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            found += commands(command, inner)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        found += [f'.SS "{escape(inner.command_path)} {escape(usage)}"']
        found += [*paragraphs(command.help or ""), *options(command, inner)]
    return found


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a row for each option that is this command's own."""
    for one in command.params:
        record = one.get_help_record(context)
        if record is not None and one.name not in ("config", "debug"):
            yield from row(*record)


def row(name: str, text: str) -> list[str]:
    """Return a name and what it means."""
    return [".TP", f".B {escape(name)}", escape(" ".join(text.split()))]


def paragraphs(text: str) -> list[str]:
    """Return plain paragraphs."""
    blocks = [" ".join(block.split()) for block in text.replace("\b", "").split("\n\n")]
    return [line for block in blocks if block for line in (".PP", escape(block))]


def escape(text: str) -> str:
    """Return text without signs that mean something to troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
