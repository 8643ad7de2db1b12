from __future__ import annotations

import hashlib
import re
from pathlib import Path

from relaygw.web.page import static_path

STATIC = Path(__file__).parents[3] / "relaygw/web/static"


def test_vendored_files_are_what_the_page_says() -> None:
    page = (STATIC / "VENDORED.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == ["htmx.min.js"]
    for name, digest in rows:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
        licence = re.search(rf"\| `{re.escape(name)}` .*`([^`]+LICENSE)`", page)
        assert licence is not None
        assert (STATIC / licence[1]).exists()


def test_an_address_changes_with_its_file() -> None:
    name = "relaygw.css"
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    assert static_path(name) == f"/static/{digest[:16]}/{name}"


def test_no_file_of_ours_loads_anything_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        if path.suffix in (".css", ".js", ".svg") and path.name != "htmx.min.js":
            text = re.sub(r'xmlns="[^"]*"', "", path.read_text())
            assert not re.search(r"https?://|@import|url\(", text), path.name
