"""Documented events of each provider: verified, read, and the same however often they come."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from relaygw.feedback.formats import FORMATS
from relaygw.mail.clock import clock_ms
from relaygw.mail.verdict import Event, Kind
from tests.feedback.documented import EXAMPLES, Example, Sent, examples
from tests.feedback.signers import SIGNERS, Signed, Signer, signer_of
from tests.tables import each_of


async def take(preset: str, signer: Signer, signed: Signed) -> list[Event]:
    """Verify and read a post as the listener does."""
    form = FORMATS[preset]
    verified = await form.verify(signed.post(clock_ms()), signer.trust)
    return form.read(signed.body) if verified.is_events else []


@each_of("example", EXAMPLES, ids=str)
async def test_it_means(example: Example) -> None:
    signer, sent = signer_of(example.preset), Sent()
    events = await take(example.preset, signer, signer.sign([example.make(sent)], clock_ms()))
    if example.kind is None:
        assert events == []
        return
    (event,) = events
    assert (event.kind, event.address, event.others) == (example.kind, sent.address, 0)
    assert event.mark == sent.mark
    assert event.at_ms == sent.at_ms
    if example.preset == "mailgun":
        assert event.message_id == sent.message_id
    elif example.preset == "brevo":
        assert event.provider_id == event.message_id == sent.message_id
    else:
        assert event.provider_id == sent.provider_id
    if example.preset in ("ses", "sendgrid", "resend"):
        assert event.message_id == sent.message_id
    assert json.loads(event.raw)


def test_every_kind_is_documented_for_every_provider_that_tells_it() -> None:
    told = {preset: {each.kind for each in examples(preset)} - {None} for preset in SIGNERS}
    assert set(SIGNERS) == set(FORMATS)
    assert told["ses"] == told["sendgrid"] == told["mailgun"] == told["brevo"] == set(Kind)
    assert told["postmark"] == set(Kind) - {Kind.ACCEPTED}
    assert told["resend"] == set(Kind) - {Kind.UNSUBSCRIBED}


@pytest.mark.parametrize("preset", sorted(SIGNERS))
async def test_replayed_ten_times_and_shuffled_it_is_counted_once(preset: str) -> None:
    signer, chance = signer_of(preset), random.Random(17)
    pieces = [
        (example, example.make(Sent(address=f"c{number}@cust.test")))
        for number, example in enumerate(examples(preset))
    ]
    tenfold = pieces * 10
    chance.shuffle(tenfold)
    kinds: dict[str, set[tuple[Kind, str | None]]] = {}
    posts = []
    while tenfold:
        size = chance.randint(1, 20) if signer.is_array else 1
        batch, tenfold = tenfold[:size], tenfold[size:]
        posts.append(signer.sign([payload for _, payload in batch], clock_ms()))
    for signed in posts:
        for event in await take(preset, signer, signed):
            kinds.setdefault(event.key, set()).add((event.kind, event.address))
    wanted = [
        (each.kind, f"c{number}@cust.test")
        for number, (each, _) in enumerate(pieces)
        if each.kind is not None
    ]
    assert sorted(pair for pairs in kinds.values() for pair in pairs) == sorted(wanted)
    assert all(len(pairs) == 1 for pairs in kinds.values())


@pytest.mark.parametrize("preset", sorted(SIGNERS))
async def test_other_things_have_other_keys(preset: str) -> None:
    signer, sent = signer_of(preset), Sent()
    sents = [
        sent,
        replace(sent, at_ms=sent.at_ms + 1000, event_id="b" * 32),
        replace(sent, address="eve@cust.test", event_id="c" * 32),
        replace(sent, provider_id="other", message_id="other@shop.test", event_id="d" * 32),
    ]
    keys = set()
    for example in examples(preset):
        if example.kind is not None:
            for each in sents:
                each = replace(each, event_id=f"{len(keys):04x}{each.event_id}")
                signed = signer.sign([example.make(each)], clock_ms())
                keys |= {(e.key, e.kind) for e in await take(preset, signer, signed)}
    kinds = {key: 0 for key, _ in keys}
    assert len(kinds) == len(keys) >= 4 * len({each.kind for each in examples(preset)} - {None})
