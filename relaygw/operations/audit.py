"""The audit trail: what changes of the configuration leave in it, and its lines as sentences.

Values of the configuration are not recorded, only which keys differ from what the last start or
reload of this host had. Each entry keeps short hashes of all values, so that the next one can
compare. A sentence says who did what, to which mail, and why.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relaygw import service_file
from relaygw.mail.clock import rfc3339, utc_text
from relaygw.mail.words import counted, fields, some_of, span
from relaygw.operations.resend import RESEND
from relaygw.policy.settings_change import (
    SETTINGS_CHANGE,
    SettingsChange,
    changed_keys,
    hash_of,
    keys_of,
    parse_change,
)
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.store import Store

_NOTHING_BEFORE = AuditEntry(
    at_ms=0, actor="", action=SETTINGS_CHANGE, target="", affected=0, detail=""
)


def note_settings(
    store: Store, settings: Settings, *, occasion: str, now_ms: int, files: Sequence[Path] = ()
) -> bool:
    """Record the settings that are in force from now on, if they are others than before.

    `occasion` is what brought them: start or reload; `files` are where they stand. Several
    processes may come at once: one of them writes the entry. Returns whether it was this one.
    Raises StoreUnavailable.
    """
    host = settings.hostname
    trail = Trail(action=SETTINGS_CHANGE, target=host)
    last = next(iter(store.audit.entries(limit=1, trail=trail)), None)
    before = SettingsChange() if last is None else parse_change(last.detail)
    keys = keys_of(settings)
    # what a version before this one noted cannot be compared by keys
    changed = [] if before.keys is None else list(changed_keys(before.keys, keys))
    if before.keys is not None and not changed:
        return False
    detail = {
        "number": before.number + 1,
        "by": occasion,
        "before": before.after,
        "after": hash_of(keys),
        "changed": [name for name, _ in changed],
        "what": hash_of(changed),
        "who": list(_who(files, since_ms=last.at_ms if last else 0, is_start=occasion == "start")),
        "keys": keys,
    }
    entry = AuditEntry(
        at_ms=now_ms,
        actor=f"{occasion} on {host}",
        action=SETTINGS_CHANGE,
        target=host,
        affected=len(changed),
        detail=json.dumps(detail, separators=(",", ":")),
    )
    return store.audit.add(entry, only_after=last or _NOTHING_BEFORE)


def _who(files: Sequence[Path], *, since_ms: int, is_start: bool) -> Iterator[str]:
    """Yield who started the gateway, where that is known; whose files were written since, when."""
    if is_start and (caller := os.environ.get("SUDO_USER")):
        yield f"started by {caller} (sudo)"
    for file in files:
        with contextlib.suppress(OSError):
            found = file.stat()
            at_ms = int(found.st_mtime * 1000)
            if at_ms >= since_ms:
                owner = service_file.user_name(found.st_uid)
                yield f"{file}, a file of {owner}, was written at {utc_text(at_ms)}"


def settings_change_words(detail: str) -> str:
    """Return the detail of a SETTINGS_CHANGE in words."""
    noted = parse_change(detail)
    if not noted.changed:
        return f"settings {noted.after or '?'} seen first"
    return f"{', '.join(noted.changed)} (settings {noted.after})"


_VERBS = {  # {} is how many messages
    "queue.hold": "held {}",
    "queue.release": "released {}",
    "queue.retry": "made {} due now",
    "queue.delete": "moved {} to the trash",
    "queue.undelete": "restored {} from the trash",
    "queue.expire": "ended {} as expired",
    "queue.move": "moved {}",
    "queue.reroute": "rerouted {}",
    RESEND: "sent a message again",
    "queue.export": "exported {}",
    "queue.import": "imported {}",
    "sandbox.check_links": "visited the links of {}",
    "sandbox.delete": "deleted {} from the sandbox",
    "sandbox.release": "released a captured message",
    "suppression.add": "suppressed",
    "suppression.remove": "lifted the suppression of",
    "suppression.import": "imported suppressed addresses",
    "guard.hold": "held the mail of",
    "guard.release": "released the mail of",
    "guard.allow": "allowed the mail of",
    "guard.forget": "no longer allows the mail of",
    "hold.add": "set the standing hold",
    "hold.end": "ended the standing hold",
    "provider.hold": "held provider",
    "provider.release": "released provider",
    "webhooks.resume": "let a receiver of events be tried again",
    "webhooks.replay": "sent events again",
    "webhooks.test": "sent a test event",
    "db.adopt": "made this machine the home of the queue:",
    "db.restore": "replaced the queue with a copy, with {}",
    SETTINGS_CHANGE: "",
}
KINDS = tuple(sorted(_VERBS))
"""The actions that are known; others are shown as they are."""
_PLACES = {
    **{"queue.export": "to {}", "queue.import": "from {}", "db.restore": "of {}"},
    "suppression.import": "from {}",
}
_CONDITIONS = {
    "recipient": "to {}",
    "sender": "from {}",
    "subject": "with “{}” in the subject",
    "to": "to provider {}",
    "from": "of route {}",
    "reason": "deferred with “{}”",
    "reply": "answered “{}”",
    "note": "because “{}”",
    "state": "in state {}",
    "result": "with the result {}",
    "search": "found by {}",
    "older_than": "older than {}",
    "since": "since {}",
    "until": "until {}",
}
_OTHER_NAMES = {"state_names": "state", "results": "result", "older_than_s": "older_than"}
_BY = {"web": "in the pages", "api": "by the API", "drain": "to drain the gateway"}
_SHOWN_IDS = 3
_QUEUE_ID = re.compile(r"[A-Z0-9]{10,20}")
_CONDITION = re.compile(
    r"(?:^|(?<=[ ,;]))(\w+)=((?:b?'(?:[^'\\]|\\.)*')|\"(?:[^\"\\]|\\.)*\"|\((?:[^()])*\)|[\d.]+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One line of the trail in parts, for pages; `text` is the whole sentence."""

    who: str
    did: str
    about: str  # where, by which way, and why
    ids: tuple[str, ...]  # the first of the messages
    more: int  # how many more there are
    between: str  # the ids

    @property
    def text(self) -> str:
        """The sentence."""
        more = f" and {self.more} more" if self.more else ""
        ids = f": {self.between.join(self.ids)}{more}" if self.ids else ""
        return f"{self.who} {self.did} {self.about}".rstrip() + ids


def audit_object(entry: AuditEntry) -> dict[str, Any]:
    """Return a line of the audit trail; `--json` and the API have the same names of fields."""
    return {
        "at": rfc3339(entry.at_ms),
        **fields(entry, "actor", "action", "target", "affected", "detail"),
        "text": deed_of(entry).text,
    }


def deed_of(entry: AuditEntry, *, on: str = "") -> Deed:
    """Return a line in words; `on` the page of a message it names the others only."""
    targets = entry.target.split()
    ids = targets if targets and all(map(_QUEUE_ID.fullmatch, targets)) else []
    others = (
        [queue_id for queue_id in ids if queue_id != on] if not on or entry.action == RESEND else []
    )
    who, (which, about) = entry.actor, _parts(entry)
    if entry.action == SETTINGS_CHANGE:
        who, did = f"A {who}", _settings(entry.detail)
    elif entry.action in _VERBS:
        messages = " ".join([counted(entry.affected, "message", form=","), *which])
        did = _VERBS[entry.action].format(messages)
    else:
        did = " ".join([entry.action, *which])
    if not ids and entry.target and entry.action != SETTINGS_CHANGE:
        about.insert(0, _PLACES.get(entry.action, "{}").format(entry.target))
    if entry.action not in _VERBS and entry.affected > 1:
        about.append(f"({entry.affected:,})")
    shown, more = tuple(others[:_SHOWN_IDS]), max(0, len(others) - _SHOWN_IDS)
    between = " as " if entry.action == RESEND else ", "
    return Deed(who=who, did=did, about=" ".join(about), ids=shown, more=more, between=between)


def _parts(entry: AuditEntry) -> tuple[list[str], list[str]]:
    """Return by what the mail was chosen, and the rest: by which way, and why."""
    detail = entry.detail
    if entry.action == SETTINGS_CHANGE or not detail:
        return [], []
    if entry.action == "provider.hold":
        return [], [f"because “{detail}”"]
    if entry.action == "provider.release":
        why = detail.removeprefix(f"provider {entry.target}: ")
        return [], [f"({why})"] if why != f"operator: {entry.actor}" else []
    found: dict[str, list[str]] = {}
    for name, value in _CONDITION.findall(detail):
        name = _OTHER_NAMES.get(name, name)
        found.setdefault(name, []).append(_value(name, value))
    said = {
        name: _CONDITIONS.get(name, name.replace("_", " ") + " {}").format(" or ".join(values))
        for name, values in found.items()
    }
    after = [said.pop(name) for name in ("to", "note") if name in said]
    rest = " ".join(_CONDITION.sub("", detail).split()).strip(" ,;")
    by = next((word for word in _BY if re.search(rf"^{word}(?:,|$)|; {word}$", rest)), "")
    if by:
        after.insert(len(after) - ("note" in found), _BY[by])
        rest = rest.removeprefix(by).removesuffix(f"; {by}").strip(" ,;")
    if rest == "all waiting":
        return [*said.values(), "that waited"], after
    text = rest if not rest or rest.startswith("to ") else f"({rest})"
    return list(said.values()), [text, *after] if text else after


def _settings(detail: str) -> str:
    noted = parse_change(detail)
    if noted.after is None:
        return f"changed the settings ({detail})"
    if not noted.changed:
        return f"recorded the settings for the first time ({noted.after})"
    return f"changed the settings of {some_of(noted.changed, 20)} (now {noted.after})"


def _value(name: str, value: str) -> str:
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        found = value
    if name == "older_than" and isinstance(found, float | int):
        return span(int(found * 1000))
    return " or ".join(map(str, found)) if isinstance(found, tuple) else str(found)
