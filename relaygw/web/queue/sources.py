"""The page of sources: who sends what, and what the guard holds or lets through of it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.mail.keys import unpacked
from relaygw.mail.mail_class import OTHER_SENDERS, OTHER_SOURCES, OTHER_SUBJECTS, sender_words
from relaygw.operations.guard import ALLOW, HOLD, RELEASE, guarded, suspects
from relaygw.operations.sources import BY, SourceRow, source_rows
from relaygw.operations.verb import Mistake
from relaygw.store.watch import Incident
from relaygw.web.context import WebContext, reads
from relaygw.web.page import Problem, notice_of, redirect, render, with_notice
from relaygw.web.verbs import problem_of, read_form

PAGE_ROWS = 100
_PLACE = "/sources"
_DAYS = {"1": "24 hours", "7": "7 days", "60": "60 days"}
_LABELS = {
    **{"": "Class", "script": "Script", "host": "Host", "subject": "Template"},
    **{"sender": "Sender's domain", "uid": "User ID", "user": "Login"},
}

_FOLDED = re.compile("[#@…]")  # see mail.content
_SELECTORS = {  # of the list of mail
    **{"script": "script", "host": "host", "sender": "sender_domain", "uid": "uid"},
    **{"user": "client"},
}


@reads
def show_sources(web: WebContext, request: Request) -> Response:
    """Show who sends what, the most mail first."""
    query = request.query_params
    by, days = query.get("by", ""), query.get("days", "1")
    if by not in _LABELS:
        raise Problem(400, f"by {by[:40]!r} is not known", expected=", ".join(BY))
    if days not in _DAYS:
        raise Problem(400, f"days {days[:40]!r} is not known", expected=", ".join(_DAYS))
    since_ms = clock_ms() - int(days) * DAY_MS
    rows, number = source_rows(web.store, by=by or None, since_ms=since_ms, limit=PAGE_ROWS)
    context = {
        "rows": [_shown(row, by, int(days)) for row in rows],
        "number": number,
        "by": by,
        "days": days,
        "label": _LABELS[by],
        "labels": _LABELS,
        "spans": _DAYS,
        "guarded": guarded(web.store),
        "alerts": [(suspect, _source_of(suspect)) for suspect in suspects(web.store, clock_ms())],
        "notice": notice_of(query),
    }
    return render(request, "sources.html", context, mode=web.mode)


def _shown(row: SourceRow, by: str, days: int) -> dict[str, Any]:
    mail_class, key = row.mail_class, row.counted.key
    shown = {
        "counted": row.counted,
        "who": "",
        "kind": "",
        "id": "",
        "path": _mail_path(row, by, days),
    }
    if mail_class is None:
        return {**shown, "key": "none" if key in (None, "") else key}
    kind = f"{mail_class.sender_domain or '<>'}, {mail_class.stream}"
    who = sender_words(mail_class)
    words = {"key": mail_class.template or "(no subject)", "who": who, "kind": kind}
    return {**shown, **words, "id": mail_class.class_id}


def _mail_path(row: SourceRow, by: str, days: int) -> str:
    """Return the list of the mail of a row, "" where no selectors say which it is."""
    mail_class, chosen = row.mail_class, {}
    if mail_class is None:
        chosen = {_SELECTORS[by]: row.counted.key} if by in _SELECTORS else {}
    elif mail_class.template != OTHER_SUBJECTS:
        chosen = {_SELECTORS[name]: getattr(mail_class, BY[name]) for name in _SELECTORS}
        chosen["subject"] = max(_FOLDED.split(mail_class.template), key=len).strip()
    words = {name: value for name, value in chosen.items() if value not in (None, "")}
    if not words or {OTHER_SOURCES, OTHER_SENDERS} & set(words.values()):
        return ""
    return f"/queue?{urlencode({'state': 'all', 'since': f'{days}d', **words})}"


# --- the guard ------------------------------------------------------------------------------

_ID = re.compile("[0-9a-f]{16}")
_VERBS = {"hold": HOLD, "allow": ALLOW, "release": RELEASE, "forget": ALLOW}
_MORE = {"forget": {"remove": True}}
_NOTICES = {
    **{"hold": "guard_held", "allow": "guard_allowed", "release": "guard_released"},
    "forget": "guard_forgot",
}


def _source_of(alert: Incident) -> str:
    """Return the id of the source that an alert is about, "" of several."""
    found = unpacked(alert.key)[0]
    return found if _ID.fullmatch(found) else ""


async def change_guard(web: WebContext, request: Request) -> Response:
    """Hold, allow or release a class or source."""
    form = await read_form(request, _VERBS)
    try:
        done = await form.carry_out(web, {**form.fields(), **_MORE.get(form.action, {})})
    except Mistake as error:
        raise problem_of(form.verb, error) from None
    return redirect(request, with_notice(_PLACE, _NOTICES[form.action], done.number))
