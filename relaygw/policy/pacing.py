"""How fast a provider that said "slower" is sent to, and over how many connections.

Pure. What a provider taught is its *ceiling*: the rate, or the number of connections, at which
it refused, and when. The same ceiling gives the same pace in every worker, so that one that
learns teaches all. Decrease is by a share at once, increase by the clock: quickly back to just
below the ceiling, slowly past it, and faster the longer nothing is refused (as RFC 9438 does
for TCP).
"""

from __future__ import annotations

_LOW, _HIGH = 0.85, 0.97  # shares of the ceiling: right after a refusal, and once recovered
_RECOVERY_S = 2.0
_LINEAR, _CUBIC = 0.006, 0.00003  # growth past the ceiling, by seconds since the recovery
_CONNECTION_EVERY_S = 60.0
_SLOW_PER_S = 10.0


def pace(ceiling_per_s: float, since_s: float) -> float:
    """Return the rate to send at, so long after the ceiling was met.

    Below ten a second everything takes longer, so that a refusal stays rare among the messages.
    """
    since_s *= min(1.0, ceiling_per_s / _SLOW_PER_S)
    if since_s < _RECOVERY_S:
        return ceiling_per_s * (_LOW + (_HIGH - _LOW) * max(0.0, since_s) / _RECOVERY_S)
    grown_s = since_s - _RECOVERY_S
    return ceiling_per_s * _HIGH * (1 + _LINEAR * grown_s + _CUBIC * grown_s**3)


def connections(ceiling: int, since_s: float, configured: int) -> int:
    """Return how many connections to use, so long after more than `ceiling` were refused."""
    return max(1, min(configured, ceiling + int(max(0.0, since_s) // _CONNECTION_EVERY_S)))


def allowed_per_s(
    configured_per_s: float | None, ceiling_per_s: float | None, since_s: float
) -> float | None:
    """Return how much may be sent a second: as configured, or less so long after a ceiling.

    None: as fast as it answers.
    """
    rates = [] if configured_per_s is None else [configured_per_s]
    if ceiling_per_s is not None:
        rates.append(pace(ceiling_per_s, since_s))
    return min(rates, default=None)
