"""The operator of a run: holds, deletes, moves, retries and expires queued mail, and lets go of it.

By the same table of actions as the command line, on a store of its own, while workers send.
"""

from __future__ import annotations

import asyncio
import random

from bench.simulation.loop import Machine, Process
from bench.simulation.world import World
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.hold import SEVERAL, HoldCode
from relaygw.operations.queue_actions import (
    ACTIONS,
    DELETE,
    EXPIRE,
    HOLD,
    RELEASE,
    UNDELETE,
    Order,
    QueueAction,
    change_queued,
)
from relaygw.roles import store_rules
from relaygw.settings.model import Settings

_UNDOES = {HOLD: RELEASE, DELETE: UNDELETE}
_AGAIN_S = 2.0
_IDS = "SELECT queue_id FROM message ORDER BY queue_id"
_PUT_ASIDE = f"""
    SELECT DISTINCT queue_id FROM delivery
    WHERE state = 'deleted' OR state = 'held'
        AND (hold_code = '{HoldCode.OPERATOR.value}' OR reason LIKE '{SEVERAL}%')
    ORDER BY queue_id
"""
_EXPIRED = "SELECT address FROM recipient WHERE state = 'expired' ORDER BY queue_id, rcpt_no"


class Operator:
    """Somebody at a terminal of his own."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._process = Process("operator", Machine("operator"))
        self._chance = random.Random(f"operator {world.seed}")
        self._store = world.store(self._process, store_rules(settings))
        self._providers = tuple(settings.providers)

    def act(self, lasts_s: float) -> None:
        """Change some of the mail, and undo that after a while where it can be undone."""
        ids = [one for (one,) in self._world.queue.rows(_IDS) if self._chance.random() < 0.6]
        action = self._chance.choice(tuple(ACTIONS.values()))
        self._world.loop.spawn(self._process, self._change(action, ids, lasts_s))

    def let_go(self) -> None:
        """Release and restore what was put aside, and look again until nothing is."""
        ids = [one for (one,) in self._world.queue.rows(_PUT_ASIDE)]
        if ids:
            self._world.loop.spawn(self._process, self._let_go(ids))
        self._world.loop.at(self._process, _AGAIN_S, self.let_go)

    async def _let_go(self, ids: list[str]) -> None:
        for action in (UNDELETE, RELEASE):
            await self._change(action, ids, None)

    async def _change(self, action: QueueAction, ids: list[str], lasts_s: float | None) -> None:
        world = self._world
        order = Order(actor="operator", provider=self._chance.choice(self._providers))
        world.history.info("operator", action.name, messages=tuple(ids))
        try:
            result = await asyncio.to_thread(
                change_queued, self._store, action, ids, order, now_ms=clock_ms()
            )
        except StoreUnavailable as error:
            world.log("operator", f"{action.name}: {error}")
        else:
            world.history.info("operator", f"{action.name} done", messages=result.changed)
        if action is EXPIRE:
            world.expired.update(address for (address,) in world.queue.rows(_EXPIRED))
        if lasts_s is not None and action in _UNDOES:
            await asyncio.sleep(lasts_s)
            await self._change(_UNDOES[action], ids, None)
