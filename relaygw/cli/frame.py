"""What all commands share: the global options, kinds of values, exit codes, how errors are told.

An error is one line on stderr that says what to do, and an exit code of sysexits.h; a
traceback appears with --debug only. A reader that goes away (`relaygw queue list | head`)
ends a command quietly with 141, as the shell shows it for other tools. A stream that the caller
left closed is None to Python: what is printed would be lost without a word, and the next file
that is opened would be in its place.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from relaygw import __version__, errors, service_file, state_owner
from relaygw.errors import InvalidAddress, RelaygwError, StoreUnavailable
from relaygw.mail.address import check_address
from relaygw.mail.words import unstorable_sign

if TYPE_CHECKING:
    from relaygw.settings.load import LoadedSettings
    from relaygw.store.store import Store
from relaygw.cli.open_queue import open_queue
from relaygw.cli.stderr import PROGRAM, warn

BROKEN_PIPE = 128 + signal.SIGPIPE
INTERRUPTED = 128 + signal.SIGINT
_GC_THRESHOLD = 20_000  # hardly any garbage here is cyclic, and to load a command makes much
_NAMED = ("RELAYGW_CONFIG", "RELAYGW__QUEUE__URL")
"""Who sets one of these has said which gateway is meant."""

_STREAM_TROUBLES = {
    errno.EBADF: "stdin or stdout is closed; keep it open, or redirect it to /dev/null",
    **{
        code: f"the output cannot be written ({os.strerror(code)}); free some space, run it again"
        for code in (errno.ENOSPC, errno.EDQUOT)
    },
}
"""What to say of an error of the system that names no file."""

_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.SettingsUnreadable, os.EX_NOPERM),
    (errors.SettingsError, os.EX_CONFIG),
    (errors.SchemaMismatch, os.EX_CONFIG),
    (errors.QueueDamaged, os.EX_DATAERR),
    (StoreUnavailable, os.EX_UNAVAILABLE),
    (InvalidAddress, os.EX_DATAERR),
    (errors.IntakeFull, os.EX_TEMPFAIL),
    (OSError, os.EX_IOERR),
)


class CommandFailed(RelaygwError):
    """A command cannot do what it was asked; `exit_code` says which kind of failure it is."""

    def __init__(self, problem: str, *, exit_code: int = os.EX_DATAERR) -> None:
        super().__init__(problem)
        self.exit_code = exit_code


@dataclass(slots=True)
class Invocation:
    """The global options of one call, and what they open."""

    config: Path | None = None
    is_debug: bool = False
    _of_running: LoadedSettings | None = None

    def read(self) -> LoadedSettings:
        """Read the configuration, and stay who runs the command. Raises SettingsError."""
        from relaygw.settings.load import load_settings

        return load_settings(config=self.config, environ=os.environ)

    def load(self) -> LoadedSettings:
        """Read the configuration as who runs the command, and act as its owner from here on.

        Raises SettingsError, and StoreUnavailable: see `act_as_owner`.
        """
        loaded = self.read()
        act_as_owner(loaded)
        return loaded

    def load_running(self) -> LoadedSettings:
        """Read the configuration that is meant when somebody asks about the gateway.

        It is the one that is named, else that of the gateway that runs on this host; see `load`.
        Where its files have a mistake, these are the settings that the gateway runs with. Raises
        SettingsError, and StoreUnavailable when nobody can tell which.
        """
        if self._of_running is None:
            self._of_running = self._read_running()
        act_as_owner(self._of_running)
        return self._of_running

    def _read_running(self) -> LoadedSettings:
        from relaygw.cli.running_gateway import load_running, settings_in_force

        if self.config is None and not any(os.environ.get(name) for name in _NAMED):
            return load_running(self.read)
        try:
            return self.read()
        except errors.SettingsUnreadable:
            raise
        except errors.SettingsError as error:
            return settings_in_force(self.config, error)

    def wake_workers(self) -> None:
        """Let workers see a change now, not with their next look."""
        from relaygw import roles

        roles.wake_workers(self.load_running())

    def open_store(self, loaded: LoadedSettings | None = None) -> AbstractContextManager[Store]:
        """Open the queue of the gateway. Raises SchemaMismatch, StoreUnavailable, SettingsError."""
        return open_queue(loaded or self.load_running())


def act_as_owner(loaded: LoadedSettings) -> None:
    """Let a command that root has started act as the owner of the state directory.

    Where that is root, as a user to whom a file of the configuration belongs: what it names is run.
    Raises StoreUnavailable where that user cannot be told.
    """
    state_owner.become_owner_of(loaded.state_dir)
    for file in loaded.files if os.geteuid() == 0 else ():
        state_owner.become(file.stat())


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def address_of(text: str, option: str, check: Callable[[str], object] = check_address) -> str:
    """Return an address without angle brackets; raises CommandFailed for what is none."""
    bare = text.removeprefix("<").removesuffix(">")
    try:
        if not bare:
            raise InvalidAddress("it is empty")
        check(bare)
    except InvalidAddress as error:
        raise CommandFailed(
            f"{option} {text!r} is not an address: {error}; write LOCALPART@DOMAIN"
        ) from error
    return bare


def login_name() -> str:
    """Return who runs this command, for the audit trail; sudo's caller is named, too."""
    uid = state_owner.caller_uid()
    name = service_file.user_name(uid)
    caller = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {caller})" if uid == 0 and caller else name


def _take_config(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).config = Path(value)


def _take_debug(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Invocation).is_debug |= value


def _complete(params: list[click.Parameter]) -> None:
    """Add the options that stand anywhere in a command line; check all text but names of files."""
    params += [
        click.Option(
            ["--config"], metavar="FILE", type=click.Path(readable=False), expose_value=False,
            callback=_take_config, help="Configuration file to use instead of the default one.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_take_debug,
            help="Show a traceback with an error.",
        ),
    ]  # fmt: skip
    for param in params:
        if type(param.type) is click.types.StringParamType:
            param.type = TEXT


class Text(click.types.StringParamType):
    """Text as it can be stored; bytes that are no UTF-8 come from a shell as surrogates.

    `read` makes a value of it, and raises click.BadParameter for what is none.
    """

    def __init__(self, read: Callable[[str], Any] = str) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value that `read` makes of the text; see click."""
        text = super().convert(value, param, ctx)
        if unstorable_sign(text) is not None:
            self.fail(f"{text[:40]!r} is not UTF-8", param, ctx)
        return self._read(text)


TEXT = Text()
NUMBER_FROM_1 = click.IntRange(min=1, max=1_000_000_000)
"""Of what is counted or listed: more than there will be, and no trouble for a database."""
JSON_LINES = click.option("--json", "wants_json", is_flag=True, help="JSON, one object per line.")


def limit_option(default: int, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that says how many there are in a list."""
    words = f"List at most N {what}."
    return click.option(
        "--limit", metavar="N", type=NUMBER_FROM_1, default=default, show_default=True, help=words
    )


class Command(click.Command):
    """A command that takes the global options."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _complete(self.params)


class Group(click.Group):
    """A group of commands."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _complete(self.params)


class Root(Group):
    """The whole program: turns what a command raises or returns into an exit code.

    `texts` are the names of the commands, each with its first sentence. The module of a command,
    which has its name, is loaded when it is run. It is in `relaygw.cli`, or in that of a package
    beside the gateway, as `beside` says.
    """

    def __init__(
        self,
        *args: Any,
        texts: Mapping[str, str] | None = None,
        beside: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*args, **keywords)
        self._texts = texts or {}
        self._beside = beside or {}
        for name, text in self._texts.items():
            self.commands[name] = click.Command(name, help=text)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command, None for a name that is none's.

        One that cannot be loaded from a package beside the gateway says so when it is run.
        """
        if cmd_name not in self._texts:
            return super().get_command(ctx, cmd_name)
        gc.set_threshold(_GC_THRESHOLD)
        name = cmd_name.replace("-", "_")
        package = self._beside.get(cmd_name, "relaygw")
        try:
            found: click.Command = getattr(import_module(f"{package}.cli.{name}"), name)
        except ImportError as error:
            if cmd_name not in self._beside:
                raise
            return _without_package(self.commands[cmd_name], package, error)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the commands, and load none of them."""
        click.Group(commands=self.commands).format_commands(ctx, formatter)

    def main(  # type: ignore[override]  # click's overloads say what standalone_mode returns
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; a standalone run ends the process with an exit code."""
        _open_streams()
        try:
            code = super().main(args, prog_name or PROGRAM, standalone_mode=False, **extra)
        except click.ClickException as error:
            _tell_usage(error)
            code = os.EX_USAGE
        except click.Abort:
            code = INTERRUPTED
        except OSError as error:  # of a help that could not be written
            code = _tell_failed_stream(error)
        finally:
            state_owner.return_to_caller()
        if not standalone_mode:
            return code
        sys.exit(code or 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and tell what went wrong."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            is_debug = ctx.ensure_object(Invocation).is_debug
            if is_debug and not isinstance(error, BrokenPipeError):
                traceback.print_exc()
            return _tell_failed_stream(error) if isinstance(error, OSError) else _tell(error)


def _without_package(command: click.Command, package: str, error: ImportError) -> click.Command:
    """Return a command that takes all words and fails: its package is not there, or another."""

    def fail() -> None:
        raise CommandFailed(
            f"{command.name} needs the package {package.replace('_', '-')} of relaygw "
            f"{__version__}, which is not installed ({error}); run in the source tree of that "
            f"version: python3 -m pip --python {quote(sys.executable)} install ./{package}",
            exit_code=os.EX_UNAVAILABLE,
        ) from error

    words = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(
        command.name,
        callback=fail,
        help=command.help,
        add_help_option=False,
        context_settings=words,
    )


def _tell_failed_stream(error: OSError) -> int:
    # stdout leads nowhere from here on: Python writes the rest of it once more when it ends
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError):  # not a stream of the system
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if error.filename is None:
        error = OSError(_STREAM_TROUBLES.get(error.errno or 0, str(error)))
    return _tell(error)


def _tell(error: Exception) -> int:
    if isinstance(error, CommandFailed):
        warn(str(error))
        return error.exit_code
    code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), os.EX_SOFTWARE)
    if isinstance(error, ImportError) and state_owner.caller_uid() != os.geteuid():
        warn(
            f"{service_file.user_name(os.geteuid())}, as whom this runs, may not read the program "
            f"({error}); install it where all users may read, such as in /opt"
        )
        return os.EX_NOPERM
    if isinstance(error, (RelaygwError, OSError)):
        warn(str(error) or type(error).__name__)
    else:
        warn(f"internal error: {type(error).__name__}: {error}; --debug shows where")
    return code


def _tell_usage(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else PROGRAM
    place = path.removeprefix(PROGRAM).strip()
    problem = " ".join(error.format_message().split()).rstrip(".")
    warn(f"{place + ': ' if place else ''}{problem}; see: {path} --help")


# --- streams ------------------------------------------------------------------------------


def _open_streams() -> None:
    """Make stdin and stdout raise OSError (EBADF) where they are closed; stderr swallows."""
    # in their order, so that each gets its own number
    sys.stdin = sys.stdin or _stand_in(0, os.O_WRONLY, "r")
    sys.stdout = sys.stdout or _stand_in(1, os.O_RDONLY, "w")
    sys.stderr = sys.stderr or _stand_in(2, os.O_WRONLY, "w")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a letter that the terminal or the input's encoding lacks is a question mark
            stream.reconfigure(errors="replace")


def _stand_in(number: int, flags: int, mode: Literal["r", "w"]) -> TextIO:
    nowhere = os.open(os.devnull, flags)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    return open(number, mode, closefd=False)
