"""What `log.redact` takes out, and that it is out of every line."""

from __future__ import annotations

import io

import pytest

from relaygw.mail.envelope import NewRecipient, Source
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.events import Accepted, Event, Note, Rejected
from relaygw.observe.json_form import JsonForm
from relaygw.observe.maillog import Form
from tests.builders import accepted, claimed
from tests.logs import text_log
from tests.unit.observe.events import attempted, events_with, outcome

SUBJECT, PERSON, DOMAIN = "canary words", "canary.person", "canary-shop.test"
ADDRESS = f"{PERSON}@{DOMAIN}"
SAID = f"550 5.1.1 <{ADDRESS}>: no such user; {SUBJECT!r} refused; see mailto:{PERSON}%40{DOMAIN}"


def private_events() -> list[Event]:
    source = Source(client="10.0.0.5", uid=33)
    entry = NewRecipient(
        address=ADDRESS, original=PERSON, state=RecipientState.BLOCKED, reason=SAID
    )
    message = accepted(
        entry, sender=ADDRESS, given_sender=PERSON, subject=SUBJECT, source=Source(uid=33)
    )
    delivery = claimed(sender=ADDRESS, subject=SUBJECT, source=source)
    return [
        Accepted(message),
        outcome(
            RecipientState.BOUNCED,
            SAID,
            address=ADDRESS,
            original=ADDRESS,
            sender=ADDRESS,
            subject=SUBJECT,
        ),
        attempted(delivery, DeliveryState.HELD, reason=SAID),
        Rejected(
            stage="RCPT",
            peer="unknown[10.0.0.5]",
            reply=SAID.replace(SUBJECT, ""),
            sender=ADDRESS,
            protocol="ESMTP",
            helo=ADDRESS,
            command=f"RCPT TO:<{ADDRESS}>",
        ),
        Note("qmgr", f"warning: {ADDRESS} and bounce+{PERSON}={DOMAIN}@esp.test"),
    ]


def lines_with(*words: str, form: Form | None = None) -> str:
    output = io.StringIO()
    text_log(output, form=form, redact=words).write(private_events())
    return output.getvalue()


FORMS = pytest.mark.parametrize(
    "form", [None, JsonForm(hostname="gw.test", with_subject=True)], ids=["postfix", "json"]
)


@FORMS
def test_without_words_everything_is_there(form: Form | None) -> None:
    text = lines_with(form=form)
    assert all(word in text for word in (SUBJECT, ADDRESS))


@FORMS
def test_subject_hides_subjects_also_where_a_reply_quotes_them(form: Form | None) -> None:
    text = lines_with("subject", form=form)
    assert SUBJECT not in text
    assert ADDRESS in text


@FORMS
def test_local_part_hides_people_and_leaves_domains(form: Form | None) -> None:
    text = lines_with("local_part", form=form)
    assert PERSON not in text
    assert f"*@{DOMAIN}" in text
    assert SUBJECT in text


@FORMS
def test_addresses_hides_domains_too(form: Form | None) -> None:
    text = lines_with("addresses", "subject", form=form)
    assert not any(word in text for word in (SUBJECT, PERSON, DOMAIN))


def test_what_is_no_address_stays() -> None:
    text = lines_with("addresses")
    assert "550 5.1.1 <*>: no such user" in text
    assert "uid=33" in text
    assert "mx.test[1.2.3.4]:587" in text


def test_the_null_sender_stays_empty() -> None:
    output = io.StringIO()
    text_log(output, redact=("addresses",)).write([Accepted(accepted(sender=""))])
    assert "from=<>, size=" in output.getvalue()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('"odd @ one"@x.test', "*@x.test"),
        ("a@[192.0.2.1]", "*@[192.0.2.1]"),
        ("bounce+b=cust.test@esp.test", "*@esp.test"),
        ("ünï@cødé.test", "*@cødé.test"),
        ("root", "root"),
    ],
)
def test_forms_of_addresses_in_free_text(given: str, shown: str) -> None:
    output = io.StringIO()
    text_log(output, redact=("local_part",)).note("qmgr", f"to {given}, later")
    assert output.getvalue().endswith(f": to {shown}, later\n")


def test_redacted_events_read_as_others_do() -> None:
    plain, hidden = io.StringIO(), io.StringIO()
    text_log(plain).write(events_with("x"))
    text_log(hidden, redact=("subject", "addresses")).write(events_with("x"))
    assert len(plain.getvalue().splitlines()) == len(hidden.getvalue().splitlines())
