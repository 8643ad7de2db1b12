"""This host, as `relaygw setup` and `check` see it: users, files, systemd, the user of PHP.

And the environment that systemd gives the service, which the caller's shell does not have.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from relaygw import state_owner
from relaygw.cli.frame import CommandFailed
from relaygw.cli.install_sendmail import closed_maildrop_warnings, maildrop_warnings
from relaygw.cli.setup_plan import NewFile
from relaygw.errors import SettingsError, StoreUnavailable
from relaygw.mail.search import Field, make_term
from relaygw.observe.reload import read_refused_reload
from relaygw.operations.selectors import ANY_STATE
from relaygw.settings.in_force import is_in_force
from relaygw.settings.load import (
    DEFAULT_FILE,
    LoadedSettings,
    load_settings,
    origin_lines,
    overlaid,
)
from relaygw.settings.model import Settings
from relaygw.settings.secrets import HIDDEN_BY, SERVICE_USER, draft_of
from relaygw.store.selection import Selection
from relaygw.store.store import Store

WEB_USERS = ("www-data", "apache", "nginx", "http")
"""As whom PHP runs: Debian's, the RHEL family's, others'."""
UNITS = ("relaygw.socket", "relaygw.service")
_RUNS_SYSTEMD = Path("/run/systemd/system")
DROP_IN = Path("/etc/systemd/system/relaygw.socket.d/listeners.conf")
_DROP_IN_HEAD = ["[Socket]", "ListenStream="]
_PACKAGED_BIND = "127.0.0.1:25"
"""What relaygw.socket listens at unless it is told otherwise."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TRIAL_LIMIT_S = 30.0
_POLL_S = 0.2
RELOAD_S = 30.0
"""How long a reload may take: workers end what they send by the settings of before."""


def user_entry(*names: str) -> pwd.struct_passwd | None:
    """Return the first of these users that is on this host."""
    for name in names:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the files of a configuration belong to: the service's user, else the caller."""

    entry: pwd.struct_passwd | None

    @classmethod
    def of_service(cls) -> Owner:
        """Return the service's user where the caller may give files away."""
        return cls(user_entry(SERVICE_USER) if os.geteuid() == 0 else None)

    def words(self, file: NewFile) -> str:
        """Return mode and owner of a file that is to be written."""
        if self.entry is None:
            return f"mode {_alone(file.mode):04o}"
        name = self.entry.pw_name
        return f"mode {file.mode:04o}, {name if file.is_own else 'root'}:{name}"

    def give(self, descriptor: int, file: NewFile) -> None:
        """Set owner and mode of something new."""
        if self.entry is None:
            os.fchmod(descriptor, _alone(file.mode))
            return
        os.fchown(descriptor, self.entry.pw_uid if file.is_own else 0, self.entry.pw_gid)
        os.fchmod(descriptor, file.mode)


def _alone(mode: int) -> int:
    return mode & 0o700


def write(file: NewFile, owner: Owner) -> None:
    """Make a file or directory that is not there; a file gets its name once it is on disk."""
    if file.text is None:
        file.path.mkdir(mode=0o700, parents=True)
        descriptor = os.open(file.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        owner.give(descriptor, file)
        os.close(descriptor)
        return
    with draft_of(file.path) as new:
        owner.give(new.fileno(), file)
        new.write(file.text.encode())
        new.flush()
        os.fsync(new.fileno())
        os.link(new.name, file.path)  # never over another file


# --- systemd

_MADE_IN = {
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}


def has_units() -> bool:
    """True when systemd runs here and knows the service."""
    return _RUNS_SYSTEMD.is_dir() and _systemctl("cat", *UNITS).returncode == 0


def is_enabled() -> bool:
    """True when the service runs, and will after a start of the machine."""
    return _answers_yes(("is-enabled", *UNITS), ("is-active", UNITS[-1]))


def start_command(config: Path | None) -> str:
    """Return the command that starts the gateway of a configuration, now and at each boot."""
    if not is_of_service(config):
        return "relaygw serve"
    verb = "start" if _answers_yes(("is-enabled", *UNITS)) else "enable --now"
    return f"systemctl {verb} {' '.join(UNITS)}"


def _answers_yes(*questions: Sequence[str]) -> bool:
    """True when systemd's answer is yes to all."""
    return all(_systemctl(verb, "--quiet", *names).returncode == 0 for verb, *names in questions)


def shown_of_service(*names: str) -> list[str]:
    """Return systemd's properties of the service, each NAME=VALUE."""
    return _systemctl("show", f"--property={','.join(names)}", UNITS[-1]).stdout.splitlines()


def user_of_unit() -> pwd.struct_passwd | None:
    """Return the user as whom systemd runs the service, None for root."""
    shown = dict(line.split("=", 1) for line in shown_of_service("User"))
    return user_entry(shown.get("User", ""))


def is_bystander(loaded: LoadedSettings) -> bool:
    """True where neither root nor the service's user asks about the service's configuration.

    What that user may read and write says nothing of the service.
    """
    entry = user_of_unit() if loaded.files and is_of_service(loaded.files[0]) else None
    return entry is not None and state_owner.caller_uid() not in (0, entry.pw_uid)


def closed_directories() -> tuple[str, ...]:
    """Return the directories that systemd hides from the service, each with a slash at its end."""
    shown = shown_of_service(*HIDDEN_BY)
    return tuple(place for line in shown for place in HIDDEN_BY.get(line.removesuffix("=yes"), ()))


def writable_directories() -> tuple[str, ...]:
    """Return where systemd lets the service write, each with a slash at its end; (): anywhere."""
    asked = ("ProtectSystem", "ReadWritePaths", "BindPaths", *_MADE_IN)
    shown = dict(line.split("=", 1) for line in shown_of_service(*asked))
    if shown.get("ProtectSystem") != "strict":
        return ()
    words = shown.get("ReadWritePaths", "").replace("-/", "/").split()
    words += [bound.split(":")[1] for bound in shown.get("BindPaths", "").split()]
    made = [
        f"{place}/{name}" for key, place in _MADE_IN.items() for name in shown.get(key, "").split()
    ]
    return tuple(f"{place}/" for place in (*made, *words))


def socket_problems(loaded: LoadedSettings) -> Iterator[str]:
    """Yield that relaygw.socket, where it is enabled, listens elsewhere than `listeners` say."""
    is_used = loaded.files and is_of_service(loaded.files[0])
    if not is_used or not _answers_yes(("is-enabled", UNITS[0])):
        return
    shown = _systemctl("show", "--property=Listen", UNITS[0]).stdout.splitlines()
    handed = {line.removeprefix("Listen=").partition(" (")[0] for line in shown}
    named = {str(listener.bind) for listener in loaded.settings.listeners}
    if handed != named:
        yield (
            f"listeners: relaygw.socket listens at {', '.join(sorted(handed))}, and listeners name "
            f"{', '.join(sorted(named))}, so that the service does not start; run: relaygw setup"
        )


def socket_file(settings: Settings) -> NewFile | None:
    """Return the file that tells relaygw.socket the addresses of `listeners`, if not usual."""
    binds = [str(listener.bind) for listener in settings.listeners]
    if binds == [_PACKAGED_BIND]:
        return None
    lines = [*_DROP_IN_HEAD, *(f"ListenStream={bind}" for bind in binds)]
    return NewFile(path=DROP_IN, text="\n".join(lines) + "\n")


def socket_change(settings: Settings) -> str:
    """Return the action on setup's own file for relaygw.socket, "" for nothing.

    Raises CommandFailed for one that setup did not write and that says otherwise.
    """
    new = socket_file(settings)
    there = DROP_IN.read_text() if DROP_IN.exists() else None
    if there == (new and new.text):
        return ""
    lines = (there or "").splitlines()
    is_own = lines[:2] == _DROP_IN_HEAD and all(
        line.startswith("ListenStream=") for line in lines[2:]
    )
    if there is not None and not is_own:
        binds = ", ".join(str(listener.bind) for listener in settings.listeners)
        raise CommandFailed(
            f"{DROP_IN}: is not as setup writes it, and lacks the addresses of listeners "
            f"({binds}); move it away, and run this again",
            exit_code=os.EX_CANTCREAT,
        )
    return "write" if new else "remove"


def put_socket_file(settings: Settings) -> None:
    """Write setup's own file for relaygw.socket, or remove it where none is needed."""
    new = socket_file(settings)
    if new is None:
        DROP_IN.unlink()
        return
    DROP_IN.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    DROP_IN.write_text(new.text or "")


def refuse_taken_addresses(settings: Settings) -> None:
    """Raise CommandFailed where another program listens at an address of the service.

    To enable it then would have it take the address once that program stops.
    """
    from relaygw.roles.sockets import ListeningSockets

    if any(_answers_yes(("is-active", unit)) for unit in UNITS):
        return
    sockets = ListeningSockets(("front", "web"))
    try:
        sockets.open(settings)
    except (StoreUnavailable, SettingsError) as error:
        raise CommandFailed(
            f"{error}; nothing was enabled or started; run relaygw setup again then",
            exit_code=os.EX_UNAVAILABLE,
        ) from error
    finally:
        sockets.close()


def enable(*, is_new: bool) -> None:
    """Enable and start the service; raises CommandFailed."""
    # a restart of both at once may begin with the socket, which refuses while the service runs
    stops = (("stop", *UNITS),) if is_new else ()
    for words in (("daemon-reload",), ("enable", *UNITS), *stops, ("start", *UNITS)):
        if words[0] == "start":  # starts that failed just now would count against its limit
            _systemctl("reset-failed", *UNITS)  # fails where systemd has forgotten the units
        done = _systemctl(*words)
        if done.returncode != 0:
            said = " ".join(done.stderr.split())
            raise CommandFailed(
                f"systemctl {' '.join(words)}: {said}; see: journalctl -u relaygw",
                exit_code=os.EX_UNAVAILABLE,
            )


def reload_service(loaded: LoadedSettings) -> None:
    """Have the service take these settings; raises CommandFailed if it refuses them.

    On return no mail is taken, or sent, by those of before.
    """
    problem = ""
    if _systemctl("reload", UNITS[-1]).returncode != 0:
        with state_owner.as_owner_of(loaded.state_dir):
            refused = read_refused_reload(loaded.state_dir)
        problem = refused.reason if refused else "its reload failed"
    elif not _takes(loaded):  # systemctl only begins it
        problem = f"its reload took longer than {RELOAD_S:.0f} s (journalctl -u relaygw)"
    if problem:
        raise CommandFailed(
            f"{UNITS[-1]} runs on with its old settings: {problem}; correct that, or restart it, "
            "and run relaygw setup again",
            exit_code=os.EX_UNAVAILABLE,
        )


def _takes(loaded: LoadedSettings) -> bool:
    deadline_s = time.monotonic() + RELOAD_S
    with state_owner.as_owner_of(loaded.state_dir):
        while not is_in_force(loaded):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_POLL_S)
    return True


@state_owner.as_caller()  # the system's own; without D-Bus it answers root only
def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)


# --- the web server's user


def send_as(user: pwd.struct_passwd, program: Path, recipient: str, subject: str) -> None:
    """Have a user run the sendmail command as PHP does; raises CommandFailed."""
    content = f"To: {recipient}\nSubject: {subject}\n\nSent as {user.pw_name} by relaygw setup.\n"
    try:
        done = subprocess.run(
            [program, "-t", "-i"],
            input=content.encode(),
            env={"PATH": _PATH},
            cwd="/",
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            timeout=_TRIAL_LIMIT_S,
            check=False,
        )
        problem = done.stderr.decode("utf-8", "replace").strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        raise CommandFailed(
            f"{user.pw_name} cannot send mail by {program}: {problem}; to see what blocks it, "
            "run: relaygw install-sendmail",
            exit_code=os.EX_NOPERM,
        )


def queued_as(store: Store, subject: str) -> str:
    """Wait for a mail with this subject and return its queue id; raises CommandFailed."""
    deadline_s = time.monotonic() + _TRIAL_LIMIT_S
    while time.monotonic() < deadline_s:
        found: Sequence[str] = store.queue.search_ids(
            Selection(terms=(make_term(Field.SUBJECT, subject),), states=ANY_STATE), limit=1
        )
        if found:
            return found[0]
        time.sleep(_POLL_S)
    raise CommandFailed(
        "the command accepted the mail, but the gateway did not pick it up; see: relaygw status",
        exit_code=os.EX_UNAVAILABLE,
    )


_PREFIX = "RELAYGW_"
Variables = dict[str, tuple[str, str]]
"""Values of variables, each with where it is set."""


@state_owner.as_caller()
def service_variables() -> Variables:
    """Return the variables of relaygw.service; raises OSError for a file that is closed."""
    found: Variables = {}
    files: list[str] = []
    for line in shown_of_service("Environment", "EnvironmentFiles"):
        name, _, value = line.partition("=")
        if name == "Environment":
            for word in shlex.split(value):
                key, _, text = word.partition("=")
                found[key] = text, UNITS[-1]
        elif name == "EnvironmentFiles":
            files += sorted(glob(value.rpartition(" (")[0]))  # noqa: PTH207 - a pattern, or absolute
    for file in files:
        for key, text in _variables_in(Path(file).read_text(errors="replace")):
            found[key] = text, file
    return found


def _variables_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the variables of an EnvironmentFile=, see systemd.exec(5)."""
    for line in text.replace("\\\n", "").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        value = value.strip()
        if value.startswith(("'", '"')):
            try:
                value = "".join(shlex.split(value))
            except ValueError:
                value = value[1:]
        yield name.strip(), value


def environment_of(variables: Variables, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the service: its own variables, and no settings of `base`."""
    kept = {name: value for name, value in base.items() if not name.startswith(_PREFIX)}
    return kept | {name: value for name, (value, _) in variables.items()}


def is_of_service(config: Path | None) -> bool:
    """True for the configuration that relaygw.service of this host reads."""
    return config == DEFAULT_FILE and has_units()


def refuse_overlaid(config: Path, written: Mapping[str, Any]) -> None:
    """Raise CommandFailed where something says otherwise than what setup writes into a file.

    Such as a file of conf.d, a variable here, or one of the service: nothing is to start then.
    """
    found = [f"{key} is set by {origin}" for key, origin in overlaid(config, written, os.environ)]
    if is_of_service(config):
        variables = service_variables()
        named, place = variables.get("RELAYGW_CONFIG", (str(config), ""))
        if named != str(config):
            found.append(f"the whole file is replaced by RELAYGW_CONFIG in {place}")
        for key, origin in overlaid(config, written, environment_of(variables, {})):
            found.append(f"{key} is set by {_with_source(origin, variables)}")
    if found:
        raise CommandFailed(
            f"{config}: what runs would differ from what setup writes: "
            f"{'; '.join(dict.fromkeys(found))}; remove it there, and run this again",
            exit_code=os.EX_CANTCREAT,
        )


def _with_source(origin: str, variables: Variables) -> str:
    source = variables.get(origin.removeprefix("environment "), ("", ""))[1]
    return f"{origin} in {source}" if source else origin


def service_warnings(loaded: LoadedSettings) -> Iterator[str]:
    """Yield what service and sendmail command have otherwise than the caller's settings."""
    yield from maildrop_warnings(loaded.settings)
    yield from closed_maildrop_warnings(loaded.settings)
    if not loaded.files or not is_of_service(loaded.files[0]):
        return
    if _answers_yes(("is-enabled", UNITS[0]), ("is-active", UNITS[1])) and not _answers_yes(
        ("is-active", UNITS[0])
    ):
        units = " ".join(UNITS)
        yield (
            "relaygw.socket is enabled, but does not run beside relaygw.service, so that a restart "
            f"refuses connections; run: systemctl stop {units} && systemctl start {units}"
        )
    if is_bystander(loaded):
        yield "run it as root to see what the service sees: its rights, secrets and variables"
        return
    try:
        variables = service_variables()
    except OSError as error:
        yield (
            f"{error.filename}: {error.strerror}; the service reads its variables from there, and "
            "this output ignores them: run it as root"
        )
        return
    with contextlib.suppress(SettingsError):  # told as a problem
        theirs = _settings_of_service(loaded, variables)
        if theirs is not None:
            yield from _differences(loaded, theirs, variables)


def service_problems(loaded: LoadedSettings) -> Iterator[str]:
    """Yield that the service cannot start with the variables that it has of its own."""
    if not loaded.files or not is_of_service(loaded.files[0]):
        return
    try:
        with contextlib.suppress(OSError):  # told as a warning
            _settings_of_service(loaded, service_variables())
    except SettingsError as error:
        yield f"the service has its own variables, and cannot start with them: {error}"


def settings_of_service(loaded: LoadedSettings) -> LoadedSettings:
    """Return the settings with the service's own variables, where `loaded` is of the service.

    The caller's where the service's cannot be read: that is a finding by itself.
    """
    if loaded.files and is_of_service(loaded.files[0]):
        with contextlib.suppress(OSError, SettingsError):
            return _settings_of_service(loaded, service_variables()) or loaded
    return loaded


def _base(variables: Variables) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": variables.get("XDG_STATE_HOME", ("", ""))[0]}


def _settings_of_service(loaded: LoadedSettings, variables: Variables) -> LoadedSettings | None:
    """Return the settings with the service's variables, None where the caller has the same.

    Raises SettingsError.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    if own == {name: value for name, (value, _) in variables.items() if name.startswith(_PREFIX)}:
        return None
    config = Path(variables.get("RELAYGW_CONFIG", (str(loaded.files[0]), ""))[0])
    return load_settings(config=config, environ=environment_of(variables, _base(variables)))


def _differences(
    loaded: LoadedSettings, theirs: LoadedSettings, variables: Variables
) -> Iterator[str]:
    """Yield what the service has otherwise than the caller."""
    yield from (doubt for doubt in theirs.doubts if doubt not in loaded.doubts)
    mine = load_settings(config=loaded.files[0], environ=_base(variables))
    here = {key: (value, origin) for key, value, origin in origin_lines(mine)}
    for key, value, origin in origin_lines(theirs):
        before, place = here.pop(key, (None, ""))
        if value != before:
            yield _difference(
                key, value.strip('"') if key == "mode" else "", origin, variables, place
            )


def _difference(key: str, value: str, origin: str, variables: Variables, place: str) -> str:
    by = _with_source(origin, variables)
    return (
        f"{key}: the service has another value{f', {value},' if value else ''} from {by} than is "
        f"shown here{f' from {place}' if place else ''}; change it where it is set, and restart "
        "the service"
    )
