"""The clocks that a simulated process sees, in the place of those of the module `time`.

Imported before anything of relaygw: what is bound to a clock at import is bound to these. Outside
of a run they are the clocks of this machine.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

BEGIN_S = 1_795_600_000.0  # what a wall clock says as a run begins
_REAL: dict[str, Callable[..., Any]] = {
    name: getattr(time, name)
    for name in ("monotonic", "time", "time_ns", "clock_gettime", "perf_counter", "sleep")
}
_REAL_SECRETS: dict[str, Callable[..., Any]] = {
    name: getattr(secrets, name) for name in ("token_hex", "token_bytes", "randbits")
}


class Times(Protocol):
    """What a run tells of time and chance."""

    def running_s(self) -> float: ...

    def wall_s(self) -> float: ...

    def slept(self, seconds: float) -> None: ...

    @property
    def chance(self) -> random.Random: ...


_times: Times | None = None


def use(times: Times | None) -> None:
    """See the clocks of a run from now on; None: those of this machine."""
    global _times
    _times = times


def real_s() -> float:
    """Return the clock of this machine, for figures."""
    return float(_REAL["perf_counter"]())


def _running_s(name: str) -> Callable[[], float]:
    real = _REAL[name]
    return lambda: real() if _times is None else _times.running_s()


def _wall_s() -> float:
    return float(_REAL["time"]()) if _times is None else _times.wall_s()


def _wall_ns() -> int:
    return int(_REAL["time_ns"]()) if _times is None else int(_times.wall_s() * 1e6) * 1000


def _gettime(clock: int) -> float:
    if _times is None:
        return float(_REAL["clock_gettime"](clock))
    return _times.wall_s() if clock == time.CLOCK_REALTIME else _times.running_s()


def _sleep(seconds: float) -> None:
    if _times is None:
        _REAL["sleep"](seconds)
    else:
        _times.slept(seconds)


def _secret(name: str, drawn: Callable[[random.Random, int], Any]) -> Callable[..., Any]:
    real = _REAL_SECRETS[name]

    def draw(count: int = 32) -> Any:
        return real(count) if _times is None else drawn(_times.chance, count)

    return draw


def install() -> None:
    """Put these clocks into the modules `time` and `secrets`."""
    replaced: dict[str, Callable[..., Any]] = {
        "monotonic": _running_s("monotonic"),
        "perf_counter": _running_s("perf_counter"),
        "time": _wall_s,
        "time_ns": _wall_ns,
        "clock_gettime": _gettime,
        "sleep": _sleep,
    }
    for name, clock in replaced.items():
        setattr(time, name, clock)
    secrets.token_hex = _secret("token_hex", lambda chance, count: chance.randbytes(count).hex())
    secrets.token_bytes = _secret("token_bytes", lambda chance, count: chance.randbytes(count))
    secrets.randbits = _secret("randbits", lambda chance, count: chance.getrandbits(count))
