"""Mail as shops send it: what the pages are looked at with."""

from __future__ import annotations

import struct
import zlib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

SENT_AT = datetime(2026, 3, 4, 9, 15, 27, tzinfo=UTC)


def png(width: int, height: int, shade: tuple[int, int, int], *, ring: bool = False) -> bytes:
    """Return a picture: a plain field, or a ring on it."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            far = ((x - width / 2) ** 2 + (y - height / 2) ** 2) ** 0.5 / (min(width, height) / 2)
            is_lit = ring and 0.45 < far < 0.75
            rows += bytes((255, 255, 255) if is_lit else shade)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _letter(sender: str, to: str, subject: str, **fields: str) -> EmailMessage:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = sender, to, subject
    letter["Date"] = format_datetime(SENT_AT)
    letter["Message-ID"] = f"<{zlib.crc32(subject.encode()):08x}@shop.example>"
    for name, value in fields.items():
        letter[name.replace("_", "-")] = value
    return letter


ORDER_HTML = """<!DOCTYPE html><html><head><style>
body { margin: 0; background: #eef1f0; font-family: Georgia, serif; color: #24312c; }
.sheet { width: 100%; max-width: 600px; margin: 0 auto; background: #fff; }
.pad { padding: 28px 32px; } h1 { font-size: 24px; margin: 0 0 10px; font-weight: normal; }
td { vertical-align: top; } .price { text-align: right; white-space: nowrap; }
.button { display: inline-block; background: #2f6b57; color: #fff; padding: 12px 22px;
  text-decoration: none; border-radius: 3px; }
@media (max-width: 480px) { .pad { padding: 18px; } h1 { font-size: 20px; } }
</style></head><body><table class="sheet" cellpadding="0" cellspacing="0" align="center">
<tr><td style="background:#2f6b57;padding:16px 32px;color:#fff;font-size:20px"><img width="32"
 height="32" src="cid:logo@shop.example" alt="" style="vertical-align:middle">
 &nbsp;Fern &amp; Fig</td></tr>
<tr><td class="pad"><h1>Thank you, Anna. Your order is on its way.</h1>
<p style="line-height:1.6">We packed order <b>#100000421</b> this morning. It leaves our workshop
today and should reach you by Friday.</p>
<table width="100%" cellpadding="0" cellspacing="0" style="margin:22px 0">
<tr><td width="84"><img src="cid:lamp@shop.example" width="72" height="72" alt="Lamp"></td>
<td><b>Reading lamp, brass</b><br><span style="color:#6b7a73">1 × 89.00 €</span></td>
<td class="price">89.00 €</td></tr>
<tr><td colspan="3" style="border-top:1px solid #dde3e0;padding:6px 0"></td></tr>
<tr><td><img src="cid:mug@shop.example" width="72" height="72" alt="Mug"></td>
<td><b>Stoneware mug, large</b><br><span style="color:#6b7a73">2 × 18.50 €</span></td>
<td class="price">37.00 €</td></tr>
<tr><td colspan="3" style="border-top:1px solid #dde3e0;padding:6px 0"></td></tr>
<tr><td></td><td>Shipping</td><td class="price">4.90 €</td></tr>
<tr><td></td><td><b>Total, VAT included</b></td><td class="price"><b>130.90 €</b></td></tr>
</table>
<p><a class="button" href="https://shop.example/account/orders/100000421?ref=mail">Follow it</a></p>
<p style="font-size:13px;color:#6b7a73">Questions? Write to
<a href="mailto:help@shop.example">help@shop.example</a> or see
<a href="https://shop.example/returns">how returns work</a>.</p></td></tr></table>
<img src="https://pixel.mailer.example/open?id=8f2c" width="1" height="1" alt=""></body></html>"""

ORDER_TEXT = """Thank you, Anna. Your order is on its way.

We packed order #100000421 this morning. It leaves our workshop today
and should reach you by Friday.

  1 x Reading lamp, brass      89.00 EUR
  2 x Stoneware mug, large     37.00 EUR
      Shipping                  4.90 EUR
      Total, VAT included     130.90 EUR

Follow it: https://shop.example/account/orders/100000421?ref=mail
"""


def order_confirmation() -> bytes:
    """Return an order mail: text, HTML, pictures in it, an invoice."""
    letter = _letter(
        "Fern & Fig <orders@shop.example>", "Anna Berg <anna.berg@customer.example>",
        "Your order #100000421 is on its way", Reply_To="help@shop.example",
    )  # fmt: skip
    letter.set_content(ORDER_TEXT)
    letter.add_alternative(ORDER_HTML, subtype="html")
    html = letter.get_payload()[1]  # type: ignore[index]
    for name, picture in (
        ("logo", png(32, 32, (47, 107, 87), ring=True)),
        ("lamp", png(72, 72, (196, 160, 92), ring=True)),
        ("mug", png(72, 72, (110, 132, 148), ring=True)),
    ):
        html.add_related(picture, "image", "png", cid=f"<{name}@shop.example>")  # type: ignore[union-attr,call-arg]
    letter.add_attachment(
        b"%PDF-1.4\n" + b"0" * 48_000, maintype="application", subtype="pdf",
        filename="Invoice 100000421.pdf",
    )  # fmt: skip
    return letter.as_bytes()


def password_reset() -> bytes:
    """Return a short HTML mail with one link."""
    letter = _letter(
        "Fern & Fig <no-reply@shop.example>", "m.oduya@customer.example", "Reset your password"
    )
    link = "https://shop.example/customer/reset?token=f3b0c1d4e5a697887766554433221100&id=3391"
    letter.set_content(f"Somebody asked to reset your password.\n\n{link}\n\nIt holds for 2 hours.")
    letter.add_alternative(
        "<div style='font:16px/1.5 Arial,sans-serif;max-width:520px;margin:0 auto;padding:24px'>"
        "<p>Hello,</p><p>somebody, you we hope, asked to reset the password of your account.</p>"
        f"<p><a href='{link}' style='background:#222;color:#fff;padding:12px 18px;"
        "text-decoration:none'>Choose a new password</a></p>"
        f"<p>Or open <a href='https://click.mailer.example/t/8812'>https://shop.example/reset</a>."
        "</p><p>The link holds for two hours. Did you not ask? Then do nothing.</p></div>",
        subtype="html",
    )
    return letter.as_bytes()


def newsletter() -> bytes:
    """Return a newsletter: all its pictures and its font are somewhere else."""
    letter = _letter(
        "Fern & Fig Journal <journal@news.shop.example>", "Lena Ø <lena@customer.example>",
        "Spring light: seven lamps for the desk, and a word on shades that we think you will like",
        List_Unsubscribe="<https://news.shop.example/u/77>, <mailto:leave@news.shop.example>",
    )  # fmt: skip
    cell = (
        "<td width='50%' style='padding:10px'><img src='https://cdn.shop.example/{0}.jpg' "
        "width='260' height='180' alt='{1}'><p style='margin:8px 0 2px'><b>{1}</b></p>"
        "<p style='margin:0;color:#777'>from {2} €</p></td>"
    )
    rows = "".join(
        f"<tr>{cell.format(number, name, price)}{cell.format(number + 1, other, more)}</tr>"
        for number, name, price, other, more in (
            (1, "Task lamp, oak", 119, "Clamp light", 64),
            (3, "Paper globe", 38, "Brass arm", 149),
            (5, "Window bar", 82, "Cord set, linen", 21),
        )
    )
    letter.set_content("Spring light. Read it: https://news.shop.example/12")
    letter.add_alternative(
        "<html><head><style>@import url('https://fonts.example/css?family=Lora');"
        "body{background:#f7f3ec url(https://cdn.shop.example/paper.png)}</style>"
        "<link rel=stylesheet href='https://cdn.shop.example/mail.css'></head>"
        "<body style='margin:0;font-family:Verdana,sans-serif;font-size:14px'>"
        "<table width='600' align='center' style='background:#fff'><tr><td colspan='2' "
        "style='padding:26px;text-align:center'><img src='https://cdn.shop.example/head.jpg' "
        "width='540' height='120' alt='Fern &amp; Fig Journal, spring'></td></tr>"
        f"{rows}<tr><td colspan='2' style='padding:20px;font-size:12px;color:#777'>You get this "
        "as you asked for it. <a href='https://news.shop.example/u/77'>Leave</a></td></tr></table>"
        "</body></html>",
        subtype="html",
    )
    return letter.as_bytes()


def cron_mail() -> bytes:
    """Return what a cron job wrote."""
    letter = _letter(
        "root@web1.shop.example", "ops@shop.example",
        "Cron <www-data@web1> cd /srv/shop && php bin/magento cron:run",
    )  # fmt: skip
    letter.set_content(
        "Ran jobs by schedule.\n"
        "indexer_reindex_all_invalid   ok      2.31 s\n"
        "catalog_product_alert         ok      0.08 s\n"
        "sales_clean_quotes            missed  \n"
        "In Mysql.php line 109:\n"
        "  SQLSTATE[HY000] [2006] MySQL server has gone away, query was: SELECT `q`.* FROM "
        "`quote` AS `q` WHERE (updated_at <= '2026-02-02 09:15:01') AND (is_active = 0)\n"
    )
    return letter.as_bytes()


def umlaut_mail() -> bytes:
    """Return German with all its letters, and one word without an end."""
    letter = _letter(
        "Käthe Müßiggang <bestellung@küche.example>".replace("küche", "xn--kche-0ra"),
        "Jörg Österreicher <joerg@kunde.example>",
        "Rückfrage: Größe XXL für „Wärmflaschenüberzug“ – Lieferverzögerung",
    )
    letter.set_content(
        "Grüß Gott Herr Österreicher,\n\nder Wärmflaschenüberzug in Größe XXL ist leider "
        "ausverkauft. Möchten Sie warten?\n\nDonaudampfschifffahrtselektrizitätenhauptbetriebs"
        "werkbauunterbeamtengesellschaftssatzungsänderungsantragsformular\n\nHerzliche Grüße\n"
        "Käthe Müßiggang\n"
    )
    return letter.as_bytes()


def rtl_mail() -> bytes:
    """Return Hebrew, from right to left."""
    letter = _letter(
        "חנות הפרחים <orders@flowers.example>", "דנה לוי <dana@customer.example>",
        "ההזמנה שלך מספר 5521 התקבלה",
    )  # fmt: skip
    letter.set_content("שלום דנה,\n\nתודה על ההזמנה. המשלוח יצא מחר.\n")
    letter.add_alternative(
        "<html dir='rtl'><body style='font:17px/1.6 Arial,sans-serif;padding:24px'>"
        "<h2>שלום דנה,</h2><p>תודה על ההזמנה. המשלוח יצא <b>מחר</b> בין 9:00 ל־12:00.</p>"
        "<p>מספר הזמנה: 5521</p></body></html>",
        subtype="html",
    )
    return letter.as_bytes()


def all_letters() -> dict[str, bytes]:
    """Return one of each by name."""
    return {
        "cron": cron_mail(),
        "umlauts": umlaut_mail(),
        "rtl": rtl_mail(),
        "newsletter": newsletter(),
        "reset": password_reset(),
        "order": order_confirmation(),
    }


# --- many short ones, of two shops ---------------------------------------------------------------

FERN, TEA = "Fern & Fig <orders@fernandfig.example>", "Teehaus Müller <info@teehaus.example>"
NEWS = "Fern & Fig Journal <journal@news.fernandfig.example>"
SUBJECTS = {  # by language: shop and subject
    "en": ((FERN, "Your order #1000004{} is on its way"), (FERN, "Reset your password"),
           (NEWS, "🎁 Black Friday: seven lamps for the desk"), (FERN, "Invoice 2026-004{}")),
    "de": ((TEA, "Ihre Bestellung 1000004{} ist unterwegs 🫖"), (TEA, "Passwort zurücksetzen"),
           (NEWS, "🎁 Black Friday: sieben Lampen"), (TEA, "Rechnung 2026-004{}")),
    "ja": ((FERN, "ご注文ありがとうございます (#1000004{})"), (FERN, "パスワードの再設定"),
           (NEWS, "🎁 ブラックフライデー"), (FERN, "領収書 2026-004{}")),
}  # fmt: skip
PEOPLE = {  # name and language
    "anna.berg@kunde.example": ("Anna Berg", "de"),
    "joerg.gruen@kunde.example": ("Jörg Grün", "de"),
    "tanaka.misaki@mail.example": ("田中 美咲", "ja"),
    "s.okafor@firma.example": ("Sandra Okafor", "en"),
    "zoe.lukasik@poczta.example": ("Zoë Łukasik", "en"),
    "carla.lost@gmial.example": ("Carla Lost", "en"),
    "m.oduya@customer.example": ("Moses Oduya", "en"),
    "tom.ng@customer.example": ("Tom Ng", "en"),
    "käthe@müßig.example": ("Käthe Müßig", "de"),
}


def short_mail(shop: str, to: str, subject: str) -> bytes:
    """Return a short mail with text and HTML; its header is UTF-8."""
    name = PEOPLE[to][0]
    letter = _letter(shop, f"{name} <{to}>", subject)
    text = f"Hello {name},\n\n{subject}.\n\nWe wish you a good day.\n"
    letter.set_content(text)
    letter.add_alternative(text.replace("\n\n", "<p>"), subtype="html")
    return letter.as_bytes(policy=letter.policy.clone(utf8=True))
