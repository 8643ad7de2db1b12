"""Writes relaygw/web/mail/caniemail.json: which mail programs know which HTML and CSS.

To renew it: `npm pack caniemail`, unpack it, then

    python packaging/caniemail.py package/dist/data/caniemail.json "caniemail VERSION (npm)"

The data is that of https://www.caniemail.com, a table kept by people who test mail programs; its
licence is in relaygw/web/mail/caniemail.LICENSE. Of each program the version tested last is kept.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "relaygw/web/mail/caniemail.json"
_SIDES = ("top", "right", "bottom", "left")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")

# what shows that a mail uses a feature, where its name does not tell (see mail/html_check.py)
_MARKS: dict[str, list[str]] = {
    "css-at-media-device-pixel-ratio": ["@media(-webkit-device-pixel-ratio)"],
    "css-at-media-hover": ["@media(hover)", "@media(any-hover)"],
    "css-block-inline-size": ["p:block-size", "p:inline-size"],
    "css-border": [
        "p:border",
        *(f"p:border-{one}" for one in (*_SIDES, "width", "style", "color")),
    ],
    "css-border-inline-block": ["p:border-inline", "p:border-block"],
    "css-border-inline-block-individual": [
        f"p:border-{way}-{end}" for way in ("inline", "block") for end in ("start", "end")
    ],
    "css-border-inline-block-longhand": [
        f"p:border-{way}-{what}"
        for way in ("inline", "block")
        for what in ("color", "style", "width")
    ],
    "css-border-radius": [
        "p:border-radius",
        *(f"p:border-{y}-{x}-radius" for y in ("top", "bottom") for x in ("left", "right")),
    ],
    "css-border-radius-logical": [
        f"p:border-{y}-{x}-radius" for y in ("start", "end") for x in ("start", "end")
    ],
    "css-column-layout-properties": [
        f"p:column{what}"
        for what in ("s", "-fill", "-rule", "-rule-color", "-rule-style", "-rule-width", "-span",
                     "-width")
    ],
    "css-comments": ["css:comment"],
    "css-conic-gradient": ["f:conic-gradient"],
    "css-display-flex": ["p:display:flex", "p:display:inline-flex"],
    "css-display-grid": ["p:display:grid", "p:display:inline-grid"],
    "css-display-none": ["p:display:none"],
    "css-flex-direction": ["p:flex-direction:column", "p:flex-direction:column-reverse"],
    "css-flex-wrap": ["p:flex-wrap:wrap", "p:flex-wrap:wrap-reverse"],
    "css-gap": ["p:gap", "p:column-gap", "p:row-gap"],
    "css-grid-template": [f"p:grid-template{w}" for w in ("", "-areas", "-columns", "-rows")],
    "css-important": ["v:!important"],
    "css-inert-attribute": ["[inert"],
    "css-intrinsic-size": ["v:fit-content", "v:min-content", "v:max-content"],
    "css-left-right-top-bottom": [f"p:{side}" for side in _SIDES],
    "css-linear-gradient": ["f:linear-gradient"],
    "css-margin": ["p:margin", *(f"p:margin-{side}" for side in _SIDES)],
    "css-margin-block-start-end": ["p:margin-block-start", "p:margin-block-end"],
    "css-margin-inline-block": ["p:margin-inline", "p:margin-block"],
    "css-margin-inline-start-end": ["p:margin-inline-start", "p:margin-inline-end"],
    "css-modern-color": ["f:lch", "f:oklch", "f:lab", "f:oklab"],
    "css-nesting": ["css:nesting"],
    "css-overflow": ["p:overflow", "p:overflow-x", "p:overflow-y"],
    "css-padding": ["p:padding", *(f"p:padding-{side}" for side in _SIDES)],
    "css-padding-block-start-end": ["p:padding-block-start", "p:padding-block-end"],
    "css-padding-inline-block": ["p:padding-inline", "p:padding-block"],
    "css-padding-inline-start-end": ["p:padding-inline-start", "p:padding-inline-end"],
    "css-radial-gradient": ["f:radial-gradient"],
    "css-rgb": ["f:rgb"],
    "css-rgba": ["f:rgba"],
    "css-scroll-snap": ["p:scroll-snap-type", "p:scroll-snap-align"],
    "css-sytem-ui": [
        f"v:{one}"
        for one in ("system-ui", "ui-serif", "ui-sans-serif", "ui-rounded", "ui-monospace")
    ],
    "css-unit-calc": ["f:calc"],
    "css-unit-initial": ["v:initial"],
    "css-unit-percent": ["u:%"],
    "css-variables": ["f:var"],
    "html-align": ["[align"],
    "html-anchor-links": ["<a[href=#]"],
    "html-button-reset": ["<button[type=reset]"],
    "html-button-submit": ["<button[type=submit]"],
    "html-comments": ["html:comment"],
    "html-dir": ["[dir"],
    "html-doctype": ["html:doctype"],
    "html-h1-h6": [f"<h{level}" for level in range(1, 7)],
    "html-image-maps": ["<map"],
    "html-lists": ["<ul", "<ol", "<dl"],
    "html-loading-attribute": ["[loading"],
    "html-mailto-links": ["<a[href=mailto]"],
    "html-meta-color-scheme": ["<meta[name=color-scheme]"],
    "html-semantics": [
        f"<{one}"
        for one in ("article", "aside", "details", "figcaption", "figure", "footer", "header",
                    "main", "mark", "nav", "section", "summary", "time")
    ],
    "html-srcset": ["[srcset", "[sizes"],
    "image-apng": [],  # looks like a PNG from outside
    "image-jpg": ["i:jpg", "i:jpeg"],
    "image-heif": ["i:heif", "i:heic"],
    "image-tiff": ["i:tif", "i:tiff"],
}  # fmt: skip
_PREFIXES = {
    "css-pseudo-class-": ":",
    "css-pseudo-element-": "::",
    "css-selector-": "s:",
    "css-function-": "f:",
    "css-unit-": "u:",
    "image-": "i:",
}


def marks_of(slug: str, title: str) -> list[str]:
    """Return the marks of a feature; none of what a mail does not show."""
    if slug in _MARKS:
        return _MARKS[slug]
    if slug.startswith("css-at-media-"):
        return [f"@media({slug.removeprefix('css-at-media-')})"]
    if slug.startswith("css-at-"):
        return [f"@{slug.removeprefix('css-at-')}"]
    for prefix, mark in _PREFIXES.items():
        if slug.startswith(prefix):
            return [mark + slug.removeprefix(prefix)]
    if slug.startswith("html-input-"):
        return [f"<input[type={slug.removeprefix('html-input-')}]"]
    if slug.startswith("html-"):
        return [f"{'[' if 'attribute' in title else '<'}{slug.removeprefix('html-')}"]
    return [f"p:{slug.removeprefix('css-')}"] if slug.startswith("css-") else []


def main(source: Path, package: str) -> None:
    """Write the file."""
    data = json.loads(source.read_text())
    names = data["nicenames"]
    pairs = sorted(
        {
            (family, platform)
            for one in data["data"]
            for family, platforms in one["stats"].items()
            for platform in platforms
        }
    )
    clients = [
        [*pair, f"{names['family'][pair[0]]} {names['platform'][pair[1]]}"] for pair in pairs
    ]
    features = {}
    for one in data["data"]:
        marks = marks_of(one["slug"], one["title"])
        if marks:
            features[one["slug"]] = _feature(one, marks, pairs)
    head = {
        "source": "https://www.caniemail.com",
        "licence": "MIT, Copyright (c) 2019 HTeuMeuLeu",
        "package": package,
        "date": data["last_update_date"][:10],
        "clients": clients,
    }
    lines = ",\n".join(
        f"{json.dumps(slug)}: {json.dumps(one, ensure_ascii=False)}"
        for slug, one in sorted(features.items())
    )
    text = json.dumps(head, ensure_ascii=False, indent=0)[:-2]
    OUT.write_text(f'{text},\n"features": {{\n{lines}\n}}}}\n')


def _feature(one: dict[str, Any], marks: list[str], pairs: list[tuple[str, str]]) -> dict[str, Any]:
    cells = []
    for family, platform in pairs:
        versions = list(one["stats"].get(family, {}).get(platform, {}).values())
        letter, *notes = versions[-1].split() if versions else ["-"]
        cells.append(letter[0] + (notes[0].lstrip("#") if notes else ""))
    notes = {number: _plain(text) for number, text in (one["notes_by_num"] or {}).items()}
    used = {cell[1:] for cell in cells}
    return {
        "title": one["title"].strip(),
        "about": _plain(one["description"] or ""),
        "marks": marks,
        "support": " ".join(cells),
        "notes": {number: text for number, text in notes.items() if number in used},
    }


def _plain(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text).replace("`", "").split())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
