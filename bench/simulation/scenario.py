"""What a seed decides before a run: mail, gateways, providers, faults and when they strike."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from bench.simulation.provider import MOODS

FAULTS_UNTIL_S = 18.0
KINDS = (
    "kill",
    "kill at write",
    "kill front",
    "stall",
    "store away",
    "store slow",
    "clock",
    "reload",
    "mode",
    "stop",
    "rename",
)
"""What `_faults` draws of; failovers and operators come by themselves."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One message that a client sends."""

    at_s: float
    name: str
    recipients: tuple[str, ...]
    size: int
    sender: str = "shop@shop.test"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, or that an operator does."""

    at_s: float
    kind: str
    lasts_s: float = 0.0
    after: str = ""  # strikes shortly after the next of such: mail | dot | take


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which a provider is in another mood."""

    provider: str
    at_s: float
    lasts_s: float
    mood: str


@dataclass
class Scenario:
    """All of it."""

    seed: int
    is_shared: bool = False
    workers: int = 1
    providers: tuple[str, ...] = ("p",)
    options: dict[str, Any] = field(default_factory=dict)
    pipelines: bool = True
    latency_s: tuple[float, float] = (0.0005, 0.01)
    is_hinted: bool = True
    mail: list[Mail] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    spells: list[Spell] = field(default_factory=list)

    def ends_s(self) -> float:
        """Return when nothing goes wrong any more."""
        last_s = [mail.at_s + 2 for mail in self.mail]
        last_s += [one.at_s + one.lasts_s + 2 for one in self.faults]
        last_s += [one.at_s + one.lasts_s + 2 for one in self.spells]
        return min(max(last_s), 45.0)


def draw(seed: int) -> Scenario:
    """Return what a seed decides."""
    chance = random.Random(f"scenario {seed}")
    made = Scenario(seed, is_shared=chance.random() < 0.5)
    made.workers = chance.choice((1, 1, 2, 2, 3)) if made.is_shared else chance.choice((1, 1, 2))
    made.providers = chance.choice((("p",), ("p",), ("p", "q")))
    made.options = _options(chance)
    made.pipelines = chance.random() < 0.85
    made.latency_s = chance.choice(((0.0005, 0.01), (0.0005, 0.01), (0.005, 0.3), (0.05, 2.0)))
    made.is_hinted = chance.random() < 0.8
    made.mail = _mail(chance)
    if chance.random() < 0.93:
        made.faults = _faults(chance)
        made.spells = _spells(chance, made.providers)
    if chance.random() < 0.35:
        _THEMES[chance.randrange(len(_THEMES))](made, chance)
    _add_refusals(made, random.Random(f"refusals {seed}"))
    _add_storms(made, random.Random(f"storms {seed}"))
    _add_operator(made, random.Random(f"operator {seed}"))
    return made


# --- what hardly ever comes together by chance


def _ended_in_doubt(made: Scenario, chance: random.Random) -> None:
    """A worker is told to end while answers are lost, and waits for them longer than it may."""
    made.options["patience"] = "60s"
    made.spells += [Spell(name, 0.0, 20.0, "loses answers") for name in made.providers]
    kind = chance.choice(("stop", "reload", "rename", "mode"))
    made.faults.append(Fault(0.1, kind, 3.0, "take"))


def _asleep(made: Scenario, chance: random.Random) -> None:
    """A worker of several sleeps longer than its leases, in the middle of its mail."""
    made.is_shared, made.workers = True, max(2, made.workers)
    made.faults.append(Fault(0.1, "stall", 30.0, chance.choice(("mail", "mail", "dot", "take"))))


def _in_parts(made: Scenario, chance: random.Random) -> None:
    """Mail goes in parts, and something happens between them."""
    made.options["max_recipients"] = chance.choice((1, 2))
    names = tuple(f"r9-{number}@cust.test" for number in range(chance.randint(3, 6)))
    made.mail.append(Mail(0.6, "m9", names, 200))
    kind = chance.choice(("kill", "stop", "reload", "store away", "stall", "mode"))
    made.faults.append(Fault(0.1, kind, chance.choice((1.0, 8.0, 30.0)), "take"))


def _clock_set(made: Scenario, chance: random.Random) -> None:
    """A clock is set while mail waits for its next try."""
    made.spells += [Spell(name, 0.0, 6.0, "slower") for name in made.providers]
    made.faults += [Fault(2.0 + chance.random() * 4, "clock") for _ in range(2)]


def _silent_store(made: Scenario, chance: random.Random) -> None:
    """The store goes away in the middle of the mail."""
    made.faults.append(Fault(0.1, "store away", chance.choice((0.2, 1.0, 8.0)), "take"))
    made.faults.append(Fault(3.0, "kill", 1.0, "take"))


_THEMES = (_ended_in_doubt, _asleep, _in_parts, _clock_set, _silent_store)


def _add_refusals(made: Scenario, chance: random.Random) -> None:
    """Let a provider refuse a sender, the account, or a content; all else is drawn without it."""
    if chance.random() < 0.25:
        made.mail = [
            replace(mail, sender="shop@other.test") if number % 2 else mail
            for number, mail in enumerate(made.mail)
        ]
        if chance.random() < 0.7:
            made.spells.append(_refusal(made, chance, "refuses a sender"))
        if chance.random() < 0.4:
            made.options["has_bulk"] = True
    if chance.random() < 0.15:
        login = {"username": "shop", "password": "plain:key", "auth": "plain"}
        made.options |= login | {"auth_without_tls": True}
        made.spells.append(_refusal(made, chance, "refuses the key"))
    if chance.random() < 0.1:
        made.spells.append(_refusal(made, chance, "is over quota"))
    if chance.random() < 0.1:
        made.spells.append(_refusal(made, chance, "limits the rate"))
    if chance.random() < 0.1:
        people = ("r8-0@spam.test", "r8-1@cust.test", "r8-2@spam.test")[: chance.randint(1, 3)]
        made.mail.append(Mail(0.7 + chance.random() * 4, "m8", people, 200))


def _add_storms(made: Scenario, chance: random.Random) -> None:
    """Let what is rare by itself come together; all else is drawn without it."""
    if chance.random() < 0.08:
        made.options["has_keys"] = True
        made.spells.append(Spell(chance.choice(made.providers), 0.3, 8.0, "loses answers"))
    if made.is_shared and chance.random() < 0.1:
        lag_s = chance.choice((0.02, 0.2, 1.0))
        made.faults.append(Fault(0.6 + chance.random() * 3, "failover", lag_s))
    storm = chance.random()
    if storm < 0.05:  # a clock is set while outcomes wait for the store
        made.spells += [Spell(name, 0.0, 8.0, "slower") for name in made.providers]
        begin_s = 0.6 + chance.random() * 2
        made.faults.append(Fault(begin_s, "store away", 4.0))
        made.faults.append(Fault(begin_s + 0.5 + chance.random(), "clock"))
    elif storm < 0.1:  # mail is claimed anew while its outcome waits for an answer of the store
        made.spells += [Spell(name, 0.0, 20.0, "slower") for name in made.providers]
        made.faults.append(Fault(0.1, "answers lost", 18.0, "mail"))
        made.latency_s = (0.05, 0.5)
    elif storm < 0.12:  # a held provider is not reached
        made.spells += [Spell(name, 0.3, 10.0, "is over quota") for name in made.providers]
        made.spells += [Spell(name, 10.5, 20.0, "resets") for name in made.providers]


def _add_operator(made: Scenario, chance: random.Random) -> None:
    """Let somebody change queued mail meanwhile, but where that would keep mail from its storm."""
    is_calm = not any(fault.kind == "answers lost" for fault in made.faults)
    if is_calm and chance.random() < 0.1:
        for _ in range(chance.randint(1, 3)):
            made.faults.append(Fault(0.6 + chance.random() * 8, "operator", chance.random() * 6))


def _refusal(made: Scenario, chance: random.Random, mood: str) -> Spell:
    at_s, lasts_s = chance.random() * 4, chance.choice((2.0, 8.0, 20.0))
    return Spell(chance.choice(made.providers), at_s, lasts_s, mood)


def _options(chance: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"max_connections": chance.choice((1, 1, 2, 3))}
    if chance.random() < 0.4:
        options["max_recipients"] = chance.choice((1, 2))
    if chance.random() < 0.5:
        options["chain_transactions"] = chance.choice((True, False))
    if chance.random() < 0.2:
        options["rate"] = chance.choice(("1/s", "4/s", "30/m"))
    elif chance.random() < 0.2:
        options["daily_quota"] = chance.choice((4, 8, 40))
    if chance.random() < 0.3:
        options["patience"] = "60s"
    if chance.random() < 0.2:
        options["max_messages_per_connection"] = 2
    return options


def _mail(chance: random.Random) -> list[Mail]:
    mail = []
    at_s = 0.5
    is_burst = chance.random() < 0.4
    for number in range(chance.randint(2, 8)):
        at_s += chance.random() * (0.01 if is_burst else 2.5)
        people = chance.choice((1, 1, 1, 2, 3, 5))
        names = []
        for place in range(people):
            kind = chance.random()
            prefix = "no-" if kind < 0.08 else "r"
            domain = "allowed.test" if kind > 0.75 else "cust.test"
            names.append(f"{prefix}{number}-{place}@{domain}")
        size = 140_000 if chance.random() < 0.08 else 200
        mail.append(Mail(at_s, f"m{number}", tuple(names), size))
    return mail


def _faults(chance: random.Random) -> list[Fault]:
    faults = []
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4))):
        kind = chance.choice(KINDS)
        at_s = chance.random() ** 2 * FAULTS_UNTIL_S
        lasts_s = chance.choice((0.2, 1.0, 3.0, 8.0, 25.0))
        after = chance.choice(("", "mail", "dot", "dot", "take", "take"))
        faults.append(Fault(at_s, kind, lasts_s, after))
    return sorted(faults, key=lambda one: one.at_s)


def _spells(chance: random.Random, providers: tuple[str, ...]) -> list[Spell]:
    return [
        Spell(
            chance.choice(providers),
            chance.random() ** 2 * FAULTS_UNTIL_S,
            chance.choice((1.0, 3.0, 8.0, 20.0)),
            MOODS[chance.randrange(len(MOODS))].name,
        )
        for _ in range(chance.choice((0, 1, 1, 2, 3)))
    ]
