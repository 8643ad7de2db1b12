"""`relaygw install-sendmail`: the drop-in sendmail, mailq and newaliases.

One launcher, links to it, the maildrop. The launcher runs the interpreter without site-packages:
PHP starts one for each mail.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import click

from relaygw import state_owner
from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation
from relaygw.cli.text import print_lines
from relaygw.mail.drop import DIRECTORY
from relaygw.mail.words import counted
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.service_file import user_name
from relaygw.settings.model import Settings

LINKS = ("sbin/sendmail", "lib/sendmail", "bin/mailq", "bin/newaliases")
_LAUNCHER = "bin/relaygw-sendmail"
_MARK = "# installed by relaygw install-sendmail"
_PREFIXES = ("/usr", "/usr/local")
_UNCHECKED = b"\x01\0\0\0"
_CALL = re.compile(rf"^{re.escape(_MARK)}$.*^main(\(.*\))$", re.MULTILINE | re.DOTALL)
_ASIDE = ".before-relaygw"


class Prefix(click.Path):
    """A directory that is named: an empty name is that of a variable that is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the directory; see click."""
        if value == "":
            self.fail("is empty; name a directory", param, ctx)
        return super().convert(value, param, ctx)


@click.command("install-sendmail", cls=Command)
@click.option(
    "--prefix", type=Prefix(path_type=Path, file_okay=False, readable=False), default=Path("/usr"),
    show_default=True,
    help="Directory for sbin/sendmail, lib/sendmail, bin/mailq and bin/newaliases.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Move another mailer's programs out of the way.")
@click.option(
    "--uninstall", is_flag=True, help="Remove them, and restore what was moved out of the way."
)
@pass_invocation
def install_sendmail(invocation: Invocation, *, prefix: Path, force: bool, uninstall: bool) -> None:
    """Install sendmail, mailq and newaliases, and create the maildrop.

    Programs of another mailer are left alone unless --force is given. Exit code 77 when other
    users, such as PHP's, cannot use what is installed; each line names the remedy.
    """
    programs = Programs(prefix.absolute())
    try:
        if uninstall:
            print_lines(programs.remove())
            return
        loaded = invocation.read()
        path, group = loaded.settings.maildrop.path, loaded.settings.maildrop.group
        print_lines(
            programs.install(maildrop=path, group=group, state_dir=loaded.state_dir, force=force)
        )
        doubts = list(programs.doubts(path, group))
    except PermissionError as error:
        raise CommandFailed(
            f"{error.filename}: {error.strerror}; run it as root, or use --prefix with a "
            "directory of your own",
            exit_code=os.EX_NOPERM,
        ) from error
    click.echo("For PHP, in php.ini of FPM and of the command line (cron):")
    print_lines(php_lines(prefix))
    if doubts:
        raise CommandFailed("\n".join(doubts), exit_code=os.EX_NOPERM)


def php_lines(prefix: Path) -> Iterator[str]:
    """Yield the lines of php.ini: a command of the shell, in quotes of PHP; the scripts' names."""
    command = f"{shlex.quote(str(prefix.absolute() / LINKS[0]))} -t -i"
    command = command.replace("\\", "\\\\").replace('"', '\\"')
    yield f'  sendmail_path = "{command}"'
    yield "  mail.add_x_header = On  ; each mail then names the script that sent it"


def maildrop_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning where the command that is installed leaves mail where nobody looks."""
    for launcher, maildrop in _installed().items():
        if maildrop != settings.maildrop.path:
            yield (
                f"{launcher} leaves mail in {maildrop}, and maildrop.path is "
                f"{settings.maildrop.path or 'off'}: no gateway with this configuration reads it; "
                f"run relaygw install-sendmail --prefix {launcher.parents[1]}, or set "
                "maildrop.path"
            )


def closed_maildrop_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning where the command that is installed cannot leave mail for other users."""
    path = settings.maildrop.path
    if path is not None and path in _installed().values():
        with suppress(OSError):  # it is not there, or this user may not look
            yield from _closed_maildrop(path, settings.maildrop.group)


def _closed_maildrop(maildrop: str, group: str | None) -> Iterator[str]:
    path = Path(maildrop).resolve()
    if closed := _closed(path.parent if group else path):
        yield (
            f"users other than {_owner(closed[0])} cannot write to {path}: {closed[0]} has "
            f"mode {_mode(closed[0])}; {_opening(closed)}, or set maildrop.path to another "
            "place"
        )


def _installed() -> dict[Path, str]:
    """Return the maildrop of each sendmail command that is installed."""
    launchers = {Path(directory, LINKS[0]).resolve() for directory in _PREFIXES}
    ours = sorted(path for path in launchers if path.name == Path(_LAUNCHER).name)
    return {path: call[1] for path in ours if (call := _call_in(path)) is not None}


def _call_in(launcher: Path) -> tuple[str, str] | None:
    """Return gateway and maildrop of an installed command, None for what is none of ours."""
    try:
        found = _CALL.search(launcher.read_text(errors="replace"))
        gateway, maildrop = ast.literal_eval(found[1]) if found else (None, None)
    except (OSError, ValueError, SyntaxError, TypeError):
        return None
    return (gateway, maildrop) if isinstance(gateway, str) and isinstance(maildrop, str) else None


def _is_compiled(package: Path) -> bool:
    """Return whether a package manager compiled a package for ever: PEP 552, unchecked hashes."""
    compiled = Path(cache_from_source(str(package / "__init__.py")))
    try:
        return compiled.read_bytes()[4:8] == _UNCHECKED
    except OSError:
        return False


class Programs:
    """The programs below one prefix."""

    def __init__(self, prefix: Path) -> None:
        self._launcher = prefix / _LAUNCHER
        self._links = [prefix / name for name in LINKS]

    def install(
        self, *, maildrop: str | None, group: str | None, state_dir: Path, force: bool
    ) -> Iterator[str]:
        """Put everything in place; yields what was done. Raises CommandFailed before it."""
        foreign = self.foreign()
        if self._launcher.exists() and not self._is_ours(self._launcher):
            problem = f"{self._launcher} exists and is not relaygw's; remove it first"
            raise CommandFailed(problem, exit_code=os.EX_CANTCREAT)
        if foreign and not force:
            raise CommandFailed(
                f"{', '.join(map(str, foreign))}: another mailer's; remove its package, or give "
                f"--force to move them aside (to NAME{_ASIDE}; --uninstall restores them)",
                exit_code=os.EX_CANTCREAT,
            )
        for path in foreign:
            path.rename(_aside(path))
            yield f"{path}: moved aside to {_aside(path)}"
        self._write_launcher(maildrop or DIRECTORY)
        yield f"{self._launcher}: written"
        for path in self._links:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():
                path.symlink_to(self._launcher)
            yield f"{path} -> {self._launcher}"
        if maildrop is not None:
            from relaygw.inbound.drop_directory import DropDirectory, MaildropUnusable

            path = Path(maildrop)
            state_owner.owner_of(path)  # who could put another directory there is refused
            owner = state_owner.owner_of(state_dir).st_uid  # whom the gateway's state belongs to
            try:
                with state_owner.as_owner_of(path.parent):
                    DropDirectory(path, group, owner=owner if state_dir.exists() else None).close()
            except MaildropUnusable as error:
                raise CommandFailed(str(error), exit_code=os.EX_CANTCREAT) from error
            yield f"{path}: mail waits here until the gateway picks it up"

    def foreign(self) -> list[Path]:
        """Return the programs of another mailer that are in the way."""
        return [path for path in self._links if not self._is_free(path)]

    def are_there(self) -> bool:
        """True when all of them are in place."""
        is_ours = self._launcher.exists() and self._is_ours(self._launcher)
        return is_ours and all(path.is_symlink() for path in self._links) and not self.foreign()

    def doubts(self, maildrop: str | None, group: str | None) -> Iterator[str]:
        """Yield what keeps other users, such as PHP's, from using what is in place.

        Looks at modes only: a directory that others may not pass, a file that they may not read.
        Each line ends with a command that mends it.
        """
        reads = {
            "the interpreter": _interpreter(),
            "its library": Path(os.__file__).resolve(),
            "the package relaygw": Path(__file__).parents[1].resolve() / "sendmail/__init__.py",
            "the command": self._launcher.resolve(),
        }
        for what, path in reads.items():
            if closed := _closed(path):
                yield (
                    f"users other than {_owner(closed[0])} cannot run sendmail: {what}, {path}, "
                    f"is below {closed[0]}, which has mode {_mode(closed[0])}; install relaygw "
                    f"where all users may read, e.g. in /opt, or run: {_opening(closed)}"
                )
        yield from _closed_maildrop(maildrop or DIRECTORY, group)

    def remove(self) -> Iterator[str]:
        """Remove what `install` made below the prefix; mail in the maildrop stays, and is told."""
        call = _call_in(self._launcher)
        for path in self._links:
            if path.is_symlink() and path.readlink() == self._launcher:
                path.unlink()
                yield f"{path}: removed"
                if _aside(path).exists() or _aside(path).is_symlink():
                    _aside(path).rename(path)
                    yield f"{path}: put back"
        if self._launcher.exists() and self._is_ours(self._launcher):
            self._launcher.unlink()
            yield f"{self._launcher}: removed"
        left = look_at_maildrop(call[1]) if call is not None else None
        if left is not None and left.waiting:
            yield (
                f"{counted(left.waiting, 'message')} in {left.path} left to send: let relaygw "
                "serve run until relaygw drain finds none"
            )

    def _is_free(self, path: Path) -> bool:
        if path.is_symlink():
            return path.readlink() == self._launcher
        return not path.exists()

    def _is_ours(self, path: Path) -> bool:
        return _MARK in path.read_text(errors="replace")

    def _write_launcher(self, maildrop: str) -> None:
        package = Path(__file__).parents[1]
        if not _is_compiled(package):  # a program that is compiled each time is slow
            import compileall

            compileall.compile_dir(package, quiet=2)
        gateway = Path(sys.prefix) / "bin" / "relaygw"
        for name in (_call_in(self._launcher) or ())[:1]:
            if Path(name).resolve() == gateway.resolve():
                gateway = Path(name)  # a package names the link to it
        text = launcher_text(
            interpreter=str(_interpreter()),
            package_parent=str(package.parent),
            gateway=str(gateway),
            maildrop=maildrop,
        )
        if self._launcher.exists() and self._launcher.read_text(errors="replace") == text:
            return
        self._launcher.parent.mkdir(parents=True, exist_ok=True)
        self._launcher.write_text(text)
        self._launcher.chmod(0o755)


def launcher_text(
    *, interpreter: str, package_parent: str, gateway: str, maildrop: str = DIRECTORY
) -> str:
    """Return the program that all links lead to; it runs without site-packages."""
    return (
        f"#!{interpreter} -IS\n{_MARK}\nimport sys\n"
        f"sys.path.insert(0, {package_parent!r})\n"
        f"from relaygw.sendmail import main\nmain({gateway!r}, {maildrop!r})\n"
    )


def _interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _closed(path: Path) -> list[Path]:
    """Return the parts of a resolved path that their modes close to others.

    They must be able to pass each directory, and to read a file.
    """
    parts = (*reversed(path.parents), path)
    return [part for part in parts if not part.stat().st_mode & _needed(part)]


def _needed(path: Path) -> int:
    return stat.S_IXOTH if path.is_dir() else stat.S_IROTH


def _opening(closed: list[Path]) -> str:
    """Return the command that opens what is closed to others, as far as they need it."""
    directories = [str(path) for path in closed if path.is_dir()]
    words = [["chmod", "o+x", *directories]] if directories else []
    # what lies beside a file that is closed is closed as well
    words += [["chmod", "-R", "o+rX", str(path.parent)] for path in closed if not path.is_dir()]
    return " && ".join(map(shlex.join, words))


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def _owner(path: Path) -> str:
    return user_name(path.stat().st_uid)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _ASIDE)
