"""Pages of a PDF are drawn by a child that can do nothing else, and is gone in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw.web.mail import attachments as pdf
from relaygw.web.mail.attachments import draw_pages
from relaygw.web.mail.preview import picture_size
from tests.e2e.browser import attachments

CHILD = Path(pdf.__file__).with_name("pdf_child.py")
# what somebody would try whose bytes took over the renderer
TRIES = """
import json, os, runpy, socket, sys, types
def tried(what):
    try:
        return str(what())
    except BaseException as error:
        return type(error).__name__
class PdfiumError(Exception): pass
def PdfDocument(body):
    print(json.dumps({
        "environment": sorted(os.environ),
        "file": tried(lambda: open("/etc/passwd").read()),
        "socket": tried(lambda: socket.socket()),
        "connection": tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
        "memory": tried(lambda: len(bytearray(2**30))),
    }), flush=True)
    os._exit(0)
sys.modules["pypdfium2"] = types.SimpleNamespace(PdfDocument=PdfDocument, PdfiumError=PdfiumError)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_first_pages_as_pictures() -> None:
    drawn = draw_pages(attachments.pdf(pages=5))
    assert (len(drawn.pictures), drawn.count, drawn.why) == (3, 5, "")
    found = picture_size(drawn.pictures[0])
    assert found is not None
    assert found[0] == "image/png"
    assert 800 <= found[1] <= 900 and found[2] > found[1]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (lambda: b"", "broken"),
        (lambda: b"%PDF-1.7\n<script>alert(1)</script>", "broken"),
        (lambda: attachments.zip_bomb()[:5000], "broken"),
        (lambda: bytes(pdf.MAX_PDF_BYTES + 1), "larger than 20 MB"),
    ],
    ids=["nothing", "no PDF", "an archive", "too large"],
)
def test_what_cannot_be_drawn_is_said(body: Callable[[], bytes], why: str) -> None:
    drawn = draw_pages(body())
    assert drawn.pictures == ()
    assert why in drawn.why


def test_a_page_as_large_as_a_field_is_drawn_small() -> None:
    drawn = draw_pages(attachments.pdf(box="0 0 9999999 9999999"))
    for picture in drawn.pictures:
        found = picture_size(picture)
        assert found is not None
        assert found[1] * found[2] <= 1_600_000


@pytest.fixture
def set_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return what has another program draw."""

    def set_(program: str) -> None:
        child = tmp_path / "child.py"
        child.write_text(program)
        monkeypatch.setattr(pdf, "_CHILD", child)

    return set_


def test_what_takes_too_long_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_child: Callable[[str], None]
) -> None:
    """The child, and what it started: nothing is left."""
    set_child(
        "import os, subprocess, sys, time\nsys.stdin.buffer.read()\n"
        "other = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(other.pid))\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(pdf, "WALL_S", 2.0)
    drawn = draw_pages(b"x" * 2**20)
    assert drawn.why == "rendering takes longer than 2 s"
    other = int((tmp_path / "pid").read_text())
    for _ in range(500):
        state = Path(f"/proc/{other}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("it still runs")


def test_a_child_that_writes_without_end_costs_no_memory(
    monkeypatch: pytest.MonkeyPatch, set_child: Callable[[str], None]
) -> None:
    set_child("import os\nwhile True:\n    os.write(1, bytes(65536))\n")
    monkeypatch.setattr(pdf, "MAX_DRAWN_BYTES", 2**20)
    drawn = draw_pages(b"x")
    assert sum(map(len, drawn.pictures)) <= 2**20
    assert drawn.why


def test_a_renderer_that_was_taken_over_reaches_nothing() -> None:
    answer = subprocess.run(
        [sys.executable, "-I", "-B", "-c", TRIES, str(CHILD)],
        input=b"%PDF", stdout=subprocess.PIPE, env={}, timeout=60, check=True,
    )  # fmt: skip
    said = json.loads(answer.stdout)
    assert set(said["environment"]) <= {"LC_CTYPE"}
    assert said["file"] == said["socket"] == said["connection"] == "OSError"
    assert said["memory"] == "MemoryError"


def test_without_the_renderer_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "find_spec", lambda _: None)
    assert "package pypdfium2 is installed" in draw_pages(attachments.pdf()).why


def test_no_secret_is_handed_on(
    monkeypatch: pytest.MonkeyPatch, set_child: Callable[[str], None]
) -> None:
    set_child(
        "import os, sys\nsys.stdin.buffer.read()\n"
        "files = sorted(map(int, os.listdir('/proc/self/fd')))\n"
        "said = repr((dict(os.environ), os.getcwd(), files)).encode()\n"
        "os.write(1, bytes(4) + len(said).to_bytes(4, 'big') + said)\n"
    )
    monkeypatch.setenv("SENDGRID_API_KEY", "secret")
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        (said,) = draw_pages(b"x").pictures
    finally:
        os.close(reading)
        os.close(writing)
    environment, directory, files = eval(said)
    assert (set(environment) <= {"LC_CTYPE"}, directory) == (True, "/")
    assert [one for one in files if one > 2][1:] == []  # but for the listing itself
