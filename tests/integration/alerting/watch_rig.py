"""A watch of a store at a pace for tests, and a channel that keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relaygw.alerting.notice import Notice, NotSent
from relaygw.alerting.notifier import Notifier, Receiver
from relaygw.alerting.watch import Watch
from relaygw.settings.model import Settings, fingerprint
from relaygw.store.store import Store
from tests.builders import instance

PATIENCE_S = 60.0
PACE = {"look_s": 0.02, "queue_look_s": 0.05}


@dataclass
class Recording:
    """A channel that keeps what it was told; refuses as often as it is told to, or hangs."""

    notices: list[Notice] = field(default_factory=list)
    refusals: int = 0
    is_hanging: bool = False
    asked: int = 0

    async def send(self, notice: Notice) -> str:
        self.asked += 1
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.refusals:
            self.refusals -= 1
            raise NotSent("not now")
        self.notices.append(notice)
        return "taken"

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(one.incident.key, "over" if one.is_over else "begun") for one in self.notices]


def settings(**rules: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "production",
            "hostname": rules.pop("hostname", "gw.test"),
            "listeners": [{"bind": "127.0.0.1:25"}],
            "providers": {name: {"host": "smtp.example.com"} for name in ("main", "spare")},
            "routes": [{"name": "default", "providers": ["main", "spare"]}],
            "maildrop": {"path": rules.pop("maildrop", None)},
            "alert_rules": {"lasting": "100ms", "disk_free": "0%", **rules},
        }
    )


@asynccontextmanager
async def watching(
    store: Store,
    directory: Path,
    *channels: Recording,
    incarnation: str,
    notes: list[str] | None = None,
    rules: dict[str, Any] | None = None,
    on: frozenset[str] = frozenset(),
) -> AsyncIterator[Watch]:
    """Run a watch as its worker would; it is buried at its end."""
    configured = settings(**(rules or {}))
    mine = fingerprint(configured)
    here = replace(instance(incarnation), name=configured.hostname, fingerprint=mine)
    await asyncio.to_thread(store.instances.register, here)
    note = (notes if notes is not None else []).append
    receivers = [Receiver(f"c{n}", channel, on) for n, channel in enumerate(channels)]
    watch = Watch(
        settings=configured,
        store=store,
        incarnation=incarnation,
        state_dir=directory,
        notifier=Notifier(configured, receivers, store, note, retry_ladder_s=(0.05,)),
        note=note,
        **PACE,
    )
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(store.instances.bury, incarnation)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.02)
