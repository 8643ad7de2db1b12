"""What a seed decides of a run. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GATEWAYS = 2
LEASE_S = 20.0
"""Who is not heard of for so long is dead to the others (relaygw/delivery/leases.py)."""
_LONGER_S = (LEASE_S + 2, LEASE_S + 6)
_LONG_EACH = 5  # of so many runs of a kind one outlasts the lease
_MOST_HOLD_S = 3.0
_MOST_MOMENT_S = 0.5
_LEAST_MAILS, _MOST_MAILS = 5, 25

SHORT: Mapping[str, Sequence[str]] = {
    "kill": ("all",),
    "stop": ("worker frozen", "all frozen", "cleanly"),
    "cut": ("closed", "silent"),
    "restart": ("fast", "immediate"),
    "failover": ("promoted",),
    "clock": ("+1h", "-1h"),
    "upgrade": ("one by one",),
}
"""The ways in which a fault of a kind may be done."""
LONG: Mapping[str, Sequence[str]] = {
    "kill": ("all",),
    "stop": ("worker frozen", "all frozen"),
    "cut": ("silent",),
}
"""Those of them that may outlast the lease."""
KINDS = tuple(SHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run shall be."""

    seed: int
    kind: str
    way: str
    target: int  # which gateway, if it is one
    mails: int  # acknowledged at each gateway before the fault
    moment_s: float  # after these
    hold_s: float  # how long it lasts

    @property
    def is_long(self) -> bool:
        """True when it outlasts the lease."""
        return self.hold_s > LEASE_S

    def to_text(self) -> str:
        """Return it in some words."""
        where = f" at gateway {self.target + 1}" if self.kind in _OF_A_GATEWAY else ""
        return f"seed {self.seed}: {self.kind} {self.way}{where}, {self.hold_s:.1f} s"


_OF_A_GATEWAY = ("kill", "stop", "cut", "clock")


def plan_of(seed: int, kinds: Sequence[str] = KINDS) -> Plan:
    """Return the plan of a seed; the kinds take turns from seed to seed."""
    chance = random.Random(seed)
    kind = kinds[seed % len(kinds)]
    is_long = kind in LONG and chance.randrange(_LONG_EACH) == 0
    return Plan(
        seed=seed,
        kind=kind,
        way=chance.choice((LONG if is_long else SHORT)[kind]),
        target=chance.randrange(GATEWAYS),
        mails=chance.randint(_LEAST_MAILS, _MOST_MAILS),
        moment_s=chance.uniform(0, _MOST_MOMENT_S),
        hold_s=chance.uniform(*_LONGER_S) if is_long else chance.uniform(0, _MOST_HOLD_S),
    )
