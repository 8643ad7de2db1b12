"""A front counts by class, and hostile clients do not fill its memory or the queue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.inbound import mail_classes
from relaygw.inbound.mail_classes import Known, MailClasses
from relaygw.inbound.sources import SourceCounts, follow_queue, write_counts
from relaygw.mail.envelope import AcceptedMessage, NewRecipient, Source
from relaygw.mail.mail_class import (
    OTHER_SCRIPTS,
    OTHER_SOURCES,
    OTHER_SUBJECTS,
    ClassCount,
    MailClass,
)
from relaygw.mail.state import RecipientState
from relaygw.store.sources import MAX_CLASSES, MAX_CLASSES_OF_SOURCE
from relaygw.store.store import Store, open_store
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted
from tests.campaign import times
from tests.queues import make_queue

SUBJECTS = times(20_000, campaign=1_000_000)


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path}/queue.db"
    make_queue(made)
    return made


def words(number: int) -> str:
    """Return a subject that no other number has, of letters alone."""
    letters = "".join(chr(103 + int(digit)) for digit in str(number))  # no hexadecimal ones
    return f"zz{letters} buy {letters[::-1]}x"


def counted(
    classes: MailClasses, subject: str, *, at_ms: int = NOW_MS, client: str = "10.0.0.5"
) -> AcceptedMessage:
    source = Source(client=client, listener="127.0.0.1:25")
    mail_class = classes.of(source, "a@shop.test", subject, "transactional")
    return accepted(at_ms=at_ms, mail_class=mail_class)


async def test_a_million_subjects_of_one_client_are_a_few_rows(url: str) -> None:
    store = open_store(url)
    classes, counts = MailClasses(), SourceCounts()
    template = counted(classes, "Order 1")
    counts.add([template])
    for number in range(SUBJECTS):
        source = Source(client="10.0.0.5", listener="127.0.0.1:25")
        sender = f"a@{number}.test"
        found = classes.of(source, sender, words(number), "transactional")
        counts.add([replace(template, mail_class=found)])
        if number % 5000 == 0:
            await write_counts(counts, classes, store)
    await write_counts(counts, classes, store)
    known = {one.mail_class.template: one.messages for one in store.sources.known_classes()}
    assert len(known) == MAX_CLASSES_OF_SOURCE + 1
    assert sum(known.values()) == SUBJECTS + 1
    assert known[OTHER_SUBJECTS] > SUBJECTS * 0.9
    assert len(classes) <= MAX_CLASSES_OF_SOURCE
    # mail that was known before is counted as ever
    counts.add([counted(classes, "Order 2")])
    assert next(iter(counts.take())).mail_class == template.mail_class
    store.close()


def test_many_new_scripts_of_a_host_are_one_and_known_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classes, now_s = MailClasses(), [0.0]
    monkeypatch.setattr(mail_classes.time, "monotonic", lambda: now_s[0])

    def class_of(script: str, uid: int = 33) -> MailClass:
        source = Source(uid=uid, script=script)
        return classes.of(source, "a@shop.test", "x", "transactional")

    first = [class_of(f"33:{words(number)}.php") for number in range(100)]
    assert len({*first}) == mail_classes.MAX_NEW_SCRIPTS + 1
    assert first[-1].script == OTHER_SCRIPTS
    assert class_of("34:b.php", uid=34).script == "34:b.php"
    # known ones, and new ones of the next hour
    classes.follow(Known([(first[0].class_id, first[0].source_id)]))
    assert class_of(first[0].script) == first[0]
    now_s[0] = 3601.0
    assert class_of("33:new.php").script == "33:new.php"


def test_many_new_hosts_that_one_client_names_are_counted_as_that_client() -> None:
    classes = MailClasses()

    def host_of(host: str, uid: int = 33, client: str = "10.0.0.9") -> str:
        source = Source(client=client, listener="127.0.0.1:25", host=host, uid=uid)
        return classes.of(source, "a@shop.test", "x", "transactional").host

    hosts = [host_of(f"h{number}") for number in range(1000)]
    assert len({*hosts}) == mail_classes.MAX_NEW_NAMED + 1
    assert hosts[-1] == host_of("h1", uid=999) == "10.0.0.9"
    assert host_of("h1") == "h1"  # it is known
    assert host_of("h5000", client="10.0.0.10") == "h5000"


def test_sources_are_bounded_and_old_ones_make_room() -> None:
    classes = MailClasses()

    def of(client: str, subject: str = "x") -> MailClass:
        source = Source(client=client, listener="127.0.0.1:25")
        return classes.of(source, "a@shop.test", subject, "transactional")

    hosts = [of(f"10.1.{number // 250}.{number % 250}").host for number in range(MAX_CLASSES + 1)]
    assert hosts[-1] == OTHER_SOURCES
    assert len({*hosts}) == len(classes) + 1 == MAX_CLASSES + 1
    of_known = of("10.1.0.0", "y")
    assert (of_known.host, of_known.template) == ("10.1.0.0", OTHER_SUBJECTS)
    classes.follow(Known())  # the queue has forgotten them
    assert of("10.9.9.9").host == "10.9.9.9"
    assert len(classes) == 1


def test_texts_that_end_differently_behind_their_limit_fill_no_memory() -> None:
    classes = MailClasses()
    found = set()
    for number in range(MAX_CLASSES + 10):
        source = Source(client="10.0.0.5", uid=33, script=f"{'x' * 300}{number}")
        found.add(classes.of(source, "a@shop.test", "Order 1", "transactional"))
    assert len(found) == 1 and len(classes) <= MAX_CLASSES


async def test_known_mail_keeps_its_place_through_a_flood_and_a_restart(url: str) -> None:
    store = open_store(url)
    classes, counts = MailClasses(), SourceCounts()
    order = counted(classes, "Order 1")
    counts.add([order])
    await write_counts(counts, classes, store)
    restarted = MailClasses()
    assert await follow_queue(restarted, store)
    for number in range(MAX_CLASSES_OF_SOURCE * 2):
        flood = counted(restarted, words(number))
        counts.add([flood])
    assert flood.mail_class is not None and flood.mail_class.template == OTHER_SUBJECTS
    assert counted(restarted, "Order 2").mail_class == order.mail_class
    await write_counts(counts, restarted, store)
    assert await follow_queue(restarted, store)
    assert counted(restarted, "Order 3").mail_class == order.mail_class
    store.close()


def test_recipients_are_counted_with_those_that_were_refused() -> None:
    classes, counts = MailClasses(), SourceCounts()
    blocked = NewRecipient(address="c@x.test", state=RecipientState.BLOCKED)
    mail_class = counted(classes, "x").mail_class
    counts.add(
        [
            accepted("b@x.test", blocked, mail_class=mail_class, refused_recipients=3),
            accepted(mail_class=mail_class, at_ms=NOW_MS + 7000),
            accepted(mail_class=None),
            accepted(mail_class=mail_class, is_bounce_mail=True),
        ]
    )
    (count,) = counts.take()
    assert (count.messages, count.recipients, count.refused, count.gap_ms) == (2, 6, 4, 7000)


class Away(AlteredStore):
    error: Exception | None = StoreUnavailable("away")

    def count_mail(self, counts: list[ClassCount]) -> set[str]:
        if self.error is not None:
            raise self.error
        found: set[str] = super().count_mail(counts)  # type: ignore[misc]
        return found


async def test_counts_wait_for_the_queue_within_bounds(url: str) -> None:
    store = Away(url)
    classes, counts = MailClasses(), SourceCounts(most=30)
    for number in range(20):
        counts.add([counted(classes, words(number))])
    await write_counts(counts, classes, store)  # type: ignore[arg-type]
    for number in range(40):
        counts.add([counted(classes, words(number), at_ms=NOW_MS + 9000)])
    assert counts.uncounted == 10
    store.error = None
    await write_counts(counts, classes, store)  # type: ignore[arg-type]
    known = store.real.sources.known_classes()
    assert sorted(one.messages for one in known) == [*[1] * 10, *[2] * 20]
    store.error = Unstorable("a defect")
    counts.add([counted(classes, "x")])
    await write_counts(counts, classes, store)  # type: ignore[arg-type]
    assert (counts.take(), counts.uncounted) == ([], 11), "what is refused for good is not kept"
    store.close()


async def test_a_second_front_learns_what_the_queue_has_no_room_for(url: str) -> None:
    store: Store = open_store(url)
    first, second = MailClasses(), MailClasses()
    counts = SourceCounts()
    for number in range(MAX_CLASSES_OF_SOURCE):
        counts.add([counted(first, words(number))])
    await write_counts(counts, first, store)
    counts.add([counted(second, "New")])
    await write_counts(counts, second, store)
    assert len(store.sources.known_classes()) == MAX_CLASSES_OF_SOURCE + 1
    again = counted(second, "New").mail_class
    assert again is not None and again.template == OTHER_SUBJECTS
    store.close()
