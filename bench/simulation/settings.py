"""The settings of a run's gateways, and what is shortened so that a run ends soon."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from bench.simulation.provider import KEY_HEADER
from relaygw.delivery import gate, holds, outcome, scheduler, worker
from relaygw.policy import retry
from relaygw.settings.model import Settings

ALLOWED = "@allowed.test"
OTHER_SENDERS = "@other.test"
BULK = "bulk"  # the route of these, where there is one
ADDRESSES = {"p": "192.0.2.1", "q": "192.0.2.2"}  # of providers: nobody looks up a name
SHORTENED: dict[str, tuple[Any, str, Any]] = {
    "mail in doubt": (retry, "DOUBT_LADDER_S", (5.0, 20.0)),
    "mail in doubt that has a key": (retry, "KEYED_LADDER_S", (1.0, 5.0, 15.0, 30.0)),
    "a provider that takes nothing": (gate, "THROTTLE_LADDER_S", (5.0, 10.0, 20.0)),
    "mail over the rest of a quota": (scheduler, "QUOTA_SLICE_S", 60.0),
    "a held provider": (holds, "PROBE_LADDER_S", (20.0,)),
    "looks at the queue": (worker, "POLL_S", 2.5),
    "mail that cannot be processed": (outcome, "_POISON_WAIT_S", 15),
}
"""Waits that are others in a run, so that it ends soon: module, name, and what they are there."""


def shorten() -> None:
    """Change them, in this process for good."""
    for module, name, value in SHORTENED.values():
        setattr(module, name, value)


@lru_cache(maxsize=512)
def settings_of(
    *,
    is_shared: bool,
    mode: str,
    route: str,
    providers: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
) -> Settings:
    """Return settings; `options` are of the providers. Kept, for to read them takes long."""
    of_provider = dict(options)
    final_reply = of_provider.pop("patience", "15s")
    if of_provider.pop("has_keys", False):
        of_provider["idempotency"] = {"header": KEY_HEADER, "life": "24h"}
    bulk = []
    if of_provider.pop("has_bulk", False):
        of_bulk = {"sender": [OTHER_SENDERS], "stream": "promotional"}
        bulk.append({"name": BULK, "providers": list(providers), **of_bulk})
    url = "postgresql://queue.test/queue" if is_shared else "sqlite:////run/queue.db"
    return Settings.model_validate(
        {
            "mode": mode,
            "hostname": "gw.test",
            "queue": {"url": url},
            "recipients": {"allow": [ALLOWED]} if mode == "staging" else {},
            "providers": {
                name: {
                    "host": ADDRESSES[name],
                    "port": 25,
                    "tls": "none",
                    "timeouts": {"connect": "5s", "command": "10s", "final_reply": final_reply},
                    "idle_close": "10s",
                    **of_provider,
                }
                for name in providers
            },
            "routes": [*bulk, {"name": route, "providers": list(providers)}],
            "retry": {"first": "1s", "max": "8s"},
        }
    )
