"""Attachments shown as harmlessly as HTML: pictures, text, calendars, first pages of a PDF.

What a part says it is only chooses how it is read; a picture is shown as the type that its bytes
have. Everything goes into a document of ours with the policy of the frame (decision 13), which
loads nothing and runs nothing. SVG and HTML are shown as text, archives never opened.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable
from html import escape

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from relaygw.mail.mime_tree import MimeTree, Part
from relaygw.web import words
from relaygw.web.context import WebContext
from relaygw.web.mail.attachments import MAX_PDF_BYTES, CalendarEvent, draw_pages, read_calendar
from relaygw.web.mail.parts import file_name_of, kind_of, load_tree
from relaygw.web.mail.views import Find, decoded_bytes, frame_headers, part_of
from relaygw.web.page import render

MAX_PICTURE_BYTES = 8_000_000
MAX_PIXELS = 40_000_000
MAX_SIDE = 16_384
MAX_TEXT_CHARACTERS = 256 * 1024
_STYLE = (
    ":root{color-scheme:light}body{margin:16px;font:14px/1.5 system-ui,sans-serif;color:#1d2430}"
    "img{display:block;max-width:100%;height:auto;margin:0 auto 16px;"
    "background:#fff;box-shadow:0 0 0 1px #d5dbe3}"
    "pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,monospace}"
    "h1{margin:0 0 8px;font-size:18px}h2{margin:20px 0 4px;font-size:15px}p{margin:8px 0}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0}"
    "dt{color:#4c5666}dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}"
)


def preview(tree: MimeTree, part: Part) -> str:
    """Return a part as a harmless document. Blocks as long as a child draws a PDF."""
    return _document(file_name_of(part), _SHOWN[kind_of(part)](tree, part))


def _document(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="'
        f'width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _why(text: str) -> list[str]:
    return [f"<p>{escape(text)}</p>"]


def _image(media_type: str, body: bytes, alt: str) -> str:
    data = base64.b64encode(body).decode()
    return f'<img alt="{escape(alt)}" src="data:{media_type};base64,{data}">'


def _picture(tree: MimeTree, part: Part) -> list[str]:
    if part.end - part.body_start > 1.5 * MAX_PICTURE_BYTES:
        return _why(f"Not shown: it is larger than {words.size(MAX_PICTURE_BYTES)}. Save it.")
    body = tree.body(part)
    found = picture_size(body)
    if found is None:
        return _why("Not shown: these bytes are not PNG, JPEG, GIF, WebP or BMP. Save it.")
    media_type, width, height = found
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS or not width * height:
        return _why(f"Not shown: it has {width:,} × {height:,} pixels. Save it.")
    return [_image(media_type, body, f"{file_name_of(part)}, {width} × {height} pixels")]


def _text(tree: MimeTree, part: Part) -> list[str]:
    text, is_cut = tree.text(part, limit_characters=MAX_TEXT_CHARACTERS)
    shown = [f'<pre dir="auto">{escape(text.replace(chr(0), chr(0xFFFD)))}</pre>']
    goes_on = f"It goes on: {MAX_TEXT_CHARACTERS:,} characters are shown."
    return shown + (_why(goes_on) if is_cut else [])


def _calendar(tree: MimeTree, part: Part) -> list[str]:
    text, is_cut = tree.text(part, limit_characters=MAX_TEXT_CHARACTERS)
    calendar = read_calendar(text)
    if not calendar.events:
        return [*_why("No event was found in this calendar; this is its text."), *_text(tree, part)]
    shown = _why(calendar.purpose) if calendar.purpose else []
    for event in calendar.events:
        shown += _event(event)
    return shown + (_why("There is more.") if is_cut or calendar.is_cut else [])


def _event(event: CalendarEvent) -> list[str]:
    lines = [f'<h1 dir="auto">{escape(event.title or "(no title)")}</h1><dl>']
    lines += [f'<dt>{label}</dt><dd dir="auto">{escape(text)}</dd>' for label, text in event.lines]
    if event.people:
        more = [f"and {event.more_people:,} more"] if event.more_people else []
        people = escape("\n".join([*event.people, *more]))
        lines.append(f'<dt>Who</dt><dd dir="auto">{people}</dd>')
    return [*lines, "</dl>"]


def _pdf(tree: MimeTree, part: Part) -> list[str]:
    if part.end - part.body_start > 1.5 * MAX_PDF_BYTES:
        return _why(f"Not shown: it is larger than {words.size(MAX_PDF_BYTES)}. Save it.")
    drawn = draw_pages(tree.body(part))
    shown = []
    for number, picture in enumerate(drawn.pictures, 1):
        found = picture_size(picture)
        if found is not None and found[0] == "image/png":
            shown.append(_image(found[0], picture, f"Page {number}"))
    if drawn.why:
        left = "The other pages are not shown" if shown else "Not shown"
        return [*shown, *_why(f"{left}: {drawn.why}. Save it to read it.")]
    if drawn.count > len(shown):
        shown += _why(f"{len(shown)} of {words.counted(drawn.count, 'page')}. Save it to read all.")
    return shown


def _nothing(_: MimeTree, __: Part) -> list[str]:
    return _why("This kind of file is not shown. Save it.")


_SHOWN = {"picture": _picture, "text": _text, "calendar": _calendar, "pdf": _pdf, "": _nothing}


def preview_routes(web: WebContext, path: str, find: Find) -> list[Route]:
    """Return the routes of previews below `path`: the page of a part, and the document in it."""

    def found(request: Request) -> tuple[str, MimeTree, Part]:
        entry = find(web, request)
        tree = load_tree(web.store, entry)
        return entry.subject, tree, part_of(tree, request.path_params["part_id"])

    async def show_page(request: Request) -> Response:
        subject, tree, part = await web.open(lambda: found(request))
        mail_path = path.replace("{queue_id}", request.path_params["queue_id"])
        one_part = {
            "part_id": part.part_id,
            "name": file_name_of(part),
            "content_type": part.content_type,
            "size": words.size(decoded_bytes(tree, part)),
        }
        context = {
            "subject": subject,
            "place": mail_path.split("/")[1],
            "mail_path": mail_path,
            "one": one_part,
        }
        return render(request, "part.html", context, mode=web.mode)

    async def show_document(request: Request) -> Response:
        def shown() -> str | None:
            _, tree, part = found(request)
            return None if kind_of(part) == "pdf" else preview(tree, part)

        document = await web.open(shown)
        if document is None:
            async with web.drawing:
                if await request.is_disconnected():
                    return Response(status_code=499)  # nobody reads it
                _, tree, part = await web.open(lambda: found(request))
                document = await run_in_threadpool(preview, tree, part)
        return HTMLResponse(document, headers=frame_headers(request))

    return [
        Route(path + "/part/{part_id}/preview", show_document, methods=["GET"]),
        Route(path + "/part/{part_id}/look", show_page, methods=["GET"]),
    ]


# --- pictures ---------------------------------------------------------------------------
# What kind of picture bytes are and how large it is, by its first fields; nothing is decoded.


_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MAX_BLOCKS = 10_000
_FILL = re.compile(rb"\xff*+")

Size = tuple[str, int, int]  # media type, width, height


def picture_size(body: bytes) -> Size | None:
    """Return type and pixels of a PNG, JPEG, GIF, WebP or BMP, None of anything else."""
    try:
        for start, read in _KINDS:
            if body.startswith(start):
                return read(body)
    except (struct.error, IndexError):
        pass  # it ends too early
    return None


def _png(body: bytes) -> Size | None:
    if body[12:16] != b"IHDR":
        return None
    return ("image/png", *struct.unpack_from(">II", body, 16))


def _gif(body: bytes) -> Size | None:
    """Take the larger of the screen and the first frame, as browsers do."""
    width, height, flags = struct.unpack_from("<HHB", body, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    for _ in range(_MAX_BLOCKS):
        if body[place] == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", body, place + 1)
            return "image/gif", max(width, left + wide), max(height, top + high)
        if body[place] != 0x21:
            return None
        place += 2
        while body[place]:
            place += body[place] + 1
        place += 1
    return None


def _jpeg(body: bytes) -> Size | None:
    place = 2
    for _ in range(_MAX_BLOCKS):
        if body[place] != 0xFF:
            return None
        fill = _FILL.match(body, place)
        assert fill is not None
        place = fill.end() - 1
        if body[place + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", body, place + 5)
            return "image/jpeg", width, height
        place += 2 + struct.unpack_from(">H", body, place + 2)[0]
    return None


def _webp(body: bytes) -> Size | None:
    kind = body[8:16]
    if kind == b"WEBPVP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"WEBPVP8L" and body[20] == 0x2F:
        bits = struct.unpack_from("<I", body, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"WEBPVP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 26))
    else:
        return None
    return "image/webp", width, height


def _bmp(body: bytes) -> Size | None:
    if struct.unpack_from("<I", body, 14)[0] < 40:  # an old header, or none
        return None
    width, height = struct.unpack_from("<ii", body, 18)
    return "image/bmp", abs(width), abs(height)


_KINDS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)
