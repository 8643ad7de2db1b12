"""Lanes: the mail of one route, and which of its providers takes which. Pure, no I/O."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from relaygw.delivery.gate import Gate
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.mail.keys import packed
from relaygw.policy.router import provider_route
from relaygw.settings.model import Settings
from relaygw.settings.routes import Stream

WINDOW_PER_CONNECTION = 8
MIN_WINDOW = 4
MAX_WINDOW = 200
_MAX_UNFIT = 10_000


@dataclass(slots=True, eq=False)
class Lane:
    """The claimed deliveries of one route."""

    route: str
    stream: Stream
    gates: list[Gate]
    window_size: int = MIN_WINDOW
    window: deque[ClaimedDelivery] = field(default_factory=deque)
    turn: int = 0  # when it had its last one: they are counted
    is_claiming: bool = False
    emptied_at_s: float = float("-inf")  # when a claim last found no more
    may_have_more: bool = True  # False until a hint, a due retry or the next poll
    is_hinted: bool = True  # False: clients bring it nothing, the next poll is soon enough
    # by queue id: the providers that lack what a message needs, while another may have it
    unfit: dict[str, set[str]] = field(default_factory=dict)

    @property
    def wants_claim(self) -> bool:
        """True when the window runs low and the store may have something."""
        return (
            self.may_have_more and not self.is_claiming and len(self.window) * 2 <= self.window_size
        )

    def take(self, fresh: Sequence[ClaimedDelivery]) -> None:
        """Put claimed deliveries into the window, where clients take turns, each in its order."""
        if len({claimed.client_key for claimed in (*self.window, *fresh)}) <= 1:
            self.window.extend(fresh)
            return
        turns: Counter[str] = Counter()
        numbered = []
        for claimed in (*self.window, *fresh):
            turns[claimed.client_key] += 1
            numbered.append((turns[claimed.client_key], claimed))
        self.window = deque([claimed for _, claimed in sorted(numbered, key=itemgetter(0))])

    @property
    def has_choice(self) -> bool:
        """True when the route has several providers."""
        return len(self.gates) > 1

    @property
    def is_plain(self) -> bool:
        """True when the route's one provider takes all, and no mail is in doubt with another."""
        first, *others = self.gates
        if others or first.is_choosy:
            return False
        return {claimed.provider for claimed in self.window} <= {None, first.provider}

    def leads_to(self, gate: Gate, now_s: float) -> bool:
        """True when mail of the route would go through `gate` now, or some of it might."""
        if not self.has_choice or any(candidate.is_choosy for candidate in self.gates):
            return True
        before = self.gates[: self.gates.index(gate)]
        return all(candidate.is_down(now_s) for candidate in before)

    def place_for(self, gate: Gate, now_s: float) -> int | None:
        """Return where in the window the next delivery for `gate` lies."""
        if not (self.has_choice or gate.is_choosy):
            return 0 if self.window else None
        for place, claimed in enumerate(self.window):
            if self.gate_for(claimed, now_s) is gate:
                return place
        return None

    def gate_for(self, claimed: ClaimedDelivery, now_s: float) -> Gate | None:
        """Return the gate that a delivery goes through, or should wait for; None: see obstacle."""
        able = [g for g in self._allowed(claimed) if g.held_domain(claimed) is None]
        for gate in able:
            if not gate.is_down(now_s) or (gate.is_open(now_s) and not gate.in_flight):
                return gate
        return able[0] if able else None

    def obstacle(self, claimed: ClaimedDelivery) -> HoldCause | None:
        """Return why no provider may take a delivery, so that it has to be held."""
        allowed = self._allowed(claimed)
        if not allowed:
            if _is_bound(claimed):
                return HoldCause(HoldCode.LOST_PROVIDER, packed(claimed.provider or "", self.route))
            if not any(gate.may_send_as(claimed.sender) for gate in self.gates):
                return HoldCause(HoldCode.NO_SENDER, packed(self.route, claimed.sender))
            return HoldCause(HoldCode.OVER_QUOTA, packed(self.route, str(len(claimed.recipients))))
        refused = [gate.held_domain(claimed) for gate in allowed]
        if refused[0] is None or None in refused:
            return None
        return sender_refused(refused[0], (gate.provider for gate in allowed))

    def avoid(self, gate: Gate, claimed: ClaimedDelivery) -> None:
        """Let another provider take a message, if any may."""
        self.unfit.setdefault(claimed.queue_id, set()).add(gate.provider)
        if len(self.unfit) > _MAX_UNFIT:  # sent by another one long ago
            del self.unfit[next(iter(self.unfit))]

    def pass_by(self, gate: Gate, claimed: ClaimedDelivery, why: str) -> HoldCause | None:
        """Note that a provider cannot carry a message; return its hold, None if another may."""
        self.avoid(gate, claimed)
        if any(
            candidate.provider in self.unfit[claimed.queue_id]
            for candidate in self._allowed(claimed)[:1]
        ):
            del self.unfit[claimed.queue_id]  # once it is released all are asked again
            return HoldCause(HoldCode.NEEDS_8BITMIME, packed(self.route, why))
        return self.obstacle(claimed)

    def _allowed(self, claimed: ClaimedDelivery) -> list[Gate]:
        if _is_bound(claimed):
            return [gate for gate in self.gates if gate.provider == claimed.provider]
        able = [
            gate
            for gate in self.gates
            if gate.may_send_as(claimed.sender) and gate.allowance.fits_quota(claimed)
        ]
        # what is too large for all of them bounces at the first
        size = claimed.size_bytes
        able = [g for g in able if size <= (g.settings.max_message_size or size)] or able[:1]
        if self.unfit and (unfit := self.unfit.get(claimed.queue_id)):
            # where all of them are: as if none were
            able = [gate for gate in able if gate.provider not in unfit] or able
        return able


def _is_bound(claimed: ClaimedDelivery) -> bool:
    """True when a provider may have taken it already, so that no other may get it."""
    return bool(claimed.doubts or claimed.reclaims) and claimed.provider is not None


def clogging(lane: Lane, now_s: float) -> list[ClaimedDelivery]:
    """Return deliveries of a window that cannot go now, while another provider idles.

    Only where providers take different senders: the next claim should find mail of the others.
    """
    if not lane.has_choice or len(lane.window) * 2 <= lane.window_size:
        return []
    idle = [gate for gate in lane.gates if gate.has_room(lane.stream, now_s)]
    if not idle or any(lane.place_for(gate, now_s) is not None for gate in idle):
        return []
    return list(lane.window)[lane.window_size // 4 :]


def next_lane(gate: Gate, lanes: list[Lane], now_s: float) -> tuple[Lane, int] | None:
    """Return whose turn it is at a gate, and where: of one stream the lane that waits longest."""
    waiting = [lane for lane in lanes if lane.window and gate.has_room(lane.stream, now_s)]
    if len(waiting) > 1:
        waiting.sort(key=lambda lane: (lane.stream is not Stream.TRANSACTIONAL, lane.turn))
    for lane in waiting:
        place = lane.place_for(gate, now_s)
        if place is not None:
            return lane, place
    return None


def window_size(gates: Iterable[Gate]) -> int:
    """Return how many claimed deliveries of a route are kept at hand.

    No more than go in about a second: what another client brings meanwhile waits behind them.
    """
    size = 0
    for gate in gates:
        mine, rate = gate.settings.max_connections * WINDOW_PER_CONNECTION, gate.settings.rate
        size += mine if rate is None else min(mine, max(2, math.ceil(rate.per_s)))
    return max(MIN_WINDOW, min(MAX_WINDOW, size))


def build_lanes(settings: Settings) -> tuple[list[Lane], dict[str, Gate]]:
    """Make a lane for each route, transactional ones first, and the gates they lead to.

    Every provider has lanes of its own, too, for mail that an operator moved to it.
    """
    gates = {
        name: Gate(provider=name, settings=provider)
        for name, provider in settings.providers.items()
    }
    routes = []
    for route in settings.routes:
        mine = [gates[name] for name in route.providers]
        size = window_size(mine)
        routes.append(Lane(route=route.name, stream=route.stream, gates=mine, window_size=size))
    for gate in gates.values():
        own = [lane for lane in routes if gate in lane.gates]
        gate.place(
            is_shared=any(lane.stream is Stream.TRANSACTIONAL for lane in own),
            has_alternative=any(lane.has_choice for lane in own),
        )
    asides = [
        Lane(
            route=provider_route(name, stream),
            stream=stream,
            gates=[gate],
            window_size=window_size([gate]),
            may_have_more=False,
            is_hinted=False,
        )
        for name, gate in gates.items()
        for stream in Stream
    ]
    lanes = sorted((*routes, *asides), key=lambda lane: lane.stream is not Stream.TRANSACTIONAL)
    return lanes, gates
