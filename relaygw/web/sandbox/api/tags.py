"""Tags as programs give them. Errors are 400 with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.exceptions import HTTPException

from relaygw.mail.search import tag_key
from relaygw.web.sandbox.bulk import MAX_TAG_CHARACTERS, MAX_TAGS

# what pages part tags by, and what neither a database nor UTF-8 takes
_UNFIT = re.compile(r"[,\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def clean_tag(given: str) -> str:
    """Return a tag without what does not belong into one."""
    tag = " ".join(_UNFIT.sub(" ", given).split())
    if not tag_key(tag) or len(tag) > MAX_TAG_CHARACTERS:
        raise HTTPException(400, f"a tag has 1 to {MAX_TAG_CHARACTERS} characters")
    return tag


def clean_tags(given: Iterable[str]) -> list[str]:
    """Return tags, each once."""
    tags = list(dict.fromkeys(map(clean_tag, given)))
    if len(tags) > MAX_TAGS:
        raise HTTPException(400, f"{len(tags)} tags are too many; a message has up to {MAX_TAGS}")
    return tags
