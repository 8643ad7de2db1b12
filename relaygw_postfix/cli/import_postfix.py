"""`relaygw import-postfix`: a relaygw.yaml that does what a Postfix does, and the proof.

Nothing of Postfix is changed. The table of sameness asks the Postfix of this host, if there is one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from relaygw.cli.frame import JSON_LINES, Command, CommandFailed, address_of
from relaygw.cli.text import as_json, labelled, print_lines
from relaygw.errors import SettingsError
from relaygw.mail.words import counted, fields
from relaygw.settings.secrets import check_private
from relaygw_postfix.lint import findings
from relaygw_postfix.maillog import read_maillog
from relaygw_postfix.main_cf import Configuration, PostfixUnreadable, read_configuration
from relaygw_postfix.maps import Postfix, Tables, look_up, postfix_here
from relaygw_postfix.mistakes import Finding, MendedResolver, mended
from relaygw_postfix.report import REFUSED, VERDICTS, Verdict
from relaygw_postfix.resolve import Resolver
from relaygw_postfix.rewriting import Rewriting
from relaygw_postfix.sameness import Comparison, Pair, Result, Row, learn, pairs_of
from relaygw_postfix.samples import ANYBODY, in_words
from relaygw_postfix.translation import Translation, translate
from relaygw_postfix.written import as_yaml, check_free, check_text, output_file, write_files

_MAX_ROWS = 20
_MAX_ALIKE = 3
_SOME = "someone@example.com"
_TEXTS = ("postfix", "relaygw", "why")  # of a row


class _Import:
    """One run: what Postfix does, a real one being asked, and what is imported of it."""

    def __init__(self, configuration: Configuration, postfix: Postfix | None, is_mended: bool):
        self.configuration = configuration
        self.postfix = postfix
        reader = postfix.entries if postfix is not None else lambda _: None
        self.tables = Tables(configuration, reader)
        look = postfix.look_up if postfix is not None else look_up
        self.as_it_is = Rewriting(Resolver(configuration, self.tables, look))
        if is_mended:
            better = mended(configuration)
            self.to_import = Rewriting(MendedResolver(better, Tables(better, reader)))
        else:
            self.to_import = Rewriting(Resolver(configuration, self.tables))


@click.command("import-postfix", cls=Command)
@click.argument("directory", type=click.Path(readable=False, path_type=Path))
@click.option(
    "--output", metavar="FILE", type=click.Path(readable=False), default="relaygw.yaml",
    help="FILE.yaml, or a directory, created if missing. Existing files are never overwritten.",
)  # fmt: skip
@click.option("--lint", is_flag=True, help="Only list mistakes; exit code 65 if there are any.")
@click.option("--mend", is_flag=True, help="Fix the mistakes that can be fixed while importing.")
@click.option("--dry-run", is_flag=True, help="Print the file instead of writing it.")
@click.option(
    "--relayhost", metavar="HOP", help="Read main.cf as if it had this relayhost: '[HOST]:PORT'."
)
@click.option("--sender", "senders", metavar="A", multiple=True, help="Also compare mail from A.")
@click.option(
    "--recipient", "recipients", metavar="B", multiple=True, help="Also compare mail to B."
)
@click.option(
    "--compare", "compared", metavar="A,B", multiple=True, help="Also compare mail from A to B."
)
@click.option(
    "--maillog", metavar="FILE", type=click.Path(readable=False, path_type=Path),
    help="Also compare all mail in this log.",
)  # fmt: skip
@click.option("--all", "wants_all", is_flag=True, help="Also show what is the same.")
@JSON_LINES
def import_postfix(
    directory: Path,
    output: str,
    lint: bool,
    mend: bool,
    dry_run: bool,
    relayhost: str | None,
    senders: tuple[str, ...],
    recipients: tuple[str, ...],
    compared: tuple[str, ...],
    maillog: Path | None,
    wants_all: bool,
    wants_json: bool,
) -> int:
    """Create a relaygw.yaml from the Postfix configuration in DIRECTORY, and compare the two.

    Reads main.cf, master.cf and the tables; writes ./relaygw.yaml, and
    passwords to files beside it. Postfix is not changed.
    """
    show = _Shown(wants_json, wants_all)
    overrides = {"relayhost": relayhost} if relayhost else {}
    try:
        with postfix_here() as postfix:
            configuration = read_configuration(directory.absolute(), overrides)
            if postfix is not None and configuration.is_of_this_host:
                configuration.start_failures += postfix.start_failures(configuration)
            run = _Import(configuration, postfix, mend)
            mistakes = findings(Rewriting(Resolver(configuration, run.tables)))
            if lint:
                show.findings(mistakes, with_remedies=True)
                return os.EX_OK if all(mistake.is_hint for mistake in mistakes) else os.EX_DATAERR
            pairs, problems = _asked_pairs(senders, recipients, compared, maillog)
            return _import(run, show, output, mistakes, pairs, problems, is_dry=dry_run)
    except PostfixUnreadable as error:
        raise CommandFailed(in_words(str(error))) from error


def _import(
    run: _Import,
    show: _Shown,
    output: str,
    mistakes: Sequence[Finding],
    asked: Sequence[Pair],
    not_compared: Sequence[str],
    *,
    is_dry: bool,
) -> int:
    file = output_file(output)
    directory = file.parent / "secrets"
    # first: they may be why there is no way to import
    show.warnings(run.configuration.start_failures)
    translation = translate(run.to_import, directory)
    if not is_dry:
        _check_free(file, directory, translation, Path(output).absolute())
    text = as_yaml(translation.values, _heading(run.configuration))
    try:
        settings = check_text(text).settings
    except SettingsError as error:
        raise CommandFailed(
            f"relaygw.yaml would be refused: {error}; correct that in a copy of the directory, and "
            "import the copy"
        ) from error
    classes = pairs_of(translation)
    pairs = [*dict.fromkeys((*classes, *asked))]
    real = run.as_it_is
    if run.postfix is not None:
        learn(run.postfix, real.resolver, pairs)
    rows = list(Comparison(real, settings, translation.secrets).rows(pairs))
    for line in run.postfix.problems if run.postfix is not None else ():
        if "fatal" in line or "error" in line:  # what else it has to say is told with its line
            translation.report.warn(
                f"not available from Postfix; the files are used instead: {line}"
            )
    for problem in not_compared:
        translation.report.warn(f"{problem}; it is not compared")
    show.verdicts(translation.report.verdicts(run.configuration))
    show.warnings(translation.report.warnings)
    show.findings(mistakes, with_remedies=False)
    show.rows(rows, _asked(run.postfix))
    if is_dry:
        show.text(text)
    else:
        with _writing(file):
            write_files(file, text, translation.secrets, directory)
        show.written(file, directory, len(translation.secrets))
    return os.EX_OK


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise CommandFailed(str(error), exit_code=os.EX_CANTCREAT) from error
    except OSError as error:
        raise CommandFailed(
            f"{error.filename or file}: cannot be written ({error.strerror}); nothing was written; "
            "use --output with a path where this user may write",
            exit_code=os.EX_CANTCREAT,
        ) from error


def _check_free(file: Path, directory: Path, translation: Translation, to_make: Path) -> None:
    with _writing(file):
        check_free([file, *(directory / name for name in translation.secrets)], to_make)
        if translation.secrets:
            check_private(directory)


def _asked(postfix: Postfix | None) -> str:
    if postfix is None:
        return "without asking a Postfix on this host"
    but = f", but not about {', '.join(postfix.not_asked)}" if postfix.not_asked else ""
    return f"checked with the Postfix of this host{but}"


def _heading(configuration: Configuration) -> str:
    return (
        f"Made by relaygw import-postfix of {configuration.directory}.\n"
        "relaygw check explains it; docs/coming-from-postfix.md describes the switch."
    )


def _asked_pairs(
    senders: tuple[str, ...],
    recipients: tuple[str, ...],
    compared: tuple[str, ...],
    maillog: Path | None,
) -> tuple[list[Pair], list[str]]:
    """Return the pairs to compare, and what is wrong with others."""
    problems: list[str] = []

    def addresses(texts: Iterable[str], option: str) -> Iterator[str]:
        for text in texts:
            try:
                is_null = text == "<>" and option != "--recipient"
                yield "" if is_null else address_of(text, option)
            except CommandFailed as error:
                problems.append(str(error))

    froms = [*addresses(senders, "--sender")] or [_SOME] * bool(recipients)
    tos = [*addresses(recipients, "--recipient")] or [_SOME] * bool(senders)
    pairs = [(sender, other) for sender in froms for other in tos]
    for pair in compared:
        first, comma, last = pair.rpartition(",")
        found = [*addresses([first.strip() if comma else _SOME, last.strip()], "--compare")]
        pairs += [(found[0], found[1])] if len(found) == 2 else []
    if maillog is not None:
        try:
            with maillog.open(encoding="utf-8", errors="replace") as lines:
                logged = list(read_maillog(lines))
        except OSError as error:
            raise CommandFailed(f"{maillog}: cannot be read ({error.strerror}); name a maillog, "
                                "such as /var/log/mail.log") from error  # fmt: skip
        pairs += [
            (entry.sender, entry.original or entry.recipient)
            for entry in logged
            if entry.sender is not None
        ]
    return pairs, problems


class _Shown:
    """What is printed."""

    def __init__(self, wants_json: bool, wants_all: bool) -> None:
        self._wants_json = wants_json
        self._wants_all = wants_all

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Show what becomes of the parameters."""
        if self._wants_json:
            for verdict in verdicts:
                self._object(
                    "parameter",
                    place=str(verdict.parameter.place),
                    name=verdict.parameter.name,
                    **fields(verdict, "verdict", "why"),
                )
            return
        counts = Counter(verdict.verdict for verdict in verdicts)
        print_lines([labelled("parameters", ", ".join(f"{counts[v]} {v}" for v in VERDICTS))])
        for verdict in verdicts:
            if self._wants_all or verdict.verdict == REFUSED:
                print_lines([labelled("", str(verdict))])

    def warnings(self, warnings: Sequence[str]) -> None:
        """Show where relaygw is not what Postfix was."""
        if self._wants_json:
            for warning in warnings:
                self._object("warning", text=warning)
            return
        alike: dict[str, list[str]] = {}
        for warning in warnings:  # but for the addresses, names and lines in it
            shape = warning if self._wants_all else re.sub(r"\S*[@:/.\d]\S*", "*", warning)
            alike.setdefault(shape, []).append(warning)
        label = "differs"
        for group in alike.values():
            shown = group if len(group) <= _MAX_ALIKE else group[:1]
            for warning in shown:
                more = len(group) - len(shown)
                text = (
                    f"{warning} (and {more} more like this; --all shows each)" if more else warning
                )
                click.echo(labelled(label, text))
                label = ""

    def findings(self, mistakes: Sequence[Finding], *, with_remedies: bool) -> None:
        """Show the mistakes."""
        if self._wants_json:
            for mistake in mistakes:
                self._object(
                    mistake.kind,
                    **fields(mistake, "place", "rule", "problem", "postfix", "relaygw"),
                )
            return
        if not mistakes and with_remedies:
            click.echo("no mistakes found")
        seen = ""
        for mistake in sorted(mistakes, key=lambda mistake: mistake.is_hint):
            click.echo(labelled("" if mistake.kind == seen else f"{mistake.kind}s", str(mistake)))
            seen = mistake.kind
            if with_remedies:
                click.echo(labelled("Postfix", mistake.postfix, indent=4))
                click.echo(labelled("relaygw", mistake.relaygw, indent=4))
        if mistakes and not with_remedies:
            click.echo(labelled("", "import-postfix --lint shows how to fix each, also in Postfix"))

    def rows(self, rows: Sequence[Row], asked: str) -> None:
        """Show the table of sameness."""
        if self._wants_json:
            for row in rows:
                texts = {name: in_words(text) for name, text in fields(row, *_TEXTS).items()}
                self._object("mail", **fields(row, "sender", "recipient", "result"), **texts)
            return
        counts = Counter(row.result for row in rows)
        words = ", ".join(f"{counts[result]} {result}" for result in Result if counts[result])
        click.echo(labelled("sameness", f"{counted(len(rows), 'mail')}: {words} ({asked})"))
        told = (Result.UNPROVEN, Result.OTHER)  # the others are said once, above
        shown = [row for row in rows if self._wants_all or row.result in told]
        alike = Counter(map(_reason, shown))
        if not self._wants_all:  # one reason is told once
            told_of: dict[tuple[Result, str], Row] = {}
            for row in sorted(shown, key=lambda row: in_words(row.sender) != ANYBODY):
                told_of.setdefault(_reason(row), row)
            shown = [row for row in shown if told_of[_reason(row)] is row]
        limit = len(shown) if self._wants_all else _MAX_ROWS
        for row in sorted(shown, key=_by_weight)[:limit]:
            more = 0 if self._wants_all else alike[_reason(row)] - 1
            print_lines(_row_lines(row, f" (and {more} more)" if more > 0 else ""))
        if len(shown) > limit:
            click.echo(labelled("", f"... {len(shown) - limit} more"))
        if len(rows) > counts[Result.SAME] and not self._wants_all:
            click.echo(labelled("", "--all shows each mail"))

    def text(self, text: str) -> None:
        """Show the file."""
        if self._wants_json:
            self._object("file", text=text)
        else:
            click.echo(f"\n{text}", nl=False)

    def written(self, file: Path, directory: Path, secrets: int) -> None:
        """Say what was written, and what comes next."""
        if self._wants_json:
            self._object("written", file=str(file), secrets=secrets)
            return
        beside = f", {counted(secrets, 'secret')} in {directory} (0600)" if secrets else ""
        click.echo(labelled("written", f"{file}{beside}"))
        click.echo(labelled("next", f"relaygw --config {file} check --online"))

    def _object(self, kind: str, **values: object) -> None:
        click.echo(as_json({"kind": kind, **values}))


def _reason(row: Row) -> tuple[Result, str]:
    """Return why the result is as it is, without the mail's own addresses and lines."""
    text = row.why
    for address in (row.sender, row.recipient):
        for part in filter(None, (address, address.rpartition("@")[2])):
            text = text.replace(part, "*")
    return row.result, re.sub(r":\d+:", ":", text)


def _by_weight(row: Row) -> int:
    return -list(Result).index(row.result)


def _row_lines(row: Row, more: str = "") -> Iterator[str]:
    who, whom = in_words(row.sender) or "<>", in_words(row.recipient)
    yield labelled("", f"{who} to {whom}: {row.result}{more}")
    for label, text in (("Postfix", row.postfix), ("relaygw", row.relaygw), ("why", row.why)):
        if text:
            yield labelled(label, in_words(text), indent=4)
