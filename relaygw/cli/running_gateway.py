"""Which gateway a command is about when its caller names none: the one that runs on this host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from relaygw import service_file
from relaygw.cli.frame import warn
from relaygw.errors import RelaygwError, SettingsError, StoreUnavailable
from relaygw.service_file import RunningGateway
from relaygw.settings.load import LoadedSettings, load_settings


def load_running(load_usual: Callable[[], LoadedSettings]) -> LoadedSettings:
    """Return the settings of the gateway that runs, or the usual ones when they are meant.

    A gateway with another queue than the usual one is named on stderr. Raises StoreUnavailable
    when several run, or its configuration cannot be read and the usual queue is empty.
    """
    running = service_file.running_gateways(os.environ)
    if not running:
        return load_usual()
    usual = _usual(load_usual)
    if usual is not None and any(one.queue == usual.settings.queue.url for one in running):
        return usual
    mail_lies = usual is not None and _has_mail(usual)
    if len(running) > 1:
        raise StoreUnavailable(_several(running, usual if mail_lies else None))
    (gateway,) = running
    try:
        loaded = _load(gateway)
    except SettingsError as error:
        problem = f"{_named(gateway)} runs here, but its configuration cannot be used: {error}"
        if usual is not None and mail_lies:
            warn(f"{problem}; this is about {usual.settings.queue.url}")
            return usual
        raise StoreUnavailable(
            f"{problem}; run this as {gateway.user}, or name a configuration by --config"
        ) from error
    warn(f"using {_named(gateway)}")
    if usual is not None and mail_lies:
        warn(
            f"mail waits in {usual.settings.queue.url} as well, of which no gateway runs: {_USUAL}"
        )
    return loaded


_USUAL = "name its configuration by --config, or its queue by RELAYGW__QUEUE__URL, to see it"


def _usual(load_usual: Callable[[], LoadedSettings]) -> LoadedSettings | None:
    try:
        return load_usual()
    except SettingsError:
        return None  # what runs is not what stands there


def _load(gateway: RunningGateway) -> LoadedSettings:
    config = Path(gateway.config) if gateway.config else None
    return load_settings(config=config, environ=_environment_of(gateway))


def _environment_of(gateway: RunningGateway) -> Mapping[str, str]:
    """Return an environment in which a configuration means the queue of a gateway."""
    environ = {**os.environ, "RELAYGW__QUEUE__URL": gateway.queue}
    state_dir = Path(gateway.state_dir)
    if state_dir.name == "relaygw":
        environ["XDG_STATE_HOME"] = str(state_dir.parent)
    return environ


def _has_mail(loaded: LoadedSettings) -> bool:
    from relaygw import roles

    queue = loaded.settings.queue
    if not queue.is_postgres and not Path(queue.url.removeprefix("sqlite:///")).exists():
        return False
    with contextlib.suppress(RelaygwError, OSError):
        store = roles.open_store(loaded)
        try:
            return bool(store.queue.counts())
        finally:
            store.close()
    return False


def _named(gateway: RunningGateway) -> str:
    return f"the gateway of user {gateway.user}: {gateway.config or gateway.queue}"


def _several(running: Sequence[RunningGateway], usual: LoadedSettings | None) -> str:
    names = "; ".join(_named(one) for one in running)
    problem = f"several gateways run here ({names}); name a configuration by --config"
    if usual is not None:
        problem += f"; mail waits in {usual.settings.queue.url} as well"
    return problem
