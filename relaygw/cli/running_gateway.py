"""Which gateway a command is about when its caller names none: the one that runs on this host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from relaygw import service_file, state_owner
from relaygw.cli.open_queue import open_queue
from relaygw.cli.stderr import warn
from relaygw.errors import RelaygwError, SettingsError, SettingsUnreadable, StoreUnavailable
from relaygw.observe.reload import note_refused_reload
from relaygw.service_file import FoundGateway
from relaygw.settings.in_force import check_sandbox_is_meant, kept_settings
from relaygw.settings.load import LoadedSettings, load_settings
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.volume import is_full


def load_running(load_usual: Callable[[], LoadedSettings]) -> LoadedSettings:
    """Return the settings of the gateway that runs, or the usual ones when they are meant.

    A gateway with another queue than the default is named on stderr; what it says is read and done
    as its own user, where this is root, and not by another user. Raises StoreUnavailable when
    several run, or its configuration cannot be read and the usual queue is empty, and SettingsError
    when none runs, and the file of the one that ran is gone.
    """
    running = service_file.running_gateways(os.environ)
    if not running:
        return _meant(load_usual())
    usual = wrong = None
    try:
        usual = load_usual()
    except SettingsError as error:  # what runs is not what stands there
        wrong = error
    same = [
        found_gateway
        for found_gateway in running
        if usual and found_gateway.queue == usual.settings.queue.url
    ]
    if usual is not None and any(usual.files or not found_gateway.config for found_gateway in same):
        return usual
    if same:  # the files are elsewhere, or gone
        usual, running = None, same
    forgotten = usual if usual is not None and _has_mail(usual) else None
    where = "" if forgotten is None else f"mail waits in {forgotten.settings.queue.url} as well"
    if len(running) > 1:
        names = "; ".join(map(_named, running))
        problem = f"several gateways run here ({names}); name a configuration with --config"
        raise StoreUnavailable(f"{problem}; {where}" if where else problem)
    (gateway,) = running
    config = Path(gateway.config) if gateway.config else None
    try:
        _become_user_of(gateway)
        loaded = load_settings(config=config, environ=_environment_of(gateway))
        if wrong is not None and gateway.config and str(wrong).startswith(gateway.config):
            raise wrong  # its mode is taken from what runs, and that was what is wrong
    except SettingsError as error:
        return _instead_of_unusable(gateway, error, forgotten)
    warn(f"using {_named(gateway)}")
    if where:
        warn(
            f"{where}, and no gateway runs on it: to see it, name its configuration with "
            "--config, or its queue with RELAYGW__QUEUE__URL"
        )
    return loaded


def _meant(usual: LoadedSettings) -> LoadedSettings:
    with state_owner.as_owner_of(usual.state_dir):
        check_sandbox_is_meant(usual)
    return usual


def _instead_of_unusable(
    gateway: FoundGateway, error: SettingsError, forgotten: LoadedSettings | None
) -> LoadedSettings:
    problem = f"{_named(gateway)} runs here, but its configuration cannot be used: {error}"
    if forgotten is not None:
        state_owner.return_to_caller()
        warn(f"{problem}; this is about {forgotten.settings.queue.url}")
        return forgotten
    if isinstance(error, SettingsUnreadable):
        raise StoreUnavailable(
            f"{problem}; run this as {gateway.user}, or name a configuration with --config"
        ) from error
    in_force = _in_force(gateway, error)
    if in_force is None:
        raise StoreUnavailable(
            f"{problem}; correct it, until relaygw --config {gateway.config or None} check is "
            "content, or give this command the variables that its service has"
        ) from error
    return in_force


def settings_in_force(config: Path | None, error: SettingsError) -> LoadedSettings:
    """Return the settings of the gateway that runs with what is named, which cannot be used.

    `config` is the file that the caller named, if one. Raises `error` where none runs with it.
    """
    named = str(config or os.environ.get("RELAYGW_CONFIG", ""))
    queue = os.environ.get("RELAYGW__QUEUE__URL")
    for gateway in service_file.running_gateways(os.environ):
        is_its_file = named and os.path.realpath(gateway.config) == os.path.realpath(named)
        if is_its_file or (not named and gateway.queue == queue):
            with contextlib.suppress(SettingsUnreadable):
                _become_user_of(gateway)  # who wrote the entry says where its state is
                if (in_force := _in_force(gateway, error)) is not None:
                    return in_force
    raise error


def _in_force(gateway: FoundGateway, error: SettingsError) -> LoadedSettings | None:
    """Return the settings that a gateway runs with, and say so; None if it left none of use."""
    state_dir = Path(gateway.state_dir)
    with state_owner.as_owner_of(state_dir):
        loaded = kept_settings(state_dir)
    if loaded is None:
        return None
    first, *more = str(error).splitlines()
    others = f" ({len(more)} more: relaygw check)" if more else ""
    warn(f"{first}{others}; using the settings that {_named(gateway)} runs with")
    return loaded


def _environment_of(gateway: FoundGateway) -> Mapping[str, str]:
    """Return an environment in which a configuration means the queue of a gateway."""
    environ = {**os.environ, "RELAYGW__QUEUE__URL": gateway.queue}
    if gateway.mode:  # a variable of its service may say it, and the file have been changed since
        environ["RELAYGW__MODE"] = gateway.mode
    state_dir = Path(gateway.state_dir)
    if state_dir.name == "relaygw":
        environ["XDG_STATE_HOME"] = str(state_dir.parent)
    return environ


def _has_mail(loaded: LoadedSettings) -> bool:
    """Return whether mail waits in a queue; one that cannot be looked at is not talked about."""
    with (
        contextlib.suppress(RelaygwError, OSError),
        state_owner.as_owner_of(loaded.state_dir),
        open_queue(loaded) as store,
    ):
        return bool(store.queue.counts())
    return False


def _become_user_of(gateway: FoundGateway) -> None:
    """Act as the user who wrote a gateway's entry; raises SettingsUnreadable where none may."""
    state_owner.become(gateway.entry)
    if gateway.entry.st_uid not in (0, os.geteuid()):
        raise SettingsUnreadable("only root and that user believe its entry")


def _named(gateway: FoundGateway) -> str:
    return f"the gateway of user {gateway.user}: {gateway.config or gateway.queue}"


def missing_file(loaded: LoadedSettings) -> Iterator[str]:
    """Yield that there is no file, and that the gateway of this queue runs, or ran, with one."""
    running = service_file.running_gateways(os.environ) if not loaded.files else ()
    for gateway in running:
        if gateway.queue == loaded.settings.queue.url and gateway.config:
            yield f"{gateway.config}: is gone, and the gateway runs with it; write it again"
            return
    try:
        check_sandbox_is_meant(loaded)
    except SettingsError as error:
        yield str(error)


def running_mode(settings: Settings) -> str:
    """Return the mode of the gateway that runs on the queue here, else that of the settings."""
    running = service_file.running_gateways(os.environ)
    modes = (
        gateway.mode for gateway in running if gateway.queue == settings.queue.url and gateway.mode
    )
    return next(modes, settings.mode.value)


def check_mode_of_queue(settings: Settings) -> None:
    """Raise SettingsError where a gateway runs in another mode on the SQLite queue of this one.

    The mail of a shop and that of its staging would be in one queue, for both to send.
    """
    for gateway in _in_another_mode(settings):
        raise SettingsError(_clash(gateway, settings))


def other_mode(loaded: LoadedSettings) -> Iterator[str]:
    """Yield that a gateway of another configuration runs in another mode on this queue."""
    for gateway in _in_another_mode(loaded.settings):
        if not reads(gateway, *loaded.files):
            yield _clash(gateway, loaded.settings)


def _in_another_mode(settings: Settings) -> Iterator[FoundGateway]:
    file = _file_of(settings.queue.url)
    for gateway in () if settings.queue.is_postgres else service_file.running_gateways(os.environ):
        if gateway.mode not in ("", settings.mode) and _file_of(gateway.queue) == file:
            yield gateway


def _file_of(url: str) -> str:
    return os.path.realpath(url.removeprefix("sqlite:///"))


def reads(gateway: FoundGateway, *files: Path) -> bool:
    """True if a gateway runs with one of these files."""
    return os.path.realpath(gateway.config) in map(os.path.realpath, files)


def _clash(gateway: FoundGateway, settings: Settings) -> str:
    return (
        f"mode: {settings.mode}, but {_named(gateway)} (pid {gateway.pid}) runs in mode "
        f"{gateway.mode} on the same queue {settings.queue.url}; stop that first, or give this "
        "configuration a queue.url, listeners, web.bind and maildrop.path of its own"
    )


def note_refusal(pid: int, reason: str) -> None:
    """Have the gateway that is process `pid` alert that its reload was refused."""
    for gateway in service_file.running_gateways(os.environ):
        if gateway.pid == pid:
            state_dir = Path(gateway.state_dir)
            with state_owner.as_owner_of(state_dir):
                note_refused_reload(state_dir, reason)


def replaced_warning(settings: Settings, *, is_used: bool) -> Iterator[str]:
    """Yield what is odd about a queue that nobody uses, though a gateway runs on its file."""
    running = service_file.running_gateways(os.environ)
    named = [gateway for gateway in running if gateway.queue == settings.queue.url and not is_used]
    for gateway in named:
        yield (
            f"{_named(gateway)} runs (pid {gateway.pid}), but not on this file: it was replaced, "
            "or removed, while that ran, and what it has accepted is in another; if it did not "
            "start just now, stop it, put the file of before back, and start it"
        )


def full_volume_warning(loaded: LoadedSettings) -> Iterator[str]:
    """Yield that no mail is accepted, where the volume of the state directory is full."""
    least = loaded.settings.queue.min_free
    if is_full(loaded.state_dir, least):
        yield (
            f"less than {least:.0%} of the volume of {loaded.state_dir} is free (queue.min_free): "
            "new mail is refused with 452 until there is more"
        )


def in_running_mode(settings: Settings) -> Settings:
    """Return the settings with which a command stores mail: in the stricter mode of the two.

    Mail that a sandbox takes must not become due with the next production.
    """
    mode = running_mode(settings)
    for text in mode_warning(settings, mode):
        warn(f"warning: {text}; the stricter mode applies")
    stricter = max(settings.mode, Mode(mode), key=lambda candidate: candidate.strictness)
    return settings.model_copy(update={"mode": stricter})


def mode_warning(settings: Settings, mode: str) -> Iterator[str]:
    """Yield what is odd about a gateway that runs in another mode than its settings say."""
    if mode != settings.mode.value:
        yield (
            f"the gateway runs in mode {mode}, but the configuration read here says "
            f"{settings.mode.value}: it was changed since, or one of them has other variables; "
            "see relaygw check and relaygw config show --origin, then reload"
        )
