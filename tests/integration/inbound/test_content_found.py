"""The content check by SMTP: off, told of, held; what it found stands nowhere."""

from __future__ import annotations

import io
from pathlib import Path

from relaygw.inbound.screen import ContentLook, Screen
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.observe.history import History
from relaygw.observe.observer import FrontObserver
from relaygw.roles.front import screen
from relaygw.settings.model import Settings
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store, read_content
from tests.integration.inbound.front_rig import Client, running_front
from tests.logs import text_log

SETTINGS = {
    "mode": "production",
    "providers": {"main": {"host": "smtp.provider.test"}},
    "routes": [
        {"name": "news", "sender": ["@news.test"], "stream": "promotional", "providers": ["main"]},
        {"name": "default", "providers": ["main"]},
    ],
}
CARD = "4111111111111111"


async def send(client: Client, sender: str, text: str, subject: str = "Order 1") -> str:
    await client.command(f"MAIL FROM:<{sender}>".encode())
    await client.command(b"RCPT TO:<b@cust.test>")
    await client.command(b"DATA")
    reply = await client.command(f"Subject: {subject}\r\n\r\n{text}\r\n.".encode())
    return reply.split()[-1]


async def test_what_is_found_is_told_of_or_held_and_never_shown(tmp_path: Path) -> None:
    settings = SETTINGS | {"content_check": {"transactional": "hold", "promotional": "warn"}}
    log, history = io.StringIO(), History()
    observer = FrontObserver(text_log(log), history)

    def screened(store: Store) -> Screen:
        made = screen(Settings.model_validate(settings), store, observer)
        assert made is not None
        return made

    async with running_front(tmp_path, settings=settings, screened=screened) as rig:
        client = await rig.greeted()
        held = await send(client, "a@shop.test", f"Your card {CARD}, password: s3cr3t9")
        warned = await send(client, "a@news.test", f"Your card {CARD}")
        await send(client, "a@shop.test", "Your order 4111111111111111")
        written = log.getvalue() + rig.log.getvalue()
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    waiting = store.queue.search(Selection(states=frozenset({DeliveryState.HELD})), limit=9)
    found = "content check, card_number+password: found in its text"
    holds = [(one.queue_id, part.hold) for one in waiting for part in one.deliveries]
    assert [(one, hold.sentence) for one, hold in holds if hold is not None] == [(held, found)]
    assert f"{held}: warning: content check: found 1 card number, 1 password; held" in written
    assert f"{warned}: warning: content check: found 1 card number\n" in written
    assert CARD not in written
    assert "s3cr3t9" not in written
    ((_, counts),) = history.take()
    assert {label: n for (series, label), n in counts.items() if series == "found"} == {
        "held card_number": 1,
        "held password": 1,
        "warned card_number": 1,
    }
    store.close()
    off = screen(Settings.model_validate(SETTINGS), store, observer)
    assert off is not None  # for others
    assert not any(isinstance(one, ContentLook) for one in off.checks)


async def test_a_subject_with_it_is_changed_nowhere_but_in_what_is_shown(tmp_path: Path) -> None:
    settings = SETTINGS | {"content_check": {"transactional": "hold", "promotional": "warn"}}
    subject = "Ihr Passwort lautet Geheimnis"

    def counting(store: Store) -> Screen:
        return Screen((), told=print)

    async with running_front(tmp_path, settings=settings, screened=counting) as rig:
        client = await rig.greeted()
        for sender in ("a@shop.test", "a@news.test"):
            await send(client, sender, "x", subject)
        log = rig.log.getvalue()
    assert log.count("Ihr Passwort lautet (password hidden)") == 2
    assert "Geheimnis" not in log
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    templates = store.sources.sum_mail("template", 0, until_ms=clock_ms() + 3_600_000)
    assert [one.key for one in templates] == ["Ihr Passwort lautet (password hidden)"]
    for entry in store.queue.search(Selection(), limit=9):
        assert entry.subject == "Ihr Passwort lautet (password hidden)"
        assert f"Subject: {subject}".encode() in b"".join(read_content(store, entry))
    store.close()
