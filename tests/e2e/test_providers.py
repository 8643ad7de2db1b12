"""Real and scripted providers receive, by their route, with their credentials, and in time."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from tests.campaign import on_a_database
from tests.e2e.gateway import Gateway, gateway_to, provider_settings
from tests.e2e.ports import free_port
from tests.e2e.real_providers import RealPostfix, smtp_sink
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.rights import needs

CONTENT = b"Subject: hello\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n.dot\r\n.\r\nend\r\n"


def test_smtp_sink_receives(tmp_path: Path) -> None:
    port = free_port()
    with (
        smtp_sink(port, tmp_path / "sink"),
        Gateway(tmp_path, providers={"sink": provider_settings(port)}) as gateway,
    ):
        gateway.send("a@shop.test", ["b@cust.test", "c@cust.test"], CONTENT)
        gateway.wait_for_log(r"status=sent", count=2)

        (file,) = (tmp_path / "sink").iterdir()
        dump = file.read_bytes()
    assert re.search(rb"^X-Mail-Args: <a@shop\.test>", dump, re.M), dump
    assert re.findall(rb"^X-Rcpt-Args: (<\S+>)", dump, re.M) == [b"<b@cust.test>", b"<c@cust.test>"]
    # the sink does not offer 8BITMIME, so the body arrives in an encoding of seven bits
    assert b"Subject: hello\n" in dump
    assert dump.rstrip(b"\n").endswith(b"\nend")


def test_provider_with_starttls_and_auth_receives_the_same_bytes(tmp_path: Path) -> None:
    with ThreadedProvider(tls="starttls", users={"shop": "s3cret"}) as provider:
        settings = provider_settings(
            provider.port,
            tls="required",
            tls_ca=provider.tls_ca,
            username="shop",
            password="plain:s3cret",
        )
        with Gateway(tmp_path, providers={"main": settings}) as gateway:
            gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
            provider.wait_for_messages(1)
            gateway.wait_until_empty()
            log = "\n".join(gateway.lines)

        (message,) = provider.messages
    assert (message.user, message.is_tls) == ("shop", True)
    assert (message.sender, message.recipients) == ("a@shop.test", ("b@cust.test",))
    assert message.content.endswith(b"\r\n" + CONTENT)
    assert "s3cret" not in log


@needs("root")
def test_real_postfix_with_starttls_and_auth_receives(tmp_path: Path) -> None:
    with RealPostfix(tmp_path, users={"shop": "s3cret"}) as postfix:
        settings = provider_settings(
            postfix.port,
            tls="required",
            tls_ca=str(postfix.ca_file),
            username="shop@postfix.test",
            password="plain:s3cret",
        )
        with Gateway(tmp_path, providers={"postfix": settings}) as gateway:
            gateway.send("a@shop.test", ["b@cust.test", "c@cust.test"], CONTENT)
            gateway.wait_for_log(r"relay=.*dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok", count=2)
            mails = postfix.wait_for_mail(2)
        assert "sasl_username=shop@postfix.test" in postfix.log()

    assert all(mail.startswith(b"Return-Path: <a@shop.test>\n") for mail in mails)
    delivered = {re.search(rb"^Delivered-To: (.*)$", mail, re.M)[1] for mail in mails}
    assert delivered == {b"b@cust.test", b"c@cust.test"}
    assert all(b"with ESMTPSA" in mail for mail in mails)
    body = CONTENT.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
    assert all(mail.partition(b"\n\n")[2] == body for mail in mails)


def test_senders_use_their_own_provider_and_credentials(tmp_path: Path) -> None:
    with (
        ThreadedProvider(users={"orders": "one"}) as main,
        ThreadedProvider(users={"news": "two"}) as promo,
        Gateway(
            tmp_path,
            providers={
                "main": provider_settings(main.port, username="orders", password="plain:one"),
                "promo": provider_settings(promo.port, username="news", password="plain:two"),
            },
            routes=[
                {
                    "name": "promo",
                    "sender": ["@promo.shop.test", "news@shop.test"],
                    "stream": "promotional",
                    "providers": ["promo"],
                },
                {"name": "default", "providers": ["main"]},
            ],
        ) as gateway,
    ):
        for sender in ("order@shop.test", "sale@PROMO.shop.test", "news@shop.test"):
            gateway.send(sender, ["b@cust.test"], CONTENT)
        gateway.wait_until_empty()

        seen = {(m.user, m.sender) for m in main.messages}
        assert seen == {("orders", "order@shop.test")}
        seen = {(m.user, m.sender) for m in promo.messages}
        assert seen == {("news", "sale@PROMO.shop.test"), ("news", "news@shop.test")}
        assert len(promo.messages) == 2


@on_a_database
def test_451_twice_is_delivered_on_the_third_try(tmp_path: Path) -> None:
    with ThreadedProvider() as provider, gateway_to(provider, tmp_path) as gateway:
        provider.script("RCPT", *[b"451 4.3.0 busy, come back\r\n"] * 2)
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        lines = gateway.wait_for_log(rf"{queue_id}: to=<b@cust\.test>.*status=", count=3)
        statuses = [re.search(r"status=(\w+) \((\d+)", line).groups() for line in lines]
        assert statuses == [("deferred", "451"), ("deferred", "451"), ("sent", "250")]
        assert len(provider.messages) == 1
        assert gateway.entry(queue_id).recipients[0].attempts == 3


@on_a_database
def test_provider_that_was_down_gets_everything_once(tmp_path: Path) -> None:
    port = free_port()
    with Gateway(tmp_path, providers={"sink": provider_settings(port)}) as gateway:
        sent = {
            gateway.send("a@shop.test", [f"b{n}@cust.test"], b"X-No: %d\r\n\r\nx\r\n" % n)
            for n in range(20)
        }
        gateway.wait_for_log(r"status=deferred \(.*refused")
        assert {entry.queue_id for entry in gateway.queue()} == sent

        with smtp_sink(port, tmp_path / "sink"):
            gateway.wait_for_log(r"status=sent", count=20)
            gateway.wait_until_empty()
            dumps = [file.read_bytes() for file in (tmp_path / "sink").iterdir()]
    numbers = Counter(int(re.search(rb"^X-No: (\d+)", dump, re.M)[1]) for dump in dumps)
    assert numbers == Counter(range(20))


def test_a_provider_that_puts_all_mail_off_is_shown_as_that(tmp_path: Path) -> None:
    """It is reached and logs in: without this every page would say that all is well."""
    with ThreadedProvider() as provider, gateway_to(provider, tmp_path) as gateway:

        def said(*words: str) -> str:
            argv = ["--config", gateway.config, *words]
            ran = run_relaygw(argv, capture_output=True, text=True, env=gateway.environment)
            return " ".join(ran.stdout.split())

        def state() -> str:
            shown: str = json.loads(said("provider", "list", "--json"))["state"]
            return shown

        provider.script("MAIL", *[b"451 4.3.0 Temporary system failure\r\n"] * 1000)
        for _ in range(2):
            gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log("status=deferred", count=4)
        assert state() == "ok", "two messages may be at fault themselves"
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_until(lambda: state() == "deferring", "the state of the provider")
        why = "none of its last 3 messages: 451 4.3.0 Temporary system failure"
        for words in (("status",), ("provider", "list"), ("check", "--online")):
            assert why in said(*words), words
