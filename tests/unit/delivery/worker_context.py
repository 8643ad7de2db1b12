"""A context for parts of a delivery worker that are tested alone."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relaygw.delivery.context import WorkerContext
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.logs import text_log


def worker_context(store: Store, **more: Any) -> WorkerContext:
    """Return the context of worker `w`; what it spawns is not run."""
    values: dict[str, Any] = {
        "settings": Settings.model_validate({"mode": "sandbox"}),
        "observer": DeliveryObserver(text_log(io.StringIO())),
        "incarnation": "w",
        "threads": ThreadPoolExecutor(max_workers=2),
        "spawn": lambda work: work.close(),
    }
    return WorkerContext(store=store, **values | more)
