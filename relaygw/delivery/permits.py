"""Connections that the gates of a worker may have, out of those of all workers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import Gate
from relaygw.delivery.leases import Looks
from relaygw.errors import StoreUnavailable


class Permits:
    """How many connections the gates of a worker may have.

    One call at a time for a limit group; after one that failed, and each minute, they are counted
    first: a standby that took over may have others in its rows.
    """

    def __init__(self, context: WorkerContext, gates: Iterable[Gate]) -> None:
        self._context = context
        self._limits, self._incarnation = context.store.limits, context.incarnation
        self._gates_of: defaultdict[str, list[Gate]] = defaultdict(list)
        for gate in gates:
            self._gates_of[gate.limit_group].append(gate)
        self._turns = {limit_group: asyncio.Lock() for limit_group in self._gates_of}
        self._counts = Looks(context.waits.unknown_leases_s)  # by limit group

    async def acquire(self, gate: Gate, wanted: int) -> None:
        """Get up to `wanted` more for a gate; raises StoreUnavailable."""
        async with self._turn(gate.limit_group):
            leased = await self._context.call(
                self._limits.acquire_permits,
                gate.limit_group,
                wanted=wanted,
                limit=gate.max_connections(),
                incarnation=self._incarnation,
            )
            gate.add_permits(leased)

    async def return_spare(self, gate: Gate, connections: int, *, is_sharing: bool) -> None:
        """Give back those that no connection uses, and those above what the provider bears."""

        def spare() -> int:
            used = max(gate.in_flight, connections)
            wanted = used if is_sharing else max(used, gate.max_connections())
            return gate.permits - wanted

        if gate.is_asking or self._turns[gate.limit_group].locked():
            return
        if spare() <= 0 and not self._counts.are_due(gate.limit_group):
            return
        with self._context.noting():
            async with self._turn(gate.limit_group):
                count = spare()
                if count > 0:
                    gate.add_permits(-count)  # nothing begins with them meanwhile
                    await self._context.call(
                        self._limits.release_permits,
                        gate.limit_group,
                        count=count,
                        incarnation=self._incarnation,
                    )

    @asynccontextmanager
    async def _turn(self, limit_group: str) -> AsyncIterator[None]:
        async with self._turns[limit_group]:
            try:
                if self._counts.are_due(limit_group):
                    held = await self._context.call(
                        self._limits.permits_held, limit_group, incarnation=self._incarnation
                    )
                    self._counts.done(limit_group)
                    share_out(self._gates_of[limit_group], held)
                yield
            except StoreUnavailable:
                self._counts.soon(limit_group)
                raise


def share_out(gates: Sequence[Gate], held: int) -> None:
    """Let the permits of the gates of one limit group add up to those `held`.

    The gates that use theirs least lose what is missing; the first of them gets what is more.
    """
    surplus = held - sum(gate.permits for gate in gates)
    for gate in sorted(gates, key=lambda gate: gate.in_flight - gate.permits):
        change = max(surplus, -gate.permits)
        gate.add_permits(change)
        surplus -= change
