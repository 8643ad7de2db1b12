"""The same mail through a real Postfix and through relaygw with what import-postfix made of it.

Three providers see it: who the sender is, whom it is for, who logs in, and whether it is TLS.
"""

from __future__ import annotations

import json
import shutil
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from relaygw_postfix.maillog import read_maillog
from tests.e2e.gateway import Gateway
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.real_postfix import PostfixInstance
from tests.rights import needs

_MAIN = """relayhost = [127.0.0.1]:{main}
sender_dependent_relayhost_maps = hash:{base}/conf/relayhosts
smtp_sender_dependent_authentication = yes
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:{base}/conf/sasl_passwd
smtp_sasl_security_options = noanonymous
smtp_tls_security_level = verify
smtp_tls_CAfile = {base}/conf/ca.pem
smtp_tls_policy_maps = inline:{{ {{[127.0.0.1]:{inner}=none}} }}
transport_maps = inline:{{ {{internal.test=smtp:[127.0.0.1]:{inner}}}, {{spam.test=error:no}} }}
sender_canonical_maps = inline:{{ {{www-data@shop1.example.com=shop@example.com}} }}
recipient_canonical_maps = inline:{{ {{typo@cust.test=right@cust.test}} }}
"""
_MAILS = [
    ("shop@example.com", "a@cust.test"),
    ("news@promo.example.com", "a@cust.test"),
    ("www-data@shop1.example.com", "b@cust.test"),
    ("shop@example.com", "typo@cust.test"),
    ("shop@example.com", "x@internal.test"),
    ("news@promo.example.com", "x@internal.test"),
    ("shop@example.com", "x@spam.test"),
]
_SENT = 6  # all but the last
Seen = tuple[str, str, tuple[str, ...], str | None, bool]


class Providers:
    """The three of them."""

    def __init__(self, stack: ExitStack) -> None:
        users = {"shop": "main:secret", "promo": "promo secret"}
        self.by_name = {
            "main": stack.enter_context(ThreadedProvider(tls="starttls", users=users)),
            "promo": stack.enter_context(ThreadedProvider(tls="starttls", users=users)),
            "inner": stack.enter_context(ThreadedProvider()),
        }
        # a sender's password goes to any hop that asks for one
        self.ports = {name: one.port for name, one in self.by_name.items()}

    def seen(self) -> list[Seen]:
        return sorted(
            (name, message.sender, message.recipients, message.user, message.is_tls)
            for name, one in self.by_name.items()
            for message in one.messages
        )  # type: ignore[type-var]

    def forget(self) -> None:
        for one in self.by_name.values():
            one.messages.clear()


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with ExitStack() as stack:
        yield Providers(stack)


@contextmanager
def postfix(providers: Providers) -> Iterator[tuple[Path, int]]:
    """Run a Postfix that relays to the providers; yield its base and its port."""
    ports = providers.ports
    files = {
        "relayhosts": f"@promo.example.com [127.0.0.1]:{ports['promo']}\n",
        "sasl_passwd": "@promo.example.com promo:promo secret\n"
        f"[127.0.0.1]:{ports['main']} shop:main:secret\n",
    }
    instance = PostfixInstance(_MAIN.format(base="{base}", **ports), files)
    authorities = (Path(one.tls_ca) for one in providers.by_name.values() if one.tls_ca)
    (instance.conf / "ca.pem").write_text("".join(one.read_text() for one in authorities))
    with instance:
        yield instance.base, instance.port


def send_all(port: int) -> None:
    for number, (sender, recipient) in enumerate(_MAILS):
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test") as client:
            content = f"Subject: {number}\r\n\r\nhello\r\n"
            try:
                client.sendmail(sender, [recipient], content)
            except smtplib.SMTPRecipientsRefused:
                assert recipient == "x@spam.test"


def wait_for_mail(providers: Providers) -> list[Seen]:
    deadline_s = time.monotonic() + 60
    while len(providers.seen()) < _SENT and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return providers.seen()


def close_ports(conf: Path, port: int) -> None:
    """Let Postfix take no mail any more, as the page says; it goes on with what it has."""
    subprocess.run(["postconf", "-c", conf, "-e", "master_service_disable=inet"], check=True)
    subprocess.run(["postfix", "-c", conf, "reload"], check=True, capture_output=True)
    deadline_s = time.monotonic() + 30
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline_s:
            socket.create_connection(("127.0.0.1", port)).close()
            time.sleep(0.05)
    left = subprocess.run(["postqueue", "-c", conf, "-p"], check=True, capture_output=True)
    assert left.stdout == b"Mail queue is empty\n"


@needs("root")
def test_the_same_mail_goes_the_same_way(providers: Providers, tmp_path: Path) -> None:
    output = tmp_path / "relaygw.yaml"
    with postfix(providers) as (base, port):
        send_all(port)
        by_postfix = wait_for_mail(providers)
        assert len(by_postfix) == _SENT, (base / "mail.log").read_text()
        providers.forget()
        words = [str(base / "conf"), "--output", str(output), "--maillog", str(base / "mail.log")]
        done = run_relaygw(
            ["import-postfix", "--mend", "--json", *words], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        with (base / "mail.log").open() as lines:
            logged = list(read_maillog(lines))
        words = ["shadow", "run", "--maillog", str(base / "mail.log"), "--json"]
        seen = run_relaygw(["--config", str(output), *words], capture_output=True, text=True)
        close_ports(base / "conf", port)
        ca_file = shutil.copy(base / "conf" / "ca.pem", tmp_path)
        written = yaml.safe_load(output.read_text().replace(f"{base}/conf/ca.pem", ca_file))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    other = [row for row in rows if row["kind"] == "mail" and row["result"] != "same"]
    # a sender's password is not shown to the inner host, which asks for none
    assert {row["recipient"].partition("@")[2] for row in other} == {"internal.test"}
    assert all(row["sender"].endswith("@promo.example.com") for row in other)
    shadow = [json.loads(line) for line in seen.stdout.splitlines()]
    assert (seen.returncode, len(shadow)) == (0, len(_MAILS)), seen.stderr
    assert {one["result"] for one in shadow} == {"same"}
    assert {one.recipient for one in logged if one.status == "sent"} == {
        recipient for _, _, recipients, _, _ in by_postfix for recipient in recipients
    }
    sections = {name: written[name] for name in ("rewrite", "recipients") if name in written}
    own = tmp_path / "gateway"
    own.mkdir()
    with Gateway(
        own, providers=written["providers"], routes=written["routes"], **sections
    ) as gateway:
        send_all(gateway.smtp_port)
        gateway.wait_until_empty()
        assert wait_for_mail(providers) == by_postfix
    assert {user for _, _, _, user, _ in by_postfix} == {"shop", "promo", None}
