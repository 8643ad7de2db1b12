"""What all that follows a provider's 250 costs: throughput with all of it on against all off.

On are notices to senders, a listener for events with the mark in each mail, suppression, a webhook
for each delivered mail to a receiver on this machine, and an idempotency key in each mail.
"""

from __future__ import annotations

import base64
from typing import Any

from bench.rig.ports import free_port
from bench.standing.figure import Result
from bench.standing.setting import Setting
from bench.standing.shop import SECRET, Shop
from bench.standing.side_by_side import Kind, shares, side_by_side, spread

WITHOUT_LOGIN = ("-m", "bench.rig.without_login")
NO_LIMIT = {"rate": "100000/s"}
"""The preset has a rate, which is less than a bench sends: each kind has one that is no limit."""
_WITHOUT_KEY = {"preset": "resend", "idempotency": "off"}
"""The same preset: what else it brings is no feedback, and on both sides."""
_OFF: dict[str, Any] = {"suppression": {"transactional": "off", "promotional": "off"}}


def all_feedback(setting: Setting) -> Result:
    """Throughput with notices, events, suppression, webhooks and keys against none of them."""
    with Shop() as shop:
        on_provider, on = all_on(shop.url)
        turns = side_by_side(
            setting,
            {
                "off": Kind(provider=NO_LIMIT | _WITHOUT_KEY, sections=_OFF, program=WITHOUT_LOGIN),
                "on": Kind(
                    provider=NO_LIMIT | on_provider,
                    sections=on,
                    program=WITHOUT_LOGIN,
                    told=lambda: shop.events,
                ),
            },
        )
    return Result(shares(turns, "on", "off", at_least=0.95, aim=0.98), spread(turns))


def all_on(shop_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is on at the provider, and in the rest of the configuration."""
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    of_provider = {
        "preset": "resend",  # its mark and its key
        "events": {"secret": f"plain:{secret}"},
    }
    sections: dict[str, Any] = {
        "bounces": {"to": "sender"},
        "retry": {"warn_after": "4h"},
        "events": {"bind": f"127.0.0.1:{free_port()}"},
        "suppression": {"transactional": "block", "promotional": "block"},
        "webhooks": [{"url": shop_url, "secret": SECRET, "on": ["delivered"]}],
    }
    return of_provider, sections
