"""Mail as a web shop sends it: plain text and HTML, in three languages, each message another.

What differs from message to message is what differs in a real shop: customer, numbers, products,
links with tokens. The frame around it is the same, so that some words are in every message.
"""

from __future__ import annotations

import random
from base64 import b64encode, encodebytes
from binascii import b2a_qp
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST_NAMES = _words(
    "Anna Ben Carla David Emma Felix Greta Henrik Ida Jonas Katharina Luc Maria Nils Olga "
    "Pierre Renée Søren Tomás Ursula Viktor Wanda Zoë Jürgen Chloé Mateusz Aylin Dmitri"
)
_LAST_NAMES = _words(
    "Müller Schmidt Dubois Martin Jensen Kowalski Novák García Rossi Weber Fischer Wagner "
    "Becker Lefèvre Moreau Hoffmann Schäfer Koch Bauer Richter Klein Wolf Neumann Schwarz "
    "Zimmermann"
)
_CITIES = _words("Berlin Hamburg Köln Paris Lyon London Leeds Wien Zürich Münster Nantes Bristol")
_ADJECTIVES = _words(
    "organic slim classic waterproof vintage merino lightweight reversible quilted striped "
    "recycled brushed heavyweight cropped relaxed tapered insulated seamless"
)
_COLOURS = _words("black navy olive sand burgundy charcoal ivory rust teal mustard lilac graphite")
_THINGS = _words(
    "jacket sweater t-shirt jeans backpack scarf beanie sneakers boots raincoat blanket mug "
    "notebook lamp teapot cushion belt wallet umbrella dress skirt cardigan hoodie"
)
_STREETS = ("Hauptstraße", "Bahnhofstraße", "Rue de la Paix", "Main Street", "Lindenallee")
_FOOTER = (
    "You receive this message because you have an account at Nordlicht Outfitters GmbH, Hafenweg "
    "12, 20457 Hamburg, Germany. Registered at Amtsgericht Hamburg under HRB 123456, VAT number "
    "DE123456789. Managing directors: Petra Lang and Oliver Brandt. Questions? Our customer "
    "service is there for you Monday to Friday from 9 am to 6 pm at +49 40 123456 or by reply to "
    "this e-mail. Terms and conditions, privacy notice and the right of withdrawal are found in "
    "our shop. Please consider the environment before printing this message."
)
_TEXTS = {
    "order": (
        "Your order {order} has been received",
        "Thank you for your order, {name}! We have received it and will let you know as soon as "
        "it is on its way. You chose payment by {payment}; the amount of {total} EUR is charged "
        "when your parcel leaves our warehouse.",
    ),
    "shipping": (
        "Your order {order} is on its way",
        "Good news, {name}: your parcel has been handed to the carrier and should arrive within "
        "two working days. Follow it with the tracking number {tracking}.",
    ),
    "invoice": (
        "Rechnung {invoice} zu Ihrer Bestellung {order}",
        "Guten Tag {name}, vielen Dank für Ihre Bestellung. Anbei erhalten Sie die Rechnung "
        "{invoice} über {total} EUR. Bitte überweisen Sie den Betrag innerhalb von vierzehn Tagen, "
        "sofern Sie nicht bereits per {payment} gezahlt haben.",
    ),
    "refund": (
        "Remboursement de votre commande {order}",
        "Bonjour {name}, nous avons bien reçu votre retour et procédé au remboursement de {total} "
        "EUR. Le délai dépend de votre banque et du moyen de paiement choisi ({payment}).",
    ),
    "password": (
        "Reset your password",
        "Hello {name}, somebody, hopefully you, asked to reset the password of your account. Use "
        "the code {code} or the link below within the next hour; if it was not you, ignore this "
        "message and your password stays as it is.",
    ),
    "newsletter": (
        "{adjective} things for the new season, picked for you",
        "Hi {name}, the new collection has arrived, with {adjective} favourites in {colour} and "
        "more. Until Sunday your voucher {voucher} takes ten percent off everything that is not "
        "reduced already. See what others loved and complete your look.",
    ),
}
_SHARES = (30, 22, 14, 5, 9, 20)  # percent of the kinds above, in their order
_SENDERS = {"newsletter": "Nordlicht News <news@promo.shop.test>"}
_SENDER = "Nordlicht Outfitters <orders@shop.test>"
_DAY = "Tue, 13 Jan 2026 10:{:02}:{:02} +0100"


@dataclass(frozen=True)
class ShopMail:
    """A message with what its envelope and its row say."""

    kind: str
    number: int
    sender: str
    recipient: str
    subject: str
    message_id: str
    content: bytes


def shop_mail(number: int) -> ShopMail:
    """Return the message of a number; the same one each time."""
    chance = random.Random(number)
    (kind,) = chance.choices(list(_TEXTS), _SHARES)
    values = _values(number, chance)
    subject, text = (template.format(**values) for template in _TEXTS[kind])
    recipient = f"customer{number % 20_000}@{chance.choice(('example.com', 'example.net'))}"
    items = [_item(chance) for _ in range(chance.randint(1, 8 if kind == "newsletter" else 5))]
    message_id = f"<{chance.getrandbits(64):016x}.{number}@web{number % 4}.shop.test>"
    header = [
        f"From: {_SENDERS.get(kind, _SENDER)}",
        f"To: {_encoded(values['name'])} <{recipient}>",
        "Reply-To: service@shop.test",
        f"Subject: {_encoded(subject)}",
        f"Message-ID: {message_id}",
        f"Date: {_DAY.format(number // 60 % 60, number % 60)}",
        "MIME-Version: 1.0",
    ]
    parts = [
        _text_part("plain", _plain(text, items, values)),
        _text_part("html", _page(subject, text, items, values, chance)),
    ]
    body = _multipart("alternative", parts)
    if kind == "invoice":
        header.append("Cc: accounting@shop.test")
        body = _multipart("mixed", [body, _file_part(values["invoice"], chance)])
    return ShopMail(
        kind=kind,
        number=number,
        sender=f"bounce+{number}@{'promo.' if kind == 'newsletter' else ''}shop.test",
        recipient=recipient,
        subject=subject,
        message_id=message_id,
        content="\r\n".join(header).encode() + b"\r\n" + body,
    )


def _encoded(text: str) -> str:
    """Return text for a header, as RFC 2047 has it."""
    if text.isascii():
        return text
    return f"=?utf-8?b?{b64encode(text.encode()).decode()}?="


def _multipart(kind: str, parts: list[bytes]) -> bytes:
    boundary = f"=-{kind}-5f3c"
    cut = f"\r\n--{boundary}"
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n'
    return (
        head.encode()
        + b"".join(f"{cut}\r\n".encode() + part for part in parts)
        + f"{cut}--\r\n".encode()
    )


def _text_part(kind: str, text: str) -> bytes:
    head = (
        f"Content-Type: text/{kind}; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    return head.encode() + b2a_qp(text.encode()).replace(b"\n", b"\r\n")


def _file_part(invoice: str, chance: random.Random) -> bytes:
    head = (
        "Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
        f'Content-Disposition: attachment; filename="Rechnung-{invoice}.pdf"\r\n\r\n'
    )
    return head.encode() + encodebytes(b"%PDF-1.7\n" + chance.randbytes(3000))


def _values(number: int, chance: random.Random) -> dict[str, str]:
    return {
        "order": f"1{number:08}",
        "invoice": f"RE-2026-{number:06}",
        "tracking": f"003404{chance.getrandbits(46):014}",
        "code": f"{chance.randrange(10**6):06}",
        "voucher": f"SPRING-{chance.getrandbits(30):08X}",
        "token": f"{chance.getrandbits(160):040x}",
        "name": f"{chance.choice(_FIRST_NAMES)} {chance.choice(_LAST_NAMES)}",
        "street": f"{chance.choice(_STREETS)} {chance.randint(1, 180)}",
        "city": f"{chance.randint(10000, 99999)} {chance.choice(_CITIES)}",
        "payment": chance.choice(("PayPal", "Klarna", "Visa", "Vorkasse", "SEPA")),
        "total": f"{chance.uniform(9, 400):.2f}",
        "adjective": chance.choice(_ADJECTIVES),
        "colour": chance.choice(_COLOURS),
    }


def _item(chance: random.Random) -> str:
    name = f"{chance.choice(_ADJECTIVES)} {chance.choice(_THINGS)} in {chance.choice(_COLOURS)}"
    price = f"{chance.uniform(5, 250):.2f} EUR"
    return f"{chance.randint(1, 3)} x {name.capitalize()}, SKU {chance.getrandbits(22):07}, {price}"


def _plain(text: str, items: list[str], values: dict[str, str]) -> str:
    lines = [text, "", *items, "", f"Total: {values['total']} EUR", "", "Delivery address:"]
    lines += [values["name"], values["street"], values["city"], "", _FOOTER]
    return "\n".join(lines) + "\n"


def _page(
    subject: str, text: str, items: list[str], values: dict[str, str], chance: random.Random
) -> str:
    cell = 'style="font-family:Arial,Helvetica,sans-serif;font-size:14px;padding:8px 12px"'
    rows = "".join(
        f'<tr><td {cell}><a href="https://shop.test/p/{chance.getrandbits(24)}?utm_source=mail'
        f'&amp;utm_campaign={values["order"]}">{item}</a></td></tr>'
        for item in items
    )
    return f"""<!doctype html><html><head><title>{subject}</title>
<style>body{{margin:0;background:#f4f4f4}} .card{{max-width:600px;margin:auto}}</style></head>
<body><table class="card" width="600" role="presentation"><tr><td {cell}>
<img src="https://shop.test/logo.png" alt="Nordlicht Outfitters" width="180"></td></tr>
<tr><td {cell}><p>{text}</p>
<p><a href="https://shop.test/account/go?token={values["token"]}">See it in your account</a></p>
</td></tr>{rows}
<tr><td {cell}>Total: {values["total"]} EUR</td></tr>
<tr><td {cell}>Delivery address:<br>{values["name"]}<br>{values["street"]}<br>{values["city"]}</td>
</tr><tr><td {cell}><small>{_FOOTER}</small></td></tr></table></body></html>
"""
