"""Captured mail that somebody lets go, by the command line, to a provider: who gets it, and who
does not, whatever happens between the release and the attempt.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_tables import message
from tests.campaign import IS_CAMPAIGN, on_a_database
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.ports import fixed_binds
from tests.e2e.test_maildrop import leave
from tests.fakes.scripted_provider import DEFAULT_EXTENSIONS, ThreadedProvider
from tests.forked import run_relaygw

DEV, QA, CUSTOMER, OTHER = "dev@agency.test", "x@qa.test", "b@cust.test", "c@cust.test"
DAY_MS = 86_400_000
ALLOW = {"allow": [DEV, "@qa.test"]}
CONTENT = b"From: shop@shop.test\r\nTo: b@cust.test\r\nSubject: order\r\n\r\nhello\r\n"
SENDER = "shop@shop.test"


def staging(directory: Path, provider: ThreadedProvider, **sections: Any) -> Gateway:
    """Return a gateway in staging mode that sends by a provider; not started yet."""
    given: dict[str, Any] = {
        "mode": "staging",
        "providers": {"main": provider_settings(provider.port)},
        "recipients": ALLOW,
        **fixed_binds(),
        **sections,
    }
    return Gateway(directory, **given)


def release(gateway: Gateway, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `relaygw sandbox release`; what it is asked, it is answered by `stdin`."""
    return run_relaygw(["--config", str(gateway.config), "sandbox", "release",
         *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=gateway.environment,
    )  # fmt: skip


def let_go(gateway: Gateway, queue_id: str, *words: str) -> None:
    """Release a message and expect that all of it is."""
    ended = release(gateway, queue_id, "--yes", *words)
    assert (ended.returncode, ended.stderr) == (0, ""), ended


def envelopes(provider: ThreadedProvider) -> list[tuple[str, ...]]:
    return [one.recipients for one in provider.messages]


def heard_of(provider: ThreadedProvider, address: str) -> bool:
    """True if a provider was ever told of an address, whatever it answered."""
    name = address.encode().lower()
    commands = (line.lower() for one in provider.connections for line in one.commands)
    return any(name in command for command in commands)


def states(gateway: Gateway, queue_id: str) -> list[tuple[str, RecipientState]]:
    return [(one.address, one.state) for one in gateway.entry(queue_id).recipients]


def reload(gateway: Gateway, **sections: Any) -> None:
    gateway.settings.update(sections)
    gateway.wait_for_log("reloaded: mode", start=gateway.reload())


# --- who gets it --------------------------------------------------------------------------


@on_a_database
def test_whoever_is_on_the_list_by_now_gets_what_was_captured_for_him(
    tmp_path: Path, provider: ThreadedProvider, each_database: str
) -> None:
    with staging(tmp_path, provider) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER], CONTENT)
        refused = release(gateway, queue_id, "--yes")
        assert refused.returncode == os.EX_DATAERR
        assert f"{CUSTOMER} is not on recipients.allow" in refused.stderr
        assert provider.connections == []

        reload(gateway, recipients={"allow": [CUSTOMER]})
        let_go(gateway, queue_id)
        provider.wait_for_messages(1)
        (line,) = gateway.wait_for_log(rf"{queue_id}: to=<{CUSTOMER}>.*status=sent")
        gateway.wait_until_empty()

        assert "orig_to" not in line
        assert envelopes(provider) == [(CUSTOMER,)]
        assert provider.messages[0].content.endswith(CONTENT)
        assert states(gateway, queue_id) == [
            (CUSTOMER, RecipientState.CAPTURED),
            (CUSTOMER, RecipientState.DELIVERED),
        ]
        assert gateway.entry(queue_id).captured_at_ms is not None
        assert gateway.content(queue_id).endswith(CONTENT)  # it stays in the sandbox


@on_a_database
def test_another_address_of_the_list_gets_it(
    tmp_path: Path, provider: ThreadedProvider, each_database: str
) -> None:
    with staging(tmp_path, provider) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER, OTHER], CONTENT)
        let_go(gateway, queue_id, "--to", QA)
        provider.wait_for_messages(1)
        gateway.wait_for_log(rf"{queue_id}: to=<{QA}>, orig_to=<{CUSTOMER}>.*status=sent")
        gateway.wait_until_empty()
    assert envelopes(provider) == [(QA,)]
    assert not heard_of(provider, CUSTOMER)
    assert not heard_of(provider, OTHER)


def test_nobody_else_gets_it(tmp_path: Path, provider: ThreadedProvider) -> None:
    targets = (
        CUSTOMER,
        "b%cust.test@qa.test",
        '"b@cust.test"@qa.test',
        "dev\u212a@agency.test",  # the Kelvin sign
    )  # more in tests/unit/policy/test_releases.py
    with staging(tmp_path, provider) as gateway:
        queue_id = gateway.send(SENDER, [OTHER], CONTENT)
        # neither helps a target that the list does not have, nor harms one that it has
        reload(
            gateway,
            recipients={**ALLOW, "refused": f"redirect:{DEV}"},
            rewrite={"recipients": {CUSTOMER: DEV, QA: CUSTOMER}},
        )
        for target in targets:
            ended = release(gateway, queue_id, "--to", target, "--yes")
            assert ended.returncode == os.EX_DATAERR, ended
            assert "is not on recipients.allow" in ended.stderr
        assert len(gateway.entry(queue_id).recipients) == 1
        let_go(gateway, queue_id, "--to", QA)
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
    assert envelopes(provider) == [(QA,)]


# --- outside of the list --------------------------------------------------------------------


@on_a_database
def test_an_admin_may_name_somebody_and_opens_nothing_for_the_others(
    tmp_path: Path, provider: ThreadedProvider, each_database: str
) -> None:
    with staging(tmp_path, provider) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER, OTHER], CONTENT)
        let_go(gateway, queue_id, "--for", CUSTOMER, "--anyone", "--outside", "1")
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
        later = release(gateway, queue_id, "--yes")
        trail = gateway.store.audit.entries(limit=9)
    assert envelopes(provider) == [(CUSTOMER,)]
    assert not heard_of(provider, OTHER)
    # it was for that one time
    assert "0 mails released" in later.stdout
    assert later.stderr.count("is not on recipients.allow") == 2
    (line,) = [one for one in trail if one.action == "sandbox.release"]
    assert line.detail == f"to {CUSTOMER} (anyone)"


def test_the_number_of_them_confirms_it(tmp_path: Path, provider: ThreadedProvider) -> None:
    with staging(tmp_path, provider) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER, OTHER], CONTENT)
        ended = release(gateway, queue_id, "--anyone", stdin="y\n2\n")
        assert ended.returncode == 0, ended
        assert CUSTOMER in ended.stderr
        assert OTHER in ended.stderr
        provider.wait_for_messages(1)
    assert envelopes(provider) == [(CUSTOMER, OTHER)]


def test_the_block_list_holds_for_everybody(tmp_path: Path, provider: ThreadedProvider) -> None:
    lists = {"allow": [CUSTOMER], "block": [CUSTOMER], "blocked": "capture"}
    with staging(tmp_path, provider, recipients=lists) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER], CONTENT)
        ended = release(gateway, queue_id, "--anyone", "--yes")
        assert ended.returncode == os.EX_DATAERR
        assert "is on recipients.block, which also applies to admins" in ended.stderr
        assert provider.connections == []


# --- between the release and the attempt ----------------------------------------------------


def on_either_database(modes: list[str]) -> pytest.MarkDecorator:
    """Run a test in each mode on SQLite, and in one on PostgreSQL; in a campaign in each."""
    pairs = [("sqlite", mode) for mode in modes]
    pairs += [("postgres", mode) for mode in (modes if IS_CAMPAIGN else modes[-1:])]
    return pytest.mark.parametrize(("each_database", "mode"), pairs, indirect=["each_database"])


@pytest.fixture
def waiting(
    tmp_path: Path, provider: ThreadedProvider, each_database: str
) -> Iterator[tuple[Gateway, str]]:
    """Yield a gateway that is down, with a message released to DEV and to OTHER, as admin."""
    gateway = staging(tmp_path, provider)
    with gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER, OTHER], CONTENT)
        assert gateway.stop() == 0
        let_go(gateway, queue_id, "--to", DEV)
        let_go(gateway, queue_id, "--for", OTHER, "--anyone", "--outside", "1")
        yield gateway, queue_id


def restart(gateway: Gateway, **sections: Any) -> None:
    gateway.settings.update(sections)
    gateway.start()


@on_a_database
def test_a_release_outlives_a_restart_and_a_second_one_meanwhile_sends_nothing_more(
    waiting: tuple[Gateway, str], provider: ThreadedProvider
) -> None:
    gateway, queue_id = waiting
    assert provider.connections == []
    again = release(gateway, queue_id, "--to", DEV, "--yes")
    assert again.returncode == os.EX_DATAERR
    assert "is already going to receive this message" in again.stderr
    restart(gateway)
    provider.wait_for_messages(2)
    gateway.wait_until_empty()
    assert sorted(envelopes(provider)) == [(OTHER,), (DEV,)]
    assert states(gateway, queue_id)[2:] == [
        (DEV, RecipientState.DELIVERED),
        (OTHER, RecipientState.DELIVERED),
    ]


@pytest.mark.campaign
@on_either_database(["staging", "sandbox", "production"])
def test_who_has_left_the_list_is_held_in_every_mode(
    waiting: tuple[Gateway, str], provider: ThreadedProvider, mode: str
) -> None:
    gateway, queue_id = waiting
    restart(gateway, mode=mode, recipients={"allow": ["other@agency.test"]})
    gateway.wait_for_log(rf"{queue_id}: held \(mode\)")
    provider.wait_for_messages(1)  # of the admin, who was asked
    gateway.wait_until(lambda: states(gateway, queue_id)[3][1] is RecipientState.DELIVERED, "sent")
    assert envelopes(provider) == [(OTHER,)]
    assert not heard_of(provider, DEV)

    assert gateway.stop() == 0
    restart(gateway, mode="staging", recipients=ALLOW)  # whoever is on the list again gets it
    provider.wait_for_messages(2)
    assert envelopes(provider) == [(OTHER,), (DEV,)]


@on_a_database
def test_who_came_onto_the_block_list_is_blocked(
    waiting: tuple[Gateway, str], provider: ThreadedProvider
) -> None:
    gateway, queue_id = waiting
    restart(gateway, recipients={**ALLOW, "block": [DEV, OTHER]})
    gateway.wait_for_log(rf"{queue_id}: to=<.*status=blocked", count=2)
    gateway.wait_until_empty()
    assert provider.connections == []


@pytest.mark.campaign
@on_either_database(["sandbox", "production"])
def test_a_change_of_the_mode_neither_stops_nor_widens_a_release(
    waiting: tuple[Gateway, str], provider: ThreadedProvider, mode: str
) -> None:
    gateway, queue_id = waiting
    restart(gateway, mode=mode)
    provider.wait_for_messages(2)
    gateway.wait_until_empty()
    assert sorted(envelopes(provider)) == [(OTHER,), (DEV,)]
    refused = release(gateway, queue_id, "--for", CUSTOMER, "--yes")
    assert refused.returncode == os.EX_DATAERR
    assert not heard_of(provider, CUSTOMER)


@on_a_database
def test_deleting_the_captured_mail_takes_no_release_away(
    waiting: tuple[Gateway, str], provider: ThreadedProvider
) -> None:
    gateway, queue_id = waiting
    run_relaygw(["--config", str(gateway.config), "sandbox", "delete",
         queue_id, "--yes"],
        check=True, env=gateway.environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert gateway.entry(queue_id).captured_at_ms is None
    restart(gateway)
    provider.wait_for_messages(2)
    gateway.wait_until_empty()
    assert all(one.content.endswith(CONTENT) for one in provider.messages)
    assert gateway.content(queue_id) == b""  # nobody needs it any more
    refused = release(gateway, queue_id, "--to", QA, "--yes")
    assert "it is not captured" in refused.stderr


# --- through the full queue -----------------------------------------------------------------


def test_a_release_is_tried_again_like_any_mail(tmp_path: Path, provider: ThreadedProvider) -> None:
    """Also one that was captured longer ago than the usual lifetime."""
    with staging(tmp_path, provider) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER], CONTENT)
        with gateway.store.database.write() as connection:
            older = update(message).values(accepted_at_ms=message.c.accepted_at_ms - 20 * DAY_MS)
            connection.execute(older)
        provider.script("RCPT", b"451 4.3.0 later\r\n")
        let_go(gateway, queue_id, "--to", DEV)
        (deferred,) = gateway.wait_for_log(rf"{queue_id}: to=<{DEV}>.*status=deferred")
        gateway.wait_for_log(rf"{queue_id}: to=<{DEV}>.*status=sent")
        (sent,) = [one for one in gateway.entry(queue_id).recipients if one.address == DEV]
    assert "451 4.3.0 later" in deferred
    assert f"orig_to=<{CUSTOMER}>" in deferred
    assert envelopes(provider) == [(DEV,)]
    assert (sent.state, sent.attempts) == (RecipientState.DELIVERED, 2)


def test_nobody_is_told_when_it_bounces_and_it_can_be_released_again(tmp_path: Path) -> None:
    with ThreadedProvider(extensions=[*DEFAULT_EXTENSIONS, "DSN"]) as provider:
        with staging(tmp_path, provider) as gateway:
            # whoever sends the form is no more on the list than whom it is for
            queue_id = gateway.send("visitor@cust.test", [CUSTOMER], CONTENT)
            provider.script("RCPT", b"550 5.1.1 no such user\r\n")
            let_go(gateway, queue_id, "--to", DEV)
            gateway.wait_for_log(rf"{queue_id}: to=<{DEV}>.*status=bounced")
            gateway.wait_until_empty()
            assert provider.messages == []
            assert [one.queue_id for one in gateway.queue(frozenset(DeliveryState))] == [queue_id]
            let_go(gateway, queue_id, "--to", DEV)
            provider.wait_for_messages(1)
            gateway.wait_until_empty()
            told = [state for _, state in states(gateway, queue_id)]
        asked = [line for one in provider.connections for line in one.commands if b"RCPT" in line]
    assert asked == [f"RCPT TO:<{DEV}> NOTIFY=NEVER".encode()] * 2
    assert told == [
        RecipientState.CAPTURED,
        RecipientState.BOUNCED,
        RecipientState.DELIVERED,
    ]


def test_the_route_of_now_is_taken(tmp_path: Path, provider: ThreadedProvider) -> None:
    with ThreadedProvider() as promo, staging(tmp_path, provider) as gateway:
        queue_id = gateway.send("news@promo.shop.test", [CUSTOMER], CONTENT)
        assert gateway.entry(queue_id).deliveries[0].route == "default"
        reload(
            gateway,
            providers={**gateway.settings["providers"], "promo": provider_settings(promo.port)},
            routes=[
                {
                    "name": "promo",
                    "sender": ["@promo.shop.test"],
                    "stream": "promotional",
                    "providers": ["promo"],
                },
                {"name": "default", "providers": ["main"]},
            ],
        )
        let_go(gateway, queue_id, "--to", DEV)
        promo.wait_for_messages(1)
        gateway.wait_until_empty()
        assert envelopes(promo) == [(DEV,)]
        assert provider.connections == []
        assert gateway.entry(queue_id).deliveries[1].stream == "promotional"


# --- the sandbox --------------------------------------------------------------------------


def test_a_sandbox_with_a_provider_releases_to_its_list(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    with staging(tmp_path, provider, mode="sandbox") as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER, DEV], CONTENT)
        ended = release(gateway, queue_id, "--yes")
        assert ended.returncode == os.EX_DATAERR
        assert f"{CUSTOMER} is not on recipients.allow" in ended.stderr
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
    assert envelopes(provider) == [(DEV,)]
    assert not heard_of(provider, CUSTOMER)


def test_a_sandbox_without_a_provider_says_so(tmp_path: Path) -> None:
    with Gateway(tmp_path, mode="sandbox", recipients=ALLOW) as gateway:
        queue_id = gateway.send(SENDER, [DEV], CONTENT)
        ended = release(gateway, queue_id, "--yes")
    assert ended.returncode == os.EX_CONFIG
    assert "no provider is configured; add providers and routes" in ended.stderr


def test_what_was_captured_as_no_address_goes_to_another_one(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    """Its readable form, `"a\\x07b"@qa.test`, would be an address that the list has."""
    addresses = ("a b@qa.test", '"a\x07b"@qa.test', "x@qa..test", "root")
    with staging(tmp_path, provider) as gateway:
        maildrop = tmp_path / "maildrop"
        gateway.wait_until((maildrop / "wake").exists, "a maildrop")
        for count, address in enumerate(addresses, 1):
            leave(maildrop, address, sender=SENDER)
            line = gateway.wait_for_log("status=captured", count=count)[-1]
            queue_id = re.search(r": ([A-Z0-9]{10,20}): to=", line)[1]  # type: ignore[index]
            ended = release(gateway, queue_id, "--anyone", "--yes")
            assert ended.returncode == os.EX_DATAERR, ended
            assert "is not an address that can receive mail" in ended.stderr
            assert "name another one" in ended.stderr
            let_go(gateway, queue_id, "--to", DEV)
            provider.wait_for_messages(count)
    assert envelopes(provider) == [(DEV,)] * len(addresses)


def test_an_address_beyond_ascii_is_sent_as_such(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    target = "d\u00e9v@agency.test"
    with staging(tmp_path, provider, recipients={"allow": [target]}) as gateway:
        queue_id = gateway.send(SENDER, [CUSTOMER], CONTENT)
        let_go(gateway, queue_id, "--to", target)
        provider.wait_for_messages(1)
    assert envelopes(provider) == [(target,)]
    assert "SMTPUTF8" in provider.messages[0].mail_parameters


# --- by search ------------------------------------------------------------------------------


@on_a_database
def test_a_search_releases_what_it_finds(
    tmp_path: Path, provider: ThreadedProvider, each_database: str
) -> None:
    with staging(tmp_path, provider) as gateway:
        wanted = gateway.send(SENDER, [CUSTOMER], CONTENT.replace(b"hello", b"invoice 4711"))
        gateway.send(SENDER, [OTHER], CONTENT)
        words = ("--search", 'to:b@cust.test "invoice 4711"', "--to", DEV)
        shown = release(gateway, *words, "--dry-run", "--json")
        assert [json.loads(line)["queue_id"] for line in shown.stdout.splitlines()] == [wanted]
        ended = release(gateway, *words, "--yes")
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
        trail = gateway.store.audit.entries(limit=9)
    assert envelopes(provider) == [(DEV,)]
    assert b"invoice 4711" in provider.messages[0].content
    (line,) = [one for one in trail if one.action == "sandbox.release"]
    assert line.target == wanted
    assert "invoice 4711" in line.detail
