"""The permits of one worker: how many connections it may have, of those that all workers share.

Calls about the permits of a limit group are made one at a time. When one fails its answer may be
what was lost, so before the next they are counted: one too few here would be taken for as long as
this worker lives, one too many would be a connection above the limit.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from relaygw.delivery.gate import Gate
from relaygw.delivery.store_calls import in_thread
from relaygw.errors import StoreUnavailable
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import Store


class Permits:
    """Gets permits for the gates of a worker and gives them back."""

    def __init__(
        self,
        store: Store,
        log: MailLog,
        *,
        incarnation: str,
        gates: Iterable[Gate],
        threads: ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._log = log
        self._incarnation = incarnation
        self._threads = threads
        self._gates_of: defaultdict[str, list[Gate]] = defaultdict(list)
        for gate in gates:
            self._gates_of[gate.limit_group].append(gate)
        self._turns = {limit_group: asyncio.Lock() for limit_group in self._gates_of}
        self._unsure: set[str] = set()  # limit groups whose permits have to be counted

    async def acquire(self, gate: Gate, wanted: int) -> None:
        """Get up to `wanted` more for a gate; raises StoreUnavailable."""
        async with self._turn(gate.limit_group):
            gate.permits += await in_thread(
                self._threads,
                self._store.acquire_permits,
                gate.limit_group,
                wanted=wanted,
                limit=gate.max_connections(),
                incarnation=self._incarnation,
            )

    async def return_spare(self, gate: Gate, connections: int, *, is_sharing: bool) -> None:
        """Give back those that no connection uses, and those above what the provider bears."""

        def spare() -> int:
            used = max(gate.in_flight, connections)
            wanted = used if is_sharing else max(used, gate.max_connections())
            return gate.permits - wanted

        if gate.is_asking or self._turns[gate.limit_group].locked():
            return
        if spare() <= 0 and gate.limit_group not in self._unsure:
            return
        try:
            async with self._turn(gate.limit_group):
                count = spare()
                if count > 0:
                    await self._release(gate, count)
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {error}")

    async def _release(self, gate: Gate, count: int) -> None:
        gate.permits -= count  # nothing begins with them meanwhile
        await in_thread(
            self._threads,
            self._store.release_permits,
            gate.limit_group,
            count=count,
            incarnation=self._incarnation,
        )

    @asynccontextmanager
    async def _turn(self, limit_group: str) -> AsyncIterator[None]:
        async with self._turns[limit_group]:
            try:
                if limit_group in self._unsure:
                    await self._count(limit_group)
                yield
            except StoreUnavailable:
                self._unsure.add(limit_group)
                raise

    async def _count(self, limit_group: str) -> None:
        held = await in_thread(
            self._threads, self._store.permits_held, limit_group, incarnation=self._incarnation
        )
        self._unsure.discard(limit_group)
        share_out(self._gates_of[limit_group], held)


def share_out(gates: Sequence[Gate], held: int) -> None:
    """Let the permits of the gates of one limit group add up to those `held`.

    What is missing is taken from the gates that use theirs least. What is more goes to the first
    of these, and back to the store if that has no use for it.
    """
    surplus = held - sum(gate.permits for gate in gates)
    for gate in sorted(gates, key=lambda gate: gate.in_flight - gate.permits):
        change = max(surplus, -gate.permits)
        gate.permits += change
        surplus -= change
