"""Captured mail released: who gets it, by which route, and who does not, on a real store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import ClaimedDelivery, NewDelivery, NewRecipient, Source
from relaygw.mail.state import CaptureCode, RecipientState
from relaygw.operations.captured import (
    ReleaseRequest,
    ReleaseResult,
    plan_release,
    release_captured,
)
from relaygw.operations.queue_actions import BATCH_MESSAGES
from relaygw.policy.recipients import Refusal
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.release import Release
from relaygw.store.store import Store
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted
from tests.queues import make_queue, queue_with_worker

LATER_MS = NOW_MS + 60_000
DEV, QA, CUSTOMER, OTHER = "dev@agency.test", "x@qa.test", "b@cust.test", "c@cust.test"
ALLOW = [DEV, "@qa.test"]


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "staging",
            "providers": {"p": {"host": "smtp.example.com"}, "q": {"host": "smtp.example.org"}},
            "routes": [
                {
                    "name": "promo",
                    "sender": ["@promo.shop.test"],
                    "stream": "promotional",
                    "providers": ["q"],
                },
                {"name": "campaign", "header": {"X-Campaign": "*"}, "providers": ["q"]},
                {"name": "default", "providers": ["p"]},
            ],
            "recipients": {"allow": ALLOW, "block": ["@spam.test"]},
            **sections,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = queue_with_worker(tmp_path)
    yield store
    store.close()


def add(store: Store, *recipients: str | NewRecipient, **more: Any) -> str:
    """Put a message into the sandbox, captured for `recipients` unless they say otherwise."""
    entries = [
        NewRecipient(address=one, state=RecipientState.CAPTURED, reason="staging")
        if isinstance(one, str)
        else one
        for one in recipients
    ]
    message = accepted(*entries, **{"mode": "staging", **more})
    store.intake.accept_batch([message])
    return message.queue_id


def release(
    store: Store,
    ids: Sequence[str] | str,
    *,
    to: str | None = None,
    is_admin: bool = False,
    configuration: Settings | None = None,
    **more: Any,
) -> ReleaseResult:
    terms = {name: more.pop(name) for name in ("anyone", "only_for", "confirmed") if name in more}
    return release_captured(
        store,
        configuration or settings(),
        [ids] if isinstance(ids, str) else ids,
        ReleaseRequest(to=to, is_admin=is_admin, **terms),
        actor="ann",
        now_ms=LATER_MS,
        **more,
    )


def claimed(store: Store, route: str = "default") -> list[ClaimedDelivery]:
    return store.leases.claim(route, limit=100, incarnation="w", now_ms=LATER_MS)


def envelopes(store: Store, route: str = "default") -> list[tuple[str | None, list[str]]]:
    """Take what is due; return the marks and the addresses."""
    return [
        (one.released, [who.address for who in one.recipients]) for one in claimed(store, route)
    ]


def reasons(result: ReleaseResult) -> dict[str, Refusal]:
    return {one.address: one.refusal for one in result.refused}


# --- who gets it --------------------------------------------------------------------------


def test_the_one_it_was_captured_for_gets_it_when_the_list_has_it_by_now(
    store: Store,
) -> None:
    queue_id = add(store, DEV)
    result = release(store, queue_id)
    assert result.changed == (queue_id,)
    (delivery,) = claimed(store)
    (recipient,) = delivery.recipients
    assert (recipient.address, recipient.original) == (DEV, None)
    assert (delivery.released, recipient.dsn_notify) == ("allowed", "NEVER")


def test_somebody_else_on_the_list_gets_it(store: Store) -> None:
    queue_id = add(store, CUSTOMER, OTHER)
    result = release(store, queue_id, to=QA)
    assert [(one.captured, one.address) for one in result.copies] == [(CUSTOMER, QA)]
    (delivery,) = claimed(store)
    assert [(one.address, one.original) for one in delivery.recipients] == [(QA, CUSTOMER)]


@pytest.mark.parametrize("sign", ["\u202e", "\u200b", "\u00ad", "\u2066"])
def test_no_address_is_named_with_what_nobody_sees(store: Store, sign: str) -> None:
    queue_id = add(store, f"d{sign}ev@qa.test")
    (refused,) = release(store, queue_id, to=f"x{sign}y@qa.test").refused
    assert refused.refusal is Refusal.INVALID
    assert f"it has an invisible character, U+{ord(sign):04X}" in refused.why
    assert len(release(store, queue_id).copies) == 1  # as it came by SMTP


def test_nobody_else_gets_it(store: Store) -> None:
    queue_id = add(store, CUSTOMER)
    for to in (None, OTHER, "x%cust.test@qa.test"):
        result = release(store, queue_id, to=to)
        assert reasons(result) == {to or CUSTOMER: Refusal.OUTSIDE}
        assert (result.changed, result.left) == ((), ())
    assert envelopes(store) == []
    assert store.audit.entries(limit=9) == []


@pytest.mark.parametrize(
    ("is_admin", "anyone", "confirmed", "remedy"),
    [
        (False, True, None, "only an admin may"),
        (True, False, None, "use --anyone"),
        (True, True, [OTHER], "not among the addresses that were confirmed"),
    ],
    ids=["no admin", "not asked for", "not confirmed"],
)
def test_outside_of_the_list_takes_an_admin_who_says_so(
    store: Store, is_admin: bool, anyone: bool, confirmed: list[str] | None, remedy: str
) -> None:
    queue_id = add(store, CUSTOMER)
    result = release(store, queue_id, is_admin=is_admin, anyone=anyone, confirmed=confirmed)
    assert reasons(result) == {CUSTOMER: Refusal.OUTSIDE}
    assert remedy in result.refused[0].why
    assert envelopes(store) == []


def test_an_admin_reaches_anyone_but_the_block_list(store: Store) -> None:
    queue_id = add(store, CUSTOMER, "x@spam.test")
    result = release(store, queue_id, is_admin=True, anyone=True)
    assert result.outside == (CUSTOMER,)
    assert reasons(result) == {"x@spam.test": Refusal.BLOCKED}
    assert envelopes(store) == [("anyone", [CUSTOMER])]


def test_anyone_for_one_opens_nothing_for_the_others(store: Store) -> None:
    queue_id = add(store, CUSTOMER, DEV, OTHER)
    result = release(store, queue_id, is_admin=True, anyone=True, confirmed=[CUSTOMER])
    assert reasons(result) == {OTHER: Refusal.OUTSIDE}
    # a delivery of its own: who leaves the list before the attempt is held
    assert sorted(envelopes(store)) == [("allowed", [DEV]), ("anyone", [CUSTOMER])]


def test_what_was_confirmed_is_that_very_address(store: Store) -> None:
    queue_id = add(store, CUSTOMER)
    for confirmed in ([], ["cust.test"], ["@cust.test"], ["xb@cust.test"]):
        result = release(store, queue_id, is_admin=True, anyone=True, confirmed=confirmed)
        assert reasons(result) == {CUSTOMER: Refusal.OUTSIDE}
    assert envelopes(store) == []


def test_only_what_was_captured_for_the_named_ones(store: Store) -> None:
    queue_id = add(store, CUSTOMER, OTHER, DEV)
    confirmed: dict[str, Any] = {"is_admin": True, "anyone": True}
    release(store, queue_id, only_for=["B@CUST.test"], **confirmed)
    assert envelopes(store) == [("anyone", [CUSTOMER])]
    (left,) = release(store, queue_id, only_for=["d@cust.test"], **confirmed).left
    assert left.why == "it was not captured for d@cust.test"


def test_only_captured_recipients_are_meant(store: Store) -> None:
    blocked = NewRecipient(address=QA, state=RecipientState.BLOCKED)
    sent = NewRecipient(address="y@qa.test")
    queue_id = add(store, DEV, blocked, sent)
    assert [one.address for one in release(store, queue_id).copies] == [DEV]


def test_an_address_that_stands_twice_gets_it_once(store: Store) -> None:
    queue_id = add(store, DEV, "Dev@agency.test")
    assert [one.address for one in release(store, queue_id).copies] == [DEV]


# --- the address that is used -------------------------------------------------------------


def test_the_rewritten_address_counts_and_not_the_given_one(store: Store) -> None:
    rewritten = NewRecipient(
        address=CUSTOMER, original=DEV, state=RecipientState.CAPTURED, reason="staging"
    )
    queue_id = add(store, rewritten)
    assert reasons(release(store, queue_id)) == {CUSTOMER: Refusal.OUTSIDE}


def test_a_target_is_neither_rewritten_nor_redirected(store: Store) -> None:
    now = settings(
        rewrite={"recipients": {DEV: CUSTOMER, CUSTOMER: DEV}, "default_domain": "qa.test"},
        recipients={"allow": ALLOW, "refused": f"redirect:{DEV}"},
    )
    queue_id = add(store, CUSTOMER)
    assert reasons(release(store, queue_id, configuration=now)) == {CUSTOMER: Refusal.OUTSIDE}
    assert reasons(release(store, queue_id, to="root", configuration=now)) == {
        "root": Refusal.INVALID
    }
    release(store, queue_id, to=DEV, configuration=now)
    assert envelopes(store) == [("allowed", [DEV])]


@pytest.mark.parametrize("shown", ["root", "a b@qa.test", "a\\nb@qa.test", '"a\\x00b"@qa.test'])
def test_what_was_captured_as_no_address_needs_another_one(store: Store, shown: str) -> None:
    reason = (
        "no domain" if shown == "root" else CaptureCode.INVALID_ADDRESS.sentence(": bad local part")
    )
    queue_id = add(store, NewRecipient(address=shown, state=RecipientState.CAPTURED, reason=reason))
    result = release(store, queue_id, is_admin=True, anyone=True)
    assert reasons(result) == {shown: Refusal.INVALID}
    assert "is not an address that can receive mail" in result.refused[0].why
    assert "name another one" in result.refused[0].why
    release(store, queue_id, to=DEV)
    assert envelopes(store) == [("allowed", [DEV])]


# --- routes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "content", "route"),
    [
        ("news@promo.shop.test", b"Subject: x\r\n\r\nhello\r\n", "promo"),
        ("a@shop.test", b"Subject: x\r\nX-Campaign: spring\r\n\r\nhello\r\n", "campaign"),
        ("a@shop.test", b"Subject: x\r\n\r\nhello\r\n", "default"),
        ("", b"Subject: x\r\n\r\nhello\r\n", "default"),
    ],
)
def test_the_route_is_that_of_now(store: Store, sender: str, content: bytes, route: str) -> None:
    queue_id = add(store, CUSTOMER, sender=sender, content=content, route="captured")
    (copy,) = release(store, queue_id, to=DEV).copies
    assert copy.route == route
    assert copy.stream == ("promotional" if route == "promo" else "transactional")
    (delivery,) = claimed(store, route)
    assert (delivery.stream, delivery.sender) == (copy.stream, sender)


def test_recipients_of_several_routes_are_several_deliveries(store: Store) -> None:
    routes = [
        {"name": "agency", "recipient": ["@agency.test"], "providers": ["q"]},
        {"name": "default", "providers": ["p"]},
    ]
    release(store, add(store, DEV, QA), configuration=settings(routes=routes))
    assert envelopes(store, "agency") == [("allowed", [DEV])]
    assert envelopes(store) == [("allowed", [QA])]


@pytest.mark.parametrize(
    ("providers", "why"),
    [
        ({}, "no provider is configured"),
        ({"p": {"host": "smtp.example.com"}}, "no route of the configuration matches"),
    ],
)
def test_a_sandbox_without_a_way_out_says_so(
    store: Store, providers: dict[str, Any], why: str
) -> None:
    now = settings(mode="sandbox", providers=providers, routes=[])
    result = release(store, add(store, DEV, mode="sandbox"), configuration=now)
    assert reasons(result) == {DEV: Refusal.NO_ROUTE}
    assert why in result.refused[0].why


def test_a_sandbox_with_a_provider_releases_to_the_list(store: Store) -> None:
    result = release(
        store, add(store, DEV, CUSTOMER, mode="sandbox"), configuration=settings(mode="sandbox")
    )
    assert [one.address for one in result.copies] == [DEV]
    assert reasons(result) == {CUSTOMER: Refusal.OUTSIDE}


def test_a_listener_and_a_user_still_choose_the_route(store: Store) -> None:
    now = settings(
        listeners=[{"bind": "127.0.0.1:25"}],
        routes=[
            {"name": "shop", "listener": ["127.0.0.1:25"], "providers": ["q"]},
            {"name": "default", "providers": ["p"]},
        ],
    )
    for source, route in ((Source(listener="127.0.0.1:25"), "shop"), (Source(uid=1), "default")):
        (copy,) = release(store, add(store, DEV, source=source), configuration=now).copies
        assert copy.route == route


# --- what is left alone, and the trail ----------------------------------------------------


def test_a_second_release_waits_for_the_first(store: Store) -> None:
    queue_id = add(store, CUSTOMER)
    release(store, queue_id, to=DEV)
    assert reasons(release(store, queue_id, to="DEV@agency.test")) == {
        "DEV@agency.test": Refusal.WAITING
    }
    assert len(claimed(store)) == 1


def test_what_is_not_captured_is_left_alone(store: Store) -> None:
    queue_id = add(store, NewRecipient(address=DEV))
    (left,) = release(store, [queue_id, queue_id]).left
    assert (left.queue_id, left.why, left.is_temporary) == (queue_id, "it is not captured", False)
    assert release(store, []) == ReleaseResult()
    assert release(store, "1M89BZ88N46GD3SE7") == ReleaseResult()


class Hasty(AlteredStore):
    """A store in which somebody else deletes a captured mail right before it is released."""

    doomed = ""

    def release_captured(self, releases: Sequence[Release]) -> frozenset[str]:
        entry = AuditEntry(at_ms=0, actor="bob", action="x", target="", affected=0, detail="")
        self.delete_captured([self.doomed], entry=entry)
        return super().release_captured(releases)


def test_mail_that_is_gone_meanwhile_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = Hasty(url)
    gone, kept = add(store, DEV), add(store, DEV)
    store.doomed = gone
    result = release(store, [gone, kept])
    assert (result.changed, [one.queue_id for one in result.left]) == ((kept,), [gone])
    assert result.left[0].is_temporary
    assert [one.action for one in store.audit.entries(limit=9)].count("sandbox.release") == 1
    store.close()


def test_the_trail_says_who_got_it_and_how(store: Store) -> None:
    queue_id = add(store, DEV, CUSTOMER)
    release(store, queue_id, is_admin=True, anyone=True, detail="search='order'")
    release(store, queue_id, to=QA)
    told = {(one.action, one.actor, one.target, one.affected, one.detail) for one in
            store.audit.entries(limit=9)}  # fmt: skip
    assert told == {
        (
            "sandbox.release", "ann", queue_id, 2,
            f"to {DEV} (allowed); to {CUSTOMER} (anyone); search='order'",
        ),
        ("sandbox.release", "ann", queue_id, 1, f"to {QA} (allowed) for {DEV}"),
    }  # fmt: skip


def test_a_plan_changes_nothing(store: Store) -> None:
    queue_id = add(store, DEV, CUSTOMER)
    planned = plan_release(
        store, settings(), [queue_id], ReleaseRequest(is_admin=True, anyone=True)
    )
    assert [one.address for one in planned.copies] == [DEV, CUSTOMER]
    assert planned.outside == (CUSTOMER,)
    assert envelopes(store) == []
    assert store.audit.entries(limit=1) == []


def test_many_messages_are_released_in_several_transactions(store: Store) -> None:
    messages = [
        accepted(
            mode="staging",
            deliveries=(
                NewDelivery(
                    route="captured",
                    stream="transactional",
                    recipients=(NewRecipient(address=DEV, state=RecipientState.CAPTURED),),
                ),
            ),
        )
        for _ in range(BATCH_MESSAGES + 1)
    ]
    store.intake.accept_batch(messages)
    result = release(store, [one.queue_id for one in messages])
    assert len(result.changed) == len(messages)
    assert len(store.audit.entries(limit=1000)) == len(messages)
