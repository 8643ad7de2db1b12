"""What must not be mailed is found in every coding, and ordinary numbers are none of it."""

from __future__ import annotations

import base64
import quopri
import random
import time
from collections.abc import Iterator
from itertools import product

from relaygw.mail.content import read_header
from relaygw.mail.finding import words_of
from relaygw.policy.content_check import find_in, shown_subject
from relaygw.policy.content_text import MAX_CONTENT_BYTES

CARD, IBAN = "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"


def found(mail: str | bytes, own_ibans: tuple[str, ...] = ()) -> str:
    raw = mail if isinstance(mail, bytes) else mail.replace("\n", "\r\n").encode()
    facts = read_header(raw)
    return words_of(find_in(raw, header_end=facts.end, subject=facts.subject, own_ibans=own_ibans))


FOUND = [
    (f"Karte {CARD}", "1 card number"),
    (f"{CARD} and 4111-1111-1111-1111, 4111111111111111", "1 card number"),
    ("cards 5555 5555 5555 4444, 3782 822463 10005", "2 card numbers"),
    ("Visa 4242424242424242", "1 card number"),
    ("Ihre Kreditkarte zur Bestellung: 4242424242424242", "1 card number"),
    ("card 4111\u00a01111\u00a01111\u00a01111", "1 card number"),
    (f"Konto: {IBAN} BIC COBADEFFXXX", "1 IBAN"),
    ("GB82WEST12345698765432, FR1420041010050500013M02606", "2 IBANs"),
    ("Ihr Passwort lautet: geheim7", "1 password"),
    ("Ihr Passwort lautet Sommer.", "1 password"),
    ("Benutzer: ann\nPasswort: sommer\n", "1 password"),
    ("Ihr neues Kennwort:\n  geheim7x", "1 password"),
    ("Your password is hunter2.", "1 password"),
    ("Password: s3cr3t-0", "1 password"),
    ("Your password for shop.test: Ab12cd", "1 password"),
    ("Passwort: vergessen7", "1 password"),
    ("Zugangscode: X7K2P9", "1 password"),
    ("Votre mot de passe est : Ab12cd34", "1 password"),
    ("key AKIAIOSFODNN7EXAMPLE", "1 key or token"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA", "1 key or token"),
    (f"ghp_{'a1' * 18} sk_live_{'a1' * 12}", "2 keys or tokens"),
    ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz012345", "1 key or token"),
]
NOT_FOUND = [
    "Bestellung 4242424242424242",
    "Your order number: 4242424242424242",
    "Tracking-Nr. 4000056655665556",
    "DHL 00340434161094042557, UPS 1Z999AA10123456784, USPS 9400111899223100001000",
    "EAN 4006381333931, ISBN 978-3-16-148410-0, IMEI 490154203237518",
    "4111 1111 1111 1112",  # no check digit
    "1234 5678 9012 3452",  # no issuer
    "SKU-4111111111111111-XL, 4111111111111111abc, 12.4111111111111111",
    "DE88 3704 0044 0532 0130 00, DE12 3456",
    "Tel. +49 30 1234567890, USt-IdNr. DE123456789",
    "550e8400-e29b-41d4-a716-446655440000",
    "Ihr Passwort wurde geändert.",
    "Passwort: wie bei der Registrierung vergeben",
    "Passwort vergessen? https://shop.test/reset?token=a1b2c3d4e5f6",
    "Reset your password: https://shop.test/reset/4111111111111111",
    "Your password is required. Your password is safe.",
    "Your password was changed: 27.11.2026 12:30",
    "Password: ********",
    "Passwort: [nicht angezeigt]",
    "Passwort: unverändert",
    "Passwort: <geheim>",
    "Your password is 100% safe with us. Your password is 2-factor protected.",
    "Your password is 8-20 characters long.",
    "Passwort: vergessen?",
    "Kennwort: selbstgewaehlt",
    "Passwort: selbst gewählt",
    "Password: reset-link",
    "Order\n4242424242424242\n",
    "Ihre Bestellnummer:\n4242424242424242\n",
    "Verwendungszweck 4242424242424242",
    "Your login code is 482913. Login-Code: 482913. Zugangscode: 4829",
    "https://shop.test/?jwt=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN",
]


def test_what_must_not_be_mailed_is_found_in_every_coding() -> None:
    for text, expected in FOUND:
        assert {found(mail) for mail in codings(text)} == {expected}, text


def codings(text: str) -> Iterator[str]:
    """Yield mails that say it, in the codings and forms that mail has."""
    yield f"Subject: x\n\n{text}\n"
    head = "Subject: x\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: "
    yield f"{head}BASE64\n\n{base64.encodebytes(text.encode()).decode()}"
    yield f"{head}quoted-printable\n\n{quopri.encodestring(text.encode()).decode()}\n"
    page = "<table><tr>" + "".join(f"<td><b>{one}</b></td>\n" for one in text.split(" ")) + "</tr>"
    parts = (
        "Content-Type: text/plain\n\nHello, see the other part\n-- \nAnn\n",
        "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + "A" * 76 + "\n",
        f"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
        f"{base64.encodebytes(page.encode()).decode()}",
    )
    mail = "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n"
    yield mail + "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"
    yield f"Subject: {text.splitlines()[-1].strip()}\n\n{text}\n"  # the same is one


def test_parts_of_attached_messages_and_text_around_parts_are_read() -> None:
    coded = f"Content-Transfer-Encoding: base64\n\n{base64.encodebytes(CARD.encode()).decode()}"
    attached = f"--b\nContent-Type: message/rfc822\n\nSubject: {IBAN}\n{coded}"
    mail = "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n"
    assert found(f"{mail}{attached}--b--\n") == "1 card number, 1 IBAN"
    assert found(f"{mail}{CARD}\n--b\n\nx\n--b--\n{IBAN}\n") == "1 card number, 1 IBAN"
    no_part = "Subject: x\nContent-Type: multipart/mixed; boundary=other\n\n"
    assert found(f"{no_part}--b\n\n{CARD}\n--b--\n") == "1 card number"


def test_what_shops_write_is_none_of_it() -> None:
    assert [one for one in NOT_FOUND if found(f"Subject: {one}\n\n{one}\n")] == []


def test_a_line_above_a_number_says_what_it_is_only_as_a_label() -> None:
    for above in ("Kunde: Max", "Thank you for your order of today", "Karte zur Bestellung", ""):
        assert found(f"Subject: x\n\n{above}\n4242424242424242\n") == "1 card number", above
    for above in ("Ihre Bestellnummer:\n", "Order", "Invoice number: ", "Tracking #"):
        assert found(f"Subject: x\n\n{above}\n4242424242424242\n") == "", above


def test_a_subject_is_shown_without_what_is_found() -> None:
    for subject, shown in {
        "Ihr Passwort lautet Geheimnis": "Ihr Passwort lautet (password hidden)",
        "Token glpat-abcdefghijklmnopqrstuvwxyz": "Token (secret hidden)",
        f"Paid by {CARD}, password: s3cr3t-0": "Paid by (card number hidden)",
        f"https://s.test/{'x' * 99} {IBAN}": "https<url> (iban hidden)",
        "Passwort: geheim7 glpat-abcdefghijklmnopqrstuvwxyz": "Passwort: (password hidden)",
        "K\u00adennwort:\u00a0geheim7": "Kennwort: (password hidden)",
        "Ihre\u00a0Bestellung 1": "Ihre\u00a0Bestellung 1",
        "https://s.test/ 1": "https://s.test/ 1",
    }.items():
        assert shown_subject(subject) == shown
        assert found(f"Subject: {shown}\n\nx\n") == ""
    own = f"Pay to {IBAN}"
    assert shown_subject(own, ("DE89370400440532013000",)) == own


def test_own_ibans_and_what_is_behind_the_limit_or_no_text_do_not_count() -> None:
    assert found(f"Subject: x\n\n{IBAN}\n", ("DE89370400440532013000",)) == ""
    far = f"Subject: x\n\n{'no such thing ' * 30_000}"
    assert len(far) > MAX_CONTENT_BYTES
    assert found(f"{far}{CARD}\n") == ""
    assert found(f"Subject: x\nContent-Type: application/pdf\n\n{CARD}\n") == ""
    assert found(f"no header at all {CARD}\n") == "1 card number"
    assert found("Subject: x\nContent-Transfer-Encoding: base64\n\n=\n") == ""
    assert found("") == ""


def test_numbers_of_orders_parcels_and_invoices_are_no_cards() -> None:
    seed = 18
    at_random = random.Random(seed)
    forms = {
        "Bestellnummer: {}": 9,
        "Order #{}": 16,
        "Sendungsnummer {}": 12,
        "Tracking number: {}": 20,
        "Sendung {}": 14,
        "Rechnung {}": 10,
        "Kundennummer {}": 16,
        "EAN {}": 13,
        "Artikel {}": 15,
        "Invoice {} of today": 16,
    }
    wrong = 0
    for _ in range(2000):
        form, length = at_random.choice([*forms.items()])
        number = "".join(at_random.choices("0123456789", k=length))
        wrong += bool(found(f"Subject: Your order\n\n{form.format(number)}\n"))
    assert wrong == 0, f"seed {seed}"


HOSTILE = (
    *("4", "4 ", "4111-", "4111111111111111 ", "<", "<a ", "<style>", "&#1", "&lt", "DE89 "),
    *("DE8937040044053201300", "password:", "password for ", "password is is is "),
    *("\r\n--\r\nContent-Type: text/html\r\n\r\n", "\r\n--\r\n", "ghp_", "http://a", " ", "\r\n"),
    *("-----BEGIN ", "Bearer aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ", "charset=", "=", "=\r\n", "\0"),
)


def test_no_text_takes_long() -> None:
    kinds = ("text/plain", "text/html")
    for word, kind in product(HOSTILE, kinds):
        body = (word * (MAX_CONTENT_BYTES // len(word) + 1)).encode()
        for coding in (b"8bit", b"quoted-printable"):
            head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: ".encode() + coding
            raw = head + b"\r\n\r\n" + body
            began_s = time.thread_time()
            find_in(raw, header_end=len(head) + 2)
            assert time.thread_time() - began_s < 0.5, (word, coding)  # 20 ms here; never seconds
