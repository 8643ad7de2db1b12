"""Rewriting and the archive on a real gateway: what the provider gets, and what staging keeps."""

from __future__ import annotations

from pathlib import Path

from relaygw.mail.state import RecipientState
from relaygw.mail.suppression import Cause
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import fixed_binds
from tests.fakes.scripted_provider import DEFAULT_EXTENSIONS, ThreadedProvider
from tests.forked import run_relaygw

ARCHIVE = "archive@arch.test"
REWRITE = {
    "senders": {"*": "shop@new.test", "@keep.test": "@keep.test", "<>": "bounces@new.test"},
    "recipients": {"list@old.test": ["a@new.test", "b@new.test"], "user@old.test": "c@new.test"},
    "recipient_delimiter": "+",
}
CONTENT = b"From: Shop <www@any.test>\r\nTo: list@old.test\r\nSubject: order\r\n\r\nhello\r\n"


def test_what_the_provider_gets_and_what_staging_keeps(tmp_path: Path) -> None:
    with ThreadedProvider(extensions=(*DEFAULT_EXTENSIONS, "DSN")) as provider:
        provider.recipients[ARCHIVE] = b"550 5.1.1 User unknown\r\n"
        gateway = Gateway(
            tmp_path,
            providers={"main": provider_settings(provider.port)},
            rewrite=REWRITE,
            archive_to=ARCHIVE,
            bounces={"to": "sender"},
            suppression={"transactional": "block"},
            **fixed_binds(),
        )
        with gateway:
            words = ["--config", gateway.config, "suppress", "add", ARCHIVE]
            run_relaygw(words, env=gateway.environment, check=True)
            people = ["list@old.test", "user+x@old.test", "a@new.test"]
            for sender in ("www@any.test", "ann@keep.test", ""):
                queue_id = gateway.send(sender, people, CONTENT)
                # never suppressed, whatever the list says and however often it is refused
                gateway.wait_for_log(f"{queue_id}: to=<{ARCHIVE}>.*status=bounced")
                gateway.wait_for_log(f"{queue_id}: removed")
            gateway.wait_until_empty()
            (listed,) = gateway.store.suppressions.suppressed(limit=5)
            assert listed.cause is Cause.MANUAL  # though two mails of one domain were refused
            assert not any("sender non-delivery notification" in line for line in gateway.lines)

            gateway.settings["mode"] = "staging"
            gateway.wait_for_log("reloaded: mode", start=gateway.reload())
            held = gateway.send("www@any.test", people, CONTENT)
            states = {one.address: one.state for one in gateway.entry(held).recipients}
            assert states[ARCHIVE] is RecipientState.CAPTURED and len(states) == 4

            provider.recipients.clear()
            gateway.settings["recipients"] = {"allow": [ARCHIVE]}
            gateway.wait_for_log("reloaded: mode", start=gateway.reload())
            gateway.send("www@any.test", people, CONTENT)
            provider.wait_for_messages(4)
            gateway.wait_until_empty()
    mails = provider.messages
    assert [one.sender for one in mails] == [
        "shop@new.test", "ann@keep.test", "bounces@new.test", "shop@new.test",
    ]  # fmt: skip
    for one in mails[:3]:
        assert sorted(one.recipients) == ["a@new.test", "b@new.test", "c+x@new.test"]
        assert b"From: Shop <shop@new.test>\r\nTo: list@old.test\r\n" in one.content
    assert mails[3].recipients == (ARCHIVE,)
    assert not any(ARCHIVE.encode() in one.content for one in mails)
    said = [line for one in provider.connections for line in one.commands]
    asked = [line for line in said if ARCHIVE.encode() in line]
    assert len(asked) == 4 and all(line.endswith(b"NOTIFY=NEVER") for line in asked)


def test_two_gateways_archive_a_mail_once(tmp_path: Path) -> None:
    for name in ("central", "spool"):
        (tmp_path / name).mkdir()
    with ThreadedProvider() as provider:
        main, alike = provider_settings(provider.port), {"archive_to": ARCHIVE}
        central = Gateway(
            tmp_path / "central",
            providers={"main": main},
            listeners=[{"bind": "127.0.0.1:0", "trust_source": ["127.0.0.1"]}],
            **alike,
        )
        with central:
            ways = {"main": main, "on": provider_settings(central.smtp_port, send_source=True)}
            routes = [
                {"name": "archive", "recipient": ["@arch.test"], "providers": ["main"]},
                {"name": "default", "providers": ["on"]},
            ]
            with Gateway(tmp_path / "spool", providers=ways, routes=routes, **alike) as spool:
                spool.send("a@shop.test", ["b@cust.test"], CONTENT)
                provider.wait_for_messages(2)
                spool.wait_until_empty()
                central.wait_until_empty()
                central.send("a@shop.test", ["c@cust.test"], CONTENT)
                central.wait_until_empty()
    people = sorted(to for one in provider.messages for to in one.recipients)
    assert people == [ARCHIVE, ARCHIVE, "b@cust.test", "c@cust.test"]
