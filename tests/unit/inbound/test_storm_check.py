"""A front tells a storm from other mail, and hostile clients do not fill its memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.inbound import storms
from relaygw.inbound.content import MEMORY_BYTES, ReceivedContent
from relaygw.inbound.screen import Screen
from relaygw.inbound.storms import StormCheck
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import read_header
from relaygw.mail.envelope import AcceptedMessage, NewRecipient
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import RecipientState
from relaygw.policy import storms as policy
from relaygw.policy.storms import Fingerprint, Seen, slice_ms, told_of
from relaygw.settings.storms import Storms
from relaygw.store.store import Store, open_store
from tests.builders import accepted
from tests.queues import make_queue

MINUTE_MS = 60_000
HOLD = Storms(same=3, action="hold")
CONTENT = b"Subject: Order 1\r\n\r\nThank you\r\n"


class Front:
    """A check, and messages that come by it."""

    def __init__(self, store: Store, directory: Path, settings: Storms = HOLD) -> None:
        self.lines: list[str] = []
        self.counted: list[str] = []
        self.only: frozenset[str] | None = None  # of the last message
        self.settings = settings
        self.store = store
        self._directory = directory
        self.now_ms = clock_ms()
        self.check = StormCheck(
            settings, store, told=self.lines.append, counted=self.counted.append
        )
        self._screen = Screen([self.check], told=self.lines.append)

    def look(
        self,
        *recipients: str | NewRecipient,
        content: bytes = CONTENT,
        message_id: str | None = None,
        later_ms: int = 1000,
        handed_over_ms: int | None = None,
    ) -> AcceptedMessage:
        """Return a message as it would be committed."""
        self.now_ms += later_ms
        facts = read_header(content)
        message = accepted(
            *recipients,
            at_ms=self.now_ms,
            content=content,
            subject=facts.subject,
            handed_over_ms=handed_over_ms,
        )
        message = replace(message, message_id=message_id or f"<{message.queue_id}@x.test>")
        received = ReceivedContent(self._directory)
        received.add(content)
        received.read_head()
        holds = self._screen.holds_of(message, facts, received)
        received.close()
        self.only = holds[0].only if holds else None
        causes = tuple(hold.cause for hold in holds)
        return replace(message, deliveries=(replace(message.deliveries[0], holds=causes),))

    def take(self, *recipients: str | NewRecipient, **more: object) -> bool:
        """Accept a message; return whether it is held."""
        message = self.look(*recipients, **more)  # type: ignore[arg-type]
        self._screen.committed([message])
        assert {cause.code for cause in holds_of(message)} <= {HoldCode.STORM}
        return bool(holds_of(message))

    def take_all(self, number: int, *recipients: str) -> list[bool]:
        return [self.take(*recipients) for _ in range(number)]

    def told(self) -> list[str]:
        """Return what an alert would tell."""
        self.check.refresh()
        found = self.store.repeats.storms(int(self.settings.window * 1000))
        return [one.summary for one in told_of(found, self.settings)]


def holds_of(message: AcceptedMessage) -> tuple[HoldCause, ...]:
    (part,) = message.deliveries
    return part.holds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def front(store: Store, tmp_path: Path) -> Front:
    return Front(store, tmp_path)


def test_the_same_mail_to_the_same_recipient_is_held_above_the_limit(front: Front) -> None:
    assert front.take_all(6) == [False] * 3 + [True] * 3
    (line,) = front.lines
    assert "warning: storm: the same mail went to the same recipient more than 3 times" in line
    (told,) = front.told()
    assert "the same mail came 6 times within 1h, 3 of them held" in told
    assert sorted(front.counted) == ["held"] * 3 + ["same"] * 5
    # other mail flows on
    assert not front.take("c@cust.test")
    assert not front.take(content=CONTENT.replace(b"1", b"2"))
    # and the storm is over when the window is
    assert not front.take(later_ms=61 * MINUTE_MS)


def test_a_storm_to_several_people_is_one_line(front: Front) -> None:
    everybody = [f"b{number}@cust.test" for number in range(5)]
    assert front.take_all(5, *everybody) == [False] * 3 + [True] * 2
    assert sum("warning: storm: " in line for line in front.lines) == 1


def test_one_mail_an_hour_is_no_storm_and_six_an_hour_are(store: Store, tmp_path: Path) -> None:
    slow, quick = Front(store, tmp_path), Front(store, tmp_path)
    assert not any(slow.take(later_ms=20 * MINUTE_MS) for _ in range(50))
    assert [quick.take(later_ms=10 * MINUTE_MS) for _ in range(8)][3:] == [True] * 5


def test_what_is_alike_but_not_the_same_is_no_storm(front: Front) -> None:
    for number in range(40):
        # a form of one shop, mailed to its owner
        text = b"Subject: New message\r\n\r\nNumber %d says %d\r\n" % (number, number * 17)
        assert not front.take("owner@shop.test", content=text)
        # a mailing
        assert not front.take(f"{number}@cust.test", content=b"Subject: Sale\r\n\r\nHi\r\n")
        # what a test of a shop sends again and again, and nobody gets
        captured = NewRecipient(address="x@cust.test", state=RecipientState.CAPTURED)
        assert not front.take(captured)
        # staging sends all mail to one inbox
        redirected = NewRecipient(address="dev@shop.test", original=f"{number}@cust.test")
        assert not front.take(redirected, content=b"Subject: Hi\r\n\r\nYou\r\n")
    assert front.told() == []
    assert front.lines == []


def test_the_case_of_an_address_hides_no_storm(front: Front) -> None:
    names = ("b@cust.test", "B@cust.test", "b@Cust.test", "b@cust.TEST")
    assert [front.take(name) for name in names] == [False] * 3 + [True]


LARGE = b"x" * 70 + b"\r\n" + b"0123456789abcdef\r\n" * (MEMORY_BYTES // 18)


@pytest.mark.parametrize(
    "text",
    [
        "Reset: https://shop.test/reset/8fe1c2b7a90d4e3f{}",
        "Log in: https://shop.test/login?boundary=8fe1c2b7a90d{}",
        "Your gift card: 8FE1C2B7A90D4E3{:X}",
        "Track it: https://track.test/1Z999AA1012345678{}",
        "Code 8fe1c2b7-a90d-4e3f-8fe1-c2b7a90d4e3{:x}. " + "x" * 9000,
    ],
)
def test_what_differs_in_a_token_is_told_of_and_never_held(front: Front, text: str) -> None:
    mail = "Subject: Yours\r\n\r\n{}\r\n"
    assert not any(front.take(content=mail.format(text.format(n)).encode()) for n in range(9))
    (told,) = front.told()
    assert "the same mail came 8 times" in told, "the content of the first is not looked at"
    # exact copies of one of them are held
    again = mail.format(text.format(1)).encode()
    assert [front.take(content=again) for _ in range(4)] == [False, False, True, True]


def test_large_mail_is_never_held(front: Front) -> None:
    for number in range(6):
        assert not front.take(content=b"Subject: x\r\n\r\n%s%d\r\n" % (LARGE, number))
    assert len(front.told()) == 1


def test_mail_that_begins_alike_is_another_one(front: Front) -> None:
    first, other = (b"Subject: x\r\n\r\n%s%d\r\n" % (b"x y " * 9000, n) for n in range(2))
    assert not front.take(content=first)
    assert [front.take(content=other) for _ in range(4)] == [False] * 3 + [True]


def order(number: int, token: str = "") -> bytes:
    """Return a large mail that a shop's owner gets of each order."""
    rows = b"<td>1 piece</td> <td>12.00 EUR</td>\r\n" * 400
    return b"Subject: New order\r\n\r\nOrder %d %b\r\n%b" % (number, token.encode(), rows)


@pytest.fixture
def read_whole(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the contents that are read to their end."""
    contents: list[bytes] = []

    def fingerprint(content: bytes, header_bytes: int) -> Fingerprint:
        contents.append(content)
        return policy.fingerprint(content, header_bytes)

    monkeypatch.setattr(storms, "fingerprint", fingerprint)
    return contents


def test_other_mail_to_one_address_is_read_no_further_than_it_differs(
    front: Front, read_whole: list[bytes]
) -> None:
    orders = [order(number) for number in range(20)]
    assert not any(front.take("owner@shop.test", content=one) for one in orders)
    assert read_whole == [orders[1]], "what came before the first repeat is not known"
    # and a storm among them is held, one mail later than of short mail
    assert [front.take("owner@shop.test", content=orders[7]) for _ in range(5)] == [
        *[False] * 3,
        *[True] * 2,
    ]
    (told,) = front.told()
    assert "the same mail came 5 times" in told


def test_a_storm_of_large_mail_that_differs_in_a_token_is_told_of(front: Front) -> None:
    for number in range(10):
        assert not front.take("owner@shop.test", content=order(number))
        token = f"https://shop.test/r/8fe1c2b7a90d4e3f{number:x}"
        assert not front.take("owner@shop.test", content=order(0, token))
    (told,) = front.told()
    assert "the same mail came 10 times" in told


def test_a_message_id_that_comes_again_with_other_large_mail_is_told(front: Front) -> None:
    for number in range(5):
        front.take(content=order(number))
    for number in (5, 6):
        front.take(content=order(number), message_id="<1@shop.test>")
    (told,) = front.told()
    assert "a Message-ID came again within minutes" in told


def test_large_mail_that_is_not_accepted_is_not_counted(
    front: Front, read_whole: list[bytes]
) -> None:
    for number in range(5):
        front.take(content=order(number))
    front.check.withdrawn(front.look(content=order(5)))
    for number in (6, 7):
        front.take(content=order(number))
    assert read_whole == [order(1)], "its recipient is known all the same"
    for _ in range(20):
        message = front.look(content=order(5))
        assert holds_of(message) == ()
        front.check.withdrawn(message)
    assert [front.take(content=order(5)) for _ in range(4)] == [False] * 3 + [True]


def test_only_the_recipients_who_had_too_many_are_held(front: Front) -> None:
    for number in range(6):
        assert front.take(f"{number}@cust.test", "Archive@shop.test") is (number >= 3)
        assert front.only == (frozenset({"archive@shop.test"}) if number >= 3 else None)


def test_mail_from_a_maildrop_counts_by_when_it_was_handed_over(front: Front) -> None:
    ages = [12 * MINUTE_MS * (37 * number % 60) for number in range(60)]  # 5 an hour, in no order
    front.check = StormCheck(Storms(same=5, action="hold"), front.store, told=front.lines.append)
    front._screen = Screen([front.check], told=front.lines.append)
    for age in ages:
        assert not front.take(handed_over_ms=front.now_ms - age)
    assert front.lines == []
    front.now_ms += 24 * 60 * MINUTE_MS
    lately = front.now_ms - 5 * 60 * MINUTE_MS
    many = [front.look(handed_over_ms=lately + number) for number in range(8)]
    assert [bool(one.deliveries[0].holds) for one in many] == [False] * 5 + [True] * 3


def test_mail_of_one_moment_is_held_as_exactly_in_whatever_order_it_comes(front: Front) -> None:
    step_ms = slice_ms(HOLD.window)
    edge_ms = (front.now_ms // step_ms - 1) * step_ms  # where a step of the window begins
    times = [edge_ms + 10 * number for number in (1, 2, 3, 4, -3, -4, -1, -2)]
    held = [bool(holds_of(front.look(handed_over_ms=at_ms))) for at_ms in times]
    assert held.count(False) == HOLD.same


def test_two_mails_that_only_look_alike_are_never_held(store: Store, tmp_path: Path) -> None:
    front = Front(store, tmp_path, Storms(same=1, action="hold"))
    form = b"Subject: New message\r\n\r\nFrom %s: please call me back\r\n"
    names = (b"Ann", b"Bob", b"Cid", b"Dan", b"Ann")
    assert [front.take(content=form % name) for name in names] == [False] * 5
    assert front.take(content=form % b"Dan"), "its second one"


def test_a_mailing_that_goes_out_again_and_again_is_a_storm_for_each(front: Front) -> None:
    people = [f"{number}@cust.test" for number in range(100)]
    assert front.take_all(4, *people) == [False] * 3 + [True]


def test_a_message_id_that_comes_again_within_minutes_is_told(front: Front) -> None:
    one = {"message_id": "<1@shop.test>"}
    front.take(**one)
    assert not front.take("c@cust.test", **one), "another recipient: a client may split a message"
    assert front.told() == []
    front.take(later_ms=MINUTE_MS, **one)
    (told,) = front.told()
    assert "a Message-ID came again within minutes" in told
    assert front.counted == ["same", "message_id"]
    other = {"message_id": "<2@shop.test>"}
    front.take("d@cust.test", **other)
    front.take("d@cust.test", later_ms=11 * MINUTE_MS, **other)
    assert front.counted == ["same", "message_id", "same"]


def test_what_is_not_accepted_is_not_counted(front: Front) -> None:
    for _ in range(20):  # a client that comes again while the queue does not answer
        message = front.look()
        assert holds_of(message) == ()
        front.check.withdrawn(message)
    assert front.take_all(4) == [False] * 3 + [True]


def test_many_at_the_same_time_are_held_as_exactly(front: Front) -> None:
    messages = [front.look() for _ in range(10)]
    assert [bool(one.deliveries[0].holds) for one in messages] == [False] * 3 + [True] * 7


def test_two_fronts_count_together(store: Store, tmp_path: Path) -> None:
    one, other = Front(store, tmp_path), Front(store, tmp_path)
    for front in (one, other):
        assert front.take_all(2) == [False] * 2
    for front in (one, other, one, other):
        front.check.refresh()
    assert one.take_all(1) == [True]
    (told,) = one.told()
    assert "came 5 times" in told
    # of a front that is gone nothing is forgotten
    new = Front(store, tmp_path)
    assert new.take_all(2) == [False] * 2
    new.check.refresh()
    assert new.take_all(1) == [True]


def test_memory_is_bounded_whatever_comes(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("MAX_KEYS", 50), ("MAX_STORMS", 20), ("_MAX_OPEN", 30)):
        monkeypatch.setattr(storms, name, number)
    check = front.check = StormCheck(HOLD, front.store, told=front.lines.append)
    front._screen = Screen([check], told=front.lines.append)
    for number in range(200):
        front.take(f"{number}@cust.test")
        front.take(content=b"Subject: x\r\n\r\n%d\r\n" % number)
        front.look(f"never-{number}@cust.test")
    assert check.remembered <= 2 * 50 + 20 + 30
    assert front.take_all(4, "late@cust.test") == [False] * 3 + [True]


def test_a_queue_that_is_away_loses_no_count(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    front.take_all(3)
    with monkeypatch.context() as patch:
        patch.setattr(front.store.repeats, "_write", lambda _kind: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            front.check.refresh()
    front.take_all(1)
    (told,) = front.told()
    assert "came 4 times" in told


def test_what_is_remembered_of_a_recipient_takes_little_memory(front: Front) -> None:
    def remember(first: int, number: int) -> None:
        for each in range(first, first + number):
            front.take(f"k{each}@x.test")

    remember(0, 100)  # what the first ones take, whatever is remembered
    tracemalloc.start()
    try:
        remember(100, 2000)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 250 * 2000


def test_what_is_packed_is_what_was_seen() -> None:
    for text in (None, 0, -(1 << 63), 7):
        for is_counted in (False, True):
            seen = Seen("0123456789ABCDEFG", 1_800_000_000_000, -5, text, is_counted)
            assert Seen.of(seen.packed()) == seen
