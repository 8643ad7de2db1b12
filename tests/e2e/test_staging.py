"""Staging lets out only what is allowed, also when the mode changes under accepted mail."""

from __future__ import annotations

import asyncio
from pathlib import Path

from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import DeliveryState, RecipientState
from tests.campaign import on_a_database
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import fixed_binds, free_port
from tests.e2e.real_providers import smtp_sink
from tests.fakes.scripted_provider import Action, ThreadedProvider, Wait

ALLOW = {"allow": ["dev@agency.test"]}
CONTENT = b"Subject: x\r\n\r\nhello\r\n"


def recipient_states(gateway: Gateway, queue_id: str) -> dict[str, RecipientState]:
    return {entry.address: entry.state for entry in gateway.entry(queue_id).recipients}


@on_a_database
def test_one_transaction_delivers_to_the_allowed_and_captures_the_refused(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    providers = {"main": provider_settings(provider.port)}
    with Gateway(tmp_path, mode="staging", providers=providers, recipients=ALLOW) as gateway:
        queue_id = gateway.send("a@shop.test", ["dev@agency.test", "b@cust.test"], CONTENT)
        provider.wait_for_messages(1)
        gateway.wait_until_empty()

        assert recipient_states(gateway, queue_id) == {
            "dev@agency.test": RecipientState.DELIVERED,
            "b@cust.test": RecipientState.CAPTURED,
        }
        (message,) = provider.messages
        assert message.recipients == ("dev@agency.test",)
        # nothing of the refused one ever reached the provider
        assert all(b"b@cust.test" not in bytes(c.transcript) for c in provider.connections)
        assert gateway.store.sandbox.captured_ids(EVERYTHING, limit=9) == [queue_id]
        assert gateway.content(queue_id).endswith(CONTENT)


@on_a_database
def test_accepted_in_production_is_held_after_a_reload_to_staging(tmp_path: Path) -> None:
    port = free_port()
    providers = {"main": provider_settings(port)}
    with Gateway(tmp_path, providers=providers, recipients=ALLOW, **fixed_binds()) as gateway:
        held_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log(rf"{held_id}: .*status=deferred \(.*refused")

        gateway.settings["mode"] = "staging"
        gateway.wait_for_log("reloaded: mode staging", start=gateway.reload())
        gateway.wait_for_log(rf"{held_id}: held \(mode\)")
        with smtp_sink(port, tmp_path / "sink"):
            sent_id = gateway.send("a@shop.test", ["dev@agency.test"], CONTENT)
            gateway.wait_for_log(rf"{sent_id}: .*status=sent")
            (dump,) = [file.read_text() for file in (tmp_path / "sink").iterdir()]

        assert "dev@agency.test" in dump
        (delivery,) = gateway.entry(held_id).deliveries
        assert (delivery.state, delivery.reason) == (DeliveryState.HELD, "mode")
        assert recipient_states(gateway, held_id) == {"b@cust.test": RecipientState.PENDING}


def test_nobody_is_named_once_the_log_says_staging(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    """The old worker was connecting: what it had in hand goes back to the queue."""
    greets = asyncio.Event()
    provider.script("greeting", (Wait(greets), Action.DEFAULT))
    providers = {"main": provider_settings(provider.port)}
    with Gateway(tmp_path, providers=providers, recipients=ALLOW, **fixed_binds()) as gateway:
        held_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        provider.wait_until(lambda: provider.connections)
        (old,) = gateway.pids("delivery")

        gateway.settings["mode"] = "staging"
        gateway.wait_for_log("reloaded: mode staging", start=gateway.reload())
        provider.run(_set(greets))
        gateway.wait_until(lambda: old not in gateway.processes(), "the old worker's end")
        gateway.wait_for_log(rf"{held_id}: held \(mode\)")
        assert all(b"b@cust.test" not in bytes(c.transcript) for c in provider.connections)


def test_a_reload_waits_for_answers_to_those_who_were_named(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    provider.script("RCPT", Action.HANG)
    providers = {"main": provider_settings(provider.port)}
    with Gateway(tmp_path, providers=providers, recipients=ALLOW, **fixed_binds()) as gateway:
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        provider.wait_until(lambda: not provider.pending("RCPT"))
        (old,) = gateway.pids("delivery")

        gateway.settings["mode"] = "staging"
        warning, done = gateway.wait_for_log(
            "until it ends, it may send|reloaded: mode", count=2, start=gateway.reload()
        )
        assert f"delivery (pid {old}) has not ended what it does by the old settings" in warning
        assert "reloaded: mode staging" in done


async def _set(event: asyncio.Event) -> None:
    event.set()


@on_a_database
def test_captured_in_staging_stays_captured_in_production(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    providers = {"main": provider_settings(provider.port)}
    with Gateway(tmp_path, mode="staging", providers=providers, recipients=ALLOW) as gateway:
        captured_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        assert gateway.stop() == 0

        gateway.settings["mode"] = "production"
        gateway.start()
        gateway.send("a@shop.test", ["c@cust.test"], CONTENT)
        provider.wait_for_messages(1)
        gateway.wait_until_empty()

        assert [message.recipients for message in provider.messages] == [("c@cust.test",)]
        assert recipient_states(gateway, captured_id) == {"b@cust.test": RecipientState.CAPTURED}


@on_a_database
def test_broken_file_keeps_the_old_settings_and_says_where(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    providers = {"main": provider_settings(provider.port)}
    with Gateway(
        tmp_path, mode="staging", providers=providers, recipients=ALLOW, **fixed_binds()
    ) as gateway:
        gateway.settings["mode"] = "production"
        gateway.settings["retry"]["first"] = "soon"
        position = gateway.reload()
        line_no = gateway.config.read_text().splitlines().index("  first: soon") + 1
        (line,) = gateway.wait_for_log("reload refused, the old settings stay", start=position)
        assert f"relaygw.yaml:{line_no}" in line
        assert "retry.first" in line
        assert "soon" in line

        # still staging, by the front and by the worker
        refused_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.send("a@shop.test", ["dev@agency.test"], CONTENT)
        provider.wait_for_messages(1)
        assert [message.recipients for message in provider.messages] == [("dev@agency.test",)]
        assert recipient_states(gateway, refused_id) == {"b@cust.test": RecipientState.CAPTURED}
