"""`relaygw setup`: from an installed package to the first mail; each step is told before.

No file is changed that is there: a second run does what is left. The key comes from a file or from
standard input and goes into a file of its own; it is shown nowhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from relaygw.cli import setup_host as host
from relaygw.cli import setup_plan
from relaygw.cli.check import finding_line
from relaygw.cli.frame import Command, CommandFailed, Invocation, address_of, pass_invocation
from relaygw.cli.install_sendmail import Prefix
from relaygw.cli.mail_change import raise_if_alone
from relaygw.cli.running_gateway import reads
from relaygw.cli.setup_host import refuse_overlaid
from relaygw.cli.setup_secrets import (
    has_password,
    is_left_out,
    missing_files,
    read_secret,
    reference,
    secret_files,
)
from relaygw.cli.setup_steps import Steps, Wishes, later_steps
from relaygw.cli.stderr import warn
from relaygw.cli.text import print_lines
from relaygw.cli.users import hash_of
from relaygw.errors import SettingsError
from relaygw.mail.clock import clock_ms
from relaygw.policy.endings import ending_logins
from relaygw.service_file import running_gateways
from relaygw.settings.load import DEFAULT_FILE, load_settings
from relaygw.settings.model import Settings
from relaygw.settings.presets import presets
from relaygw.settings.problems import no_choice
from relaygw.settings.tree import Place, content_of, read_tree
from relaygw.settings.web import Web
from relaygw.upstream.diagnosis import Result, try_token

_PASSWORD_BYTES = 12
_KEY_OPTIONS = ("--password", "--key", "--secret", "--client-secret", "--api-key")
_KEY_PLACE = (
    "a key is read from --key-file FILE or standard input, since other users can see arguments"
)


class _SetupCommand(Command):
    """Shows no argument that is not an option's: it may be a key."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; see click."""
        try:
            left = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in _KEY_OPTIONS:
                raise
            problem = f"{error.option_name} is not an option"
            raise click.UsageError(f"{problem}; {_KEY_PLACE}", ctx) from None
        if left and not ctx.resilient_parsing:
            problem = "an argument (not shown) belongs to no option"
            raise click.UsageError(f"{problem}; {_KEY_PLACE}", ctx)
        return left


@click.command(cls=_SetupCommand, context_settings={"allow_extra_args": True})
@click.option(
    "--use",
    type=click.Choice(tuple(setup_plan.USES), case_sensitive=False),
    help="The purpose of this machine.",
)
@click.option("--preset", metavar="NAME", help="Mail service; see relaygw provider presets.")
@click.option("--host", metavar="HOST", help="Host of a service without a preset.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of that host, if not the default."
)
@click.option("--tls", metavar="POLICY", help="required, implicit, encrypt, opportunistic, none.")
@click.option("--region", metavar="NAME", help="Region of the service.")
@click.option("--variant", metavar="NAME", help="Variant of the service.")
@click.option("--username", metavar="NAME", help="User name at the service.")
@click.option(
    "--login",
    type=click.Choice(setup_plan.LOGINS, case_sensitive=False),
    help="How to log in, where both are possible.",
)
@click.option("--tenant", metavar="NAME", help="Microsoft's tenant: its id, or a domain of it.")
@click.option("--client-id", metavar="ID", help="Id of the application that gets access tokens.")
@click.option(
    "--certificate", metavar="FILE", help="PEM certificate of that application, for no secret."
)
@click.option(
    "--token-url", metavar="URL", help="Where access tokens are fetched, if not as usual."
)
@click.option(
    "--key-file", metavar="FILE",
    help="File with the key, password, client secret or private key; - is standard input.",
)  # fmt: skip
@click.option(
    "--refresh-token-file", metavar="FILE", help="File with the refresh token of a Google user."
)
@click.option("--sender", metavar="ADDRESS", help="Sender for mail without one.")
@click.option(
    "--allow", metavar="ENTRY", multiple=True, help="Address that staging may send to; repeatable."
)
@click.option(
    "--network",
    "networks",
    metavar="CIDR",
    multiple=True,
    help="Network that may send; repeatable.",
)
@click.option(
    "--keep-content",
    metavar="TIME",
    help="Keep sent mail this long, so that it can be sent again: 7d.",
)
@click.option("--to", "recipient", metavar="ADDRESS", help="Recipient of the test mail.")
@click.option(
    "--prefix", type=Prefix(path_type=Path, file_okay=False, readable=False), default=Path("/usr"),
    show_default=True, help="Prefix for sendmail; see relaygw install-sendmail.",
)  # fmt: skip
@click.option(
    "--no-sendmail", "is_smtp_only", is_flag=True, help="Do not install the sendmail command."
)
@click.option("--offline", "is_offline", is_flag=True, help="Do not contact the mail service.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show the steps.")
@pass_invocation
def setup(invocation: Invocation, /, **given: Any) -> int:
    """Write a configuration, start the gateway and send a first message.

    On a terminal it asks for what the options leave open. Existing files are not changed. The key
    is read from --key-file, standard input or the terminal.
    """
    wishes = Wishes(**{name: given.pop(name) for name in Wishes.__slots__})
    given |= {name: given[name] and given[name].lower() for name in ("preset", "region")}
    answers = setup_plan.Answers(**given)
    if wishes.recipient is not None:
        address_of(wishes.recipient, "--to")
    named = invocation.config or os.environ.get("RELAYGW_CONFIG") or DEFAULT_FILE
    invocation.config = config = Path(named).absolute()
    _refuse_wrong(answers)
    if _is_there(config):
        _compare(config, answers, wishes)
        click.echo(f"{config}: exists and is not changed")
    elif not _begin(config, answers, wishes):
        return os.EX_OK
    if wishes.is_dry_run:
        print_lines(later_steps(config, wishes))
        return os.EX_OK
    try:
        Steps(invocation, wishes).run()
    except (KeyboardInterrupt, click.Abort):
        warn(f"interrupted; {config} and its secrets stay: run relaygw setup again for the rest")
        raise
    return os.EX_OK


def _is_there(config: Path) -> bool:
    try:
        config.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _failed(config, error) from error
    return True


def _failed(path: Path, error: OSError) -> CommandFailed:
    """Return the problem of a file that cannot be read or made."""
    is_denied = isinstance(error, PermissionError)
    remedy = "run it as root, or name a file of your own" if is_denied else "name another file"
    return CommandFailed(
        f"{path}: {error.strerror}; {remedy} with --config",
        exit_code=os.EX_NOPERM if is_denied else os.EX_CANTCREAT,
    )


# --- answers


def _complete(answers: setup_plan.Answers) -> setup_plan.Answers:
    """Ask for what is missing; raises UsageError where nobody can be asked."""
    asked: set[str] = set()
    while left := [
        question for question in setup_plan.questions(answers) if question.name not in asked
    ]:
        if not sys.stdin.isatty():
            needed = [question for question in left if question.is_needed]
            if not needed:
                break
            missing = "; ".join(f"{question.option} ({question.text})" for question in needed)
            raise click.UsageError(f"there is no terminal to ask on; give {missing}")
        asked.add(left[0].name)
        said: dict[str, Any] = {left[0].name: _ask(left[0], answers)}
        answers = replace(answers, **said)
    return answers


class _Choice(click.Choice[str]):
    """Says what was meant, as for a mistake in a configuration."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        return f"{value} {no_choice(str(value), self.choices)}"


def _ask(question: setup_plan.Question, answers: setup_plan.Answers) -> Any:
    if question.name == "use":
        print_lines(f"  {name:<8} {words}" for name, words in setup_plan.USES.items())
    while True:
        text: str = click.prompt(
            question.text,
            type=_Choice(question.choices, case_sensitive=False) if question.choices else str,
            default=None if question.is_needed and question.choices else question.usual,
            show_default=bool(question.usual),
            err=True,
        ).strip()
        said = tuple(text.replace(",", " ").split()) if question.is_list else text or None
        changed: dict[str, Any] = {question.name: said}
        problem = setup_plan.problem_of(replace(answers, **changed), question.name)
        if question.is_needed and not said:
            problem = "this needs an answer; Ctrl-C ends it, and nothing is written"
        if not problem:
            return said
        click.echo(problem, err=True)


def _refuse_wrong(answers: setup_plan.Answers) -> None:
    """Raise UsageError for an option whose value can be none, whatever the rest is."""
    for field in fields(answers):
        if problem := setup_plan.problem_of(answers, field.name):
            raise click.UsageError(problem)
    if answers.tenant and answers.token_url:
        raise click.UsageError("--tenant and --token-url: the URL names the tenant; omit one")


def _compare(config: Path, answers: setup_plan.Answers, wishes: Wishes) -> None:
    """Raise CommandFailed when a configuration that is there is not what was asked for.

    A key that it lacks is written.
    """
    try:
        if config.is_fifo():
            raise CommandFailed(
                f"{config}: is a pipe, and is read more than once; name a regular file with "
                "--config",
                exit_code=os.EX_CANTCREAT,
            )
        found = read_tree(content_of(config), Place(config.name, file=config)).values
    except OSError as error:
        raise _failed(config, error) from error
    if answers.may_use_token and not answers.login and has_password(found, answers.provider):
        answers = replace(answers, login="password")  # as it was when there was no choice
    if answers.given:
        _refuse_another(config, found, answers)
    if isinstance(found, dict):
        names = found if answers.given else found.keys() & {"mode", "recipients"}
        refuse_overlaid(config, {name: found[name] for name in names})
    owner = host.Owner.of_service()
    for missing_file in missing_files(found, config, answers, wishes):
        click.echo(f"{_verb(missing_file)} {missing_file.path} ({owner.words(missing_file)})")
        if not wishes.is_dry_run:
            _write(missing_file, owner)


def _refuse_another(config: Path, found: object, answers: setup_plan.Answers) -> None:
    if any(question.is_needed for question in setup_plan.questions(answers)):
        raise CommandFailed(
            f"{config} exists, and setup changes no file; omit {', '.join(answers.given)}",
            exit_code=os.EX_CANTCREAT,
        )
    if differs := setup_plan.difference(_tree(answers, config), found):
        raise CommandFailed(
            f"{config} exists with other settings ({', '.join(differs)}); setup changes no file: "
            "edit it, or, to start over, stop the gateway and move it away",
            exit_code=os.EX_CANTCREAT,
        )


def _refuse_another_mode(config: Path, settings: Settings) -> None:
    """Raise CommandFailed when a gateway runs with a file of this name, in another mode."""
    for gateway in running_gateways(os.environ):
        if reads(gateway, config) and gateway.mode not in ("", settings.mode):
            stop = f"systemctl disable --now {' '.join(host.UNITS)}"
            raise CommandFailed(
                f"{config} is gone, and the gateway that runs with it (pid {gateway.pid}) is in "
                f"mode {gateway.mode}: setup does not make it {settings.mode}. Stop it first: "
                f"{stop if host.is_of_service(config) else f'kill {gateway.pid}'}; for a second "
                "gateway beside it put the file back, and name another with --config",
                exit_code=os.EX_CONFIG,
            )


def _tree(
    answers: setup_plan.Answers, config: Path, password_hash: str = setup_plan.HASH_TO_COME
) -> dict[str, Any]:
    return setup_plan.configuration(answers, directory=config.parent, password_hash=password_hash)


def _refuse_unused(answers: setup_plan.Answers, wishes: Wishes) -> None:
    """Raise UsageError for an option that would have no effect."""
    options = {secret.option for secret in answers.secrets}
    if wishes.key_file is not None and "--key-file" not in options:
        raise click.UsageError(
            "--key-file: the service has no login; give --username, or omit --key-file"
        )
    unused = answers.unused
    if wishes.refresh_token_file is not None and "--refresh-token-file" not in options:
        unused.append("--refresh-token-file")
    if unused:
        raise click.UsageError(
            f"{', '.join(unused)}: not for this service and login; see --login, or omit it"
        )


def _try_token(
    settings: Settings,
    answers: setup_plan.Answers,
    texts: Mapping[setup_plan.Secret, str | None],
) -> None:
    """Fetch an access token with secrets that are written nowhere yet; raises CommandFailed."""
    provider = settings.providers[answers.provider]
    assert provider.oauth is not None
    given: dict[str, Any] = {
        secret.keys[-1]: reference(secret, "plain", text) for secret, text in texts.items() if text
    }
    given |= {"certificate": answers.certificate}
    oauth = provider.oauth.model_copy(update=given)
    finding = asyncio.run(try_token(provider.model_copy(update={"oauth": oauth})))
    click.echo(_by_options(finding_line(answers.provider, finding), answers))
    if finding.result is not Result.OK:
        raise CommandFailed(
            "none of these files was written: the line above says what to correct; then run this "
            "again, or with --offline to write them untried",
            exit_code=os.EX_UNAVAILABLE,
        )


def _by_options(text: str, answers: setup_plan.Answers) -> str:
    """Return a text with options in place of the keys of a file that is not written."""
    options = {secret.keys: secret.option for secret in answers.secrets}
    options |= {("oauth", name): setup_plan.option_of(name) for name in ("client_id", "token_url")}
    if answers.tenant:
        options["oauth", "token_url"] = "--tenant"
    for keys, option in options.items():
        text = text.replace(".".join(keys), option)
    return text


# --- files


def _begin(config: Path, answers: setup_plan.Answers, wishes: Wishes) -> bool:
    """Write the configuration and its key, after asking; False: it was not wanted."""
    if answers.preset not in (None, setup_plan.OTHER) and answers.known is None:
        problem = no_choice(answers.preset, presets())
        raise click.UsageError(f"preset {answers.preset} {problem}; see: relaygw provider presets")
    answers = _complete(answers)
    shown = setup_plan.as_yaml(_tree(answers, config))
    settings = _validate(shown, config)
    refuse_overlaid(config, _tree(answers, config))
    _refuse_another_mode(config, settings)
    _refuse_unused(answers, wishes)
    texts = {
        secret: None
        if is_left_out(secret, answers, wishes)
        else read_secret(secret, answers, wishes)
        for secret in answers.secrets
    }
    owner = host.Owner.of_service()
    files = list(_files(answers, config, shown, texts))
    click.echo(f"{config}:")
    print_lines(f"  {line}" for line in shown.splitlines()[1:])
    print_lines(f"note: {' '.join(note.split())}" for note in answers.notes)
    print_lines(
        f"note: {ending_login.words(clock_ms())}; {ending_login.remedy}"
        for ending_login in ending_logins(settings)
    )
    print_lines(f"{_verb(file)} {file.path} ({owner.words(file)})" for file in files)
    if wishes.is_dry_run:
        return True
    if not wishes.is_sure:
        print_lines(later_steps(config, wishes))
        if not _agrees("Go on?"):
            click.echo("nothing was changed")
            return False
    if answers.uses_token and not wishes.is_offline:
        _try_token(settings, answers, texts)
    password = secrets.token_urlsafe(_PASSWORD_BYTES) if "web" in _tree(answers, config) else ""
    if password:
        made = setup_plan.as_yaml(_tree(answers, config, hash_of(password.encode())))
        files = [replace(file, text=made) if file.path == config else file for file in files]
    for file in files:
        _write(file, owner)
    if password:
        click.echo(
            f"web pages: http://{Web().bind}, user admin, password {password} (shown this once)"
        )
    return True


def _files(
    answers: setup_plan.Answers,
    config: Path,
    text: str,
    texts: Mapping[setup_plan.Secret, str | None],
) -> Iterator[setup_plan.NewFile]:
    """Yield what has to be made, the configuration last: with it the gateway may start."""
    if not config.parent.exists():
        yield setup_plan.NewFile(path=config.parent)
    kept: dict[Path, setup_plan.NewFile] = {}
    for secret, given in texts.items():
        file = setup_plan.secret_file(answers, secret, config.parent)
        kept |= {secret_file.path: secret_file for secret_file in secret_files(secret, file, given)}
    yield from kept.values()
    yield setup_plan.NewFile(path=config, text=text)


def _verb(file: setup_plan.NewFile) -> str:
    return "make" if file.text is None else "write"


def _write(file: setup_plan.NewFile, owner: host.Owner) -> None:
    try:
        host.write(file, owner)
    except OSError as error:
        raise _failed(file.path, error) from error


def _validate(text: str, config: Path) -> Settings:
    """Return the settings of a configuration; raises CommandFailed for a wrong answer."""
    with tempfile.TemporaryDirectory() as directory:
        trial = Path(directory) / config.name
        trial.write_text(text.replace(setup_plan.HASH_TO_COME, hash_of(b"any")), encoding="utf-8")
        try:
            environ = {"HOME": "/", "XDG_STATE_HOME": directory}
            return load_settings(config=trial, environ=environ).settings
        except SettingsError as error:
            raise CommandFailed(str(error), exit_code=os.EX_USAGE) from error


def _agrees(question: str) -> bool:
    try:
        return click.confirm(question, default=True, err=True)
    except (click.Abort, OSError):
        raise_if_alone("give --yes or --dry-run")
        raise
