"""Attachments that attack whoever looks at them, and some that do not."""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from email.message import EmailMessage

from tests.e2e.browser.hostile import _RUN as RUN
from tests.e2e.browser.hostile import EVIL
from tests.e2e.browser.letters import png

SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script>'
    f'<image href="{EVIL}/s.png"/><foreignObject><iframe src="{EVIL}/f"/></foreignObject></svg>'
).encode()
HTML = f"<script>{RUN}</script><img src={EVIL}/x.png onerror='{RUN}'><base href={EVIL}>".encode()


def pdf(
    text: str = "Invoice 4711", *, pages: int = 1, box: str = "0 0 595 842", body: str = ""
) -> bytes:
    """Return a PDF that would run a script and open an address when it is opened."""
    kids = " ".join(f"{10 + number} 0 R" for number in range(pages))
    drawn = body or f"BT /F1 24 Tf 72 760 Td ({text}) Tj ET"
    objects = [
        f"1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS(app.launchURL"
        f"\\('{EVIL}/pdf'\\);app.alert\\(1\\))>>/AA<</WC<</S/URI/URI({EVIL}/aa)>>>>>>endobj",
        f"2 0 obj<</Type/Pages/Kids[{kids}]/Count {pages}>>endobj",
        f"4 0 obj<</Length {len(drawn)}>>\nstream\n{drawn}\nendstream endobj",
        "5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
        *(
            f"{10 + number} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Contents 4 0 R"
            "/Resources<</Font<</F1 5 0 R>>>>>>endobj"
            for number in range(pages)
        ),
    ]
    return ("%PDF-1.4\n" + "\n".join(objects) + "\ntrailer<</Root 1 0 R>>\n").encode()


def png_bomb(side: int = 60_000) -> bytes:
    """Return a PNG of so many pixels each way in a few kilobytes: black, and most of it missing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    lines = zlib.compress(bytes(4 * 2**20), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@functools.cache
def zip_bomb() -> bytes:
    """Return an archive of 16 MiB of zeros."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("zeros", bytes(16 * 2**20))
    return packed.getvalue()


CALENDAR = f"""BEGIN:VCALENDAR
METHOD:REQUEST
BEGIN:VEVENT
SUMMARY:Fitting <img src={EVIL}/s.png onerror=alert(1)>
DTSTART;TZID=Europe/Berlin:20261201T140000
DTEND;TZID=Europe/Berlin:20261201T150000
LOCATION:Shop\\, first floor
ORGANIZER;CN="Fern & Fig":mailto:orders@shop.example
ATTENDEE;CN=Anna Berg;PARTSTAT=NEEDS-ACTION:mailto:anna@customer.example
DESCRIPTION:Bring the lamp.\\nSee {EVIL}/d and
  more.
URL:javascript:alert(1)
BEGIN:VALARM
SUMMARY:inner
END:VALARM
END:VEVENT
END:VCALENDAR
""".encode()

# name: type, bytes, and what the preview has to say
FILES: dict[str, tuple[str, bytes, str]] = {
    "photo.png": ("image/png", png(40, 30, (47, 107, 87)), "photo.png, 40 × 30 pixels"),
    "drawing.svg": ("image/svg+xml", SVG, "&lt;svg xmlns="),
    "liar.png": ("image/png", SVG, "Not shown: these bytes are not PNG"),
    "page.html": ("text/html", HTML, "&lt;script&gt;"),
    "polyglot.gif": (
        "image/gif",
        b"GIF89a/*" + b"\0" * 6 + f"*/=1;{RUN}//<script>{RUN}</script>".encode(),
        "Not shown: these bytes are not PNG",
    ),
    "huge.png": ("image/png", png_bomb(), "Not shown: it has 60,000 × 60,000 pixels"),
    "bomb.zip": ("application/zip", zip_bomb(), "This kind of file is not shown"),
    "invoice.pdf": ("application/pdf", pdf(), 'alt="Page 1"'),
    "broken.pdf": ("application/pdf", b"%PDF-1.7\n" + HTML, "Not shown: it is broken"),
    "invite.ics": ("text/calendar", CALENDAR, "<dt>Where</dt><dd dir=\"auto\">Shop, first floor"),
    "notes.txt": ("text/plain", b"<b>not bold</b>\0", "&lt;b&gt;not bold&lt;/b&gt;"),
}  # fmt: skip


def mail_with_files() -> bytes:
    """Return a mail with all of FILES; they are its parts 2 and so on."""
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "a@x.test", "b@x.test", "Files"
    letter.set_content("See the files.")
    for name, (media_type, body, _) in FILES.items():
        main, _, sub = media_type.partition("/")
        letter.add_attachment(body, maintype=main, subtype=sub, filename=name)
    return letter.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
