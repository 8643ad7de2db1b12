"""Takes the pictures of docs/pictures anew: `.venv/bin/python -m tests.pictures [NAME ...]`.

Two gateways live through some hours by a clock that is set by hand, so that each run shows the
same but for queue ids: one that sends, and one of a staging shop. Beside the Debian packages of the
tests it needs pngquant, fonts-noto-cjk and fonts-noto-color-emoji.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from relaygw.mail import envelope
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import read_header
from relaygw.mail.hold import provider_down
from relaygw.mail.outcome import Scope, Stage, Verdict
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.state import CaptureCode, DeliveryState, RecipientState
from relaygw.operations.queue_actions import HOLD, Order, change_queued
from relaygw.policy.retry import unsent
from relaygw.settings.model import fingerprint
from relaygw.store.holds import Hold
from relaygw.store.instances import Instance
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from relaygw.store.watch import Incident
from relaygw.web.indexing import Indexer
from tests.builders import accepted, selected
from tests.e2e.browser import letters
from tests.e2e.browser.browsing import Visit, chromium
from tests.integration.web.conftest import running
from tests.integration.web.people import PASSWORDS, with_logins
from tests.queues import make_queue

PICTURES = Path(__file__).parents[1] / "docs/pictures"
ZONE = ZoneInfo("Europe/Berlin")
NOW_MS = int(datetime(2026, 11, 26, 15, 42, 20, tzinfo=ZONE).timestamp() * 1000)
MINUTE_MS = 60_000


def go_to(minutes_ago: float) -> None:
    """Set the clock to so long before the pictures are taken; there it stands still."""
    at_ms = NOW_MS - int(minutes_ago * MINUTE_MS)
    time.time_ns, time.time = lambda: at_ms * 1_000_000, lambda: at_ms / 1000


# --- two gateways for some hours ----------------------------------------------------------------

OK, LATER = "250 2.0.0 Ok: queued as 4F1B23C04D", "451 4.7.1 Greylisted, please try again later"
REPLIES = {  # to one try after the other, the last one again and again; by address or subject
    "joerg.gruen@kunde.example": [LATER], "zoe.lukasik@poczta.example": [LATER, OK],
    "s.okafor@firma.example": ["452 4.2.2 Mailbox full, try again later"],
    "carla.lost@gmial.example": ["550 5.1.1 The account that you tried to reach does not exist"],
    "tom.ng@customer.example": ["550 5.7.1 Rejected as spam by content scanner"],
    "Ihre Bestellung 100000446 ist unterwegs 🫖": [LATER],
    "Rechnung 2026-00419": ["552 5.2.2 Mailbox full"],
}  # fmt: skip


def accept(store: Store, content: bytes, to: envelope.NewRecipient, **more: Any) -> str:
    """Take a mail at the present time; return its queue id."""
    content = content.replace(b"\n", b"\r\n")
    queue_id = QueueIdSource().next_id(clock_ms())
    facts = read_header(content, frozenset({"from"}))
    sender = parseaddr(facts.values["from"])[1]
    route, stream = ("journal", "promotional") if "news." in sender else ("orders", "transactional")
    part = envelope.NewDelivery(route=route, stream=stream, recipients=(to,))
    source = envelope.Source(client="10.0.0.7", helo="web1.shop.example", listener="10.0.0.5:25")
    values: dict[str, Any] = {"deliveries": (part,), "source": source, "at_ms": clock_ms()} | more
    store.intake.accept_batch([accepted(
        queue_id=queue_id, sender=sender, content=content, subject=facts.subject,
        message_id=facts.message_id, **values)])  # fmt: skip
    return queue_id


ROLES = ("delivery", "front", "web")
SETTINGS = {
    "hostname": "gw1.shop.example", "queue": {"keep_content": "7d"},
    "providers": {
        "sendgrid": {"preset": "sendgrid", "host": "smtp.sendgrid.net", "daily_quota": 50_000},
        "ses": {"preset": "ses", "host": "email-smtp.eu-west-1.amazonaws.com"}},
    "routes": [{"name": "journal", "sender": ["@news.fernandfig.example", "@news.shop.example"],
                "stream": "promotional", "providers": ["ses"]},
               {"name": "orders", "providers": ["sendgrid"]}],
    "recipients": {"allow": ["dev@agency.example"]},
}  # fmt: skip


def work(store: Store) -> None:
    for route, provider in (("orders", "sendgrid"), ("journal", "ses")):
        due = store.leases.claim(route, limit=99, incarnation="delivery", now_ms=clock_ms())
        told = [tried(one, provider) for one in due]
        if any(hold.key == provider for hold in store.holds.in_force()):
            way = (DeliveryState.DEFERRED, NOW_MS + 4 * MINUTE_MS, provider_down(provider))
            told = [unsent(one, *way) for one in due]
        store.leases.record_batch(told, incarnation="delivery", now_ms=clock_ms())


def tried(claimed: envelope.ClaimedDelivery, provider: str) -> envelope.DeliveryUpdate:
    (one,), tries = claimed.recipients, claimed.attempts
    replies = REPLIES.get(claimed.subject) or REPLIES.get(one.address, [OK])
    reply = replies[min(tries, len(replies) - 1)]
    state, verdict, stage = {
        "2": (RecipientState.DELIVERED, Verdict.DELIVERED, Stage.CONTENT),
        "4": (RecipientState.PENDING, Verdict.RETRY, Stage.RCPT),
        "5": (RecipientState.BOUNCED, Verdict.BOUNCE, Stage.RCPT),
    }[reply[0]]
    update = envelope.RecipientUpdate(
        rcpt_no=one.rcpt_no, state=state, reply=reply, dsn=reply.split()[1], provider=provider,
        stage=stage, verdict=verdict)  # fmt: skip
    waits = verdict is Verdict.RETRY
    return envelope.DeliveryUpdate(
        queue_id=claimed.queue_id, delivery_no=0, provider=provider, recipients=(update,),
        state=DeliveryState.DEFERRED if waits else DeliveryState.FINISHED, is_first_try=not tries,
        due_at_ms=clock_ms() + (5, 15, 30, 60, 120)[min(tries, 4)] * MINUTE_MS,
        relay=f"smtp.{provider}.example[192.0.2.17]:587", reason=reply if waits else None,
    )  # fmt: skip


def count_others(store: Store, minutes_ago: int) -> None:
    """Count other mail of five minutes: an hour of a newsletter, half an hour of greylisting."""
    wave = minutes_ago * 37 % 23
    sent, news = 70 + wave, 130 + 4 * wave if 70 <= minutes_ago < 125 else 0
    put_off = 22 + wave if 95 <= minutes_ago < 120 else wave // 8
    amounts = {
        ("delivered", "sendgrid"): sent, ("delivered", "ses"): news,
        ("deferred", "sendgrid"): put_off, ("messages", "10.0.0.5:25"): sent + news + wave // 12,
        ("in_queue", "sendgrid 300"): sent - wave, ("in_queue", "sendgrid 700"): wave,
        ("in_queue", "ses 1500"): news, ("refused", "554 5.7.1"): wave // 16,
    }  # fmt: skip
    at_ms = NOW_MS - minutes_ago * MINUTE_MS
    store.watch.add_history(at_ms, {what: number for what, number in amounts.items() if number})


def refuse_key(store: Store) -> None:
    reason = "535 Authentication Credentials Invalid"
    key: dict[str, Any] = {"key": "ses", "since_ms": clock_ms()}
    remedy = "Write a valid SMTP user name and password of SES into the configuration"
    store.holds.put_hold(Hold(
        **key, scope=Scope.CREDENTIAL.value, reason=reason, remedy=f"{remedy}.",
        probe_at_ms=NOW_MS + 4 * MINUTE_MS))  # fmt: skip
    store.watch.open_incident(Incident(
        **key, incident_id="1", rule="auth_failed", told=("slack",),
        summary=f"provider ses refuses the login: {reason}",
        remedy=f"{remedy}; a new one is tried automatically, and nothing bounces meanwhile",
    ))  # fmt: skip


def send_for_hours(store: Store) -> dict[str, str]:
    """Let a gateway send; return the paths of some mails, by name."""
    for minutes_ago in range(4 * 60, 0, -5):
        count_others(store, minutes_ago)
    for number in range(60):
        go_to(234 - number * 3.85)
        if number == 48:
            refuse_key(store)
        turn, place = divmod(number, len(letters.PEOPLE))
        to, (_, language) = list(letters.PEOPLE.items())[place]
        shop, subject = letters.SUBJECTS[language][(number + 2 * turn) % 4]
        content = letters.short_mail(shop, to, subject.format(number + 10))
        queue_id = accept(store, content, envelope.NewRecipient(address=to))
        if to.startswith("carla") and "order" in subject:
            bounced = queue_id
        work(store)
    go_to(5)
    held = store.queue.search_ids(selected(recipient="s.okafor@firma.example"), limit=1)
    order = Order(actor="otto", detail="web", note="ask the customer first")
    change_queued(store, HOLD, held, order, now_ms=clock_ms())
    store.limits.use_quota("sendgrid", wanted=41_234, quota=50_000)
    return {"bounced": f"/queue/{bounced}"}


def capture(store: Store) -> dict[str, str]:
    """Let the gateway of a staging shop capture mail; return the paths of some mails, by name."""
    paths: dict[str, str] = {}
    for name, to, minutes_ago, tags in (
        ("cron", "ops@shop.example", 1600, []), ("rtl", "dana@customer.example", 310, []),
        ("newsletter", "lena@customer.example", 190, ["marketing"]),
        ("ご注文ありがとうございます 🎁", "tanaka.misaki@mail.example", 140, ["checkout"]),
        ("cron", "ops@shop.example", 75, []), ("umlauts", "joerg@kunde.example", 52, []),
        ("Willkommen im Teehaus, Zoë 🫖", "zoe.lukasik@poczta.example", 31, []),
        ("reset", "m.oduya@customer.example", 18, ["account"]),
        ("order", "anna.berg@customer.example", 3, ["checkout", "eu"]),
    ):  # fmt: skip
        go_to(minutes_ago)
        letters.SENT_AT = datetime.fromtimestamp(time.time(), ZONE)
        content = letters.all_letters().get(name) or letters.short_mail(letters.TEA, to, name)
        why = CaptureCode.NOT_ALLOWED.sentence()
        one = envelope.NewRecipient(address=to, state=RecipientState.CAPTURED, reason=why)
        source = envelope.Source(uid=33, script="60:index.php", cwd="/srv/shop/pub")
        queue_id = accept(store, content, one, mode="staging", source=source)
        paths[name] = f"/sandbox/{queue_id}"
        Indexer(store).catch_up(within_s=None)
        store.sandbox.set_tags([queue_id], tags)
        if name in ("cron", "rtl"):
            store.sandbox.mark_read([queue_id], is_read=True)
    return paths


# --- the pictures ----------------------------------------------------------------------------

LIVES = {"production": send_for_hours, "staging": capture}
PICTURED = (  # mode, name, path or name of a mail, width, height, colours
    ("production", "dashboard", "/", 1280, 1616, "light"),
    ("production", "queue-message", "bounced", 1280, 1000, "light"),
    ("production", "queue-phone-dark", "/queue?state=deferred", 390, 844, "dark"),
    ("production", "find", "/find?q=anna.berg", 1280, 640, "light"),
    ("staging", "inbox", "order", 1440, 860, "light"),
    ("staging", "inbox-phone-dark", "/sandbox", 390, 844, "dark"),
    ("staging", "message", "order", 1280, 860, "light"),
    ("staging", "message-dark", "newsletter", 1280, 860, "dark"),
)


def take_all(base: str, mode: str, paths: dict[str, str]) -> None:
    with chromium() as browser:
        for whose, name, path, width, height, colours in PICTURED:
            look = {"viewport": {"width": width, "height": height}, "color_scheme": colours}
            if whose == mode and (not sys.argv[1:] or name in sys.argv[1:]):
                with browser.visit(base, timezone_id=ZONE.key, **look) as visit:
                    take(visit, name, paths.get(path, path))


def take(visit: Visit, name: str, path: str) -> None:
    """Take one picture as an operator sees the page, with a clock that stands still, too."""
    page, picture = visit.page, PICTURES / f"{name}.png"
    page.clock.set_fixed_time(NOW_MS / 1000)
    page.add_init_script("Object.defineProperty(Notification, 'permission', {value: 'default'})")
    visit.go("/login")
    page.get_by_label("Name").fill("otto")
    page.get_by_label("Password").fill(PASSWORDS["otto"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")
    visit.go(path)
    page.wait_for_load_state("networkidle")
    if name == "message":
        page.get_by_text("Phone", exact=True).click()
    page.screenshot(path=picture, animations="disabled")
    subprocess.run(["pngquant", "--force", "--strip", "--output", picture, picture], check=True)
    print(f"{picture}: {picture.stat().st_size // 1000} kB")


async def main() -> None:
    """Take the named pictures, or all."""
    with tempfile.TemporaryDirectory() as directory:
        for mode, live in LIVES.items():
            url = f"sqlite:///{directory}/{mode}.db"
            make_queue(url)
            store, settings = (
                open_store(url, rules=StoreRules(keep_content=True)),
                with_logins(mode, relay=SETTINGS),
            )
            go_to(50 * 60)
            for role in ROLES:
                mark = fingerprint(settings)
                store.instances.register(Instance(role, "gw1.shop.example", role, 812, "1", mark))
            paths = live(store)
            go_to(0)
            for role in ROLES:
                store.instances.heartbeat(role)
            async with running(store, settings, None) as client:
                await asyncio.to_thread(take_all, str(client.base_url), mode, paths)
            store.close()


if __name__ == "__main__":
    asyncio.run(main())
