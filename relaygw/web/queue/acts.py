"""The buttons beside what a story tells to run: each does the command once it is confirmed."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import urlencode

from relaygw.operations.queue_actions import ACTIONS

_COMMAND = re.compile(
    r"relaygw (?:(?:queue explain|sandbox release) [A-Z0-9]{10,20}|suppress remove \S+)"
)


@dataclass(frozen=True, slots=True)
class Act:
    """A form that asks first, or a link to a page that does."""

    label: str
    icon: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()  # none: a link
    is_danger: bool = False


def act_of(command: str, queue_id: str) -> Act | None:
    """Return the button of a command on the page of a message, None where there is none."""
    match command.split():
        case ["relaygw", "queue", "explain", one]:
            return Act("Its story", "open", f"/queue/{one}")
        case ["relaygw", "queue", "resend", one, *_]:
            return Act("Send again…", "send", f"/queue/{one}/resend")
        case ["relaygw", "queue", name, "--id", one, *_] if name in ACTIONS:
            action = ACTIONS[name]
            fields = (("tick", one), ("action", name), ("back", "message"))
            return Act(f"{action.label}…", action.icon, "/queue/change", fields, action.is_danger)
        case ["relaygw", "provider", "release", name]:
            fields = (("provider", name), ("action", "release"), ("back", queue_id))
            return Act(f"Release {name}…", "send", "/providers/change", fields)
        case ["relaygw", "sandbox", "release", one, *_]:
            return Act("Release…", "send", f"/sandbox/{one}/release")
        case ["relaygw", "suppress", "remove", *_]:
            (address, *_) = shlex.split(command)[3:]
            return Act("Lift it…", "open", f"/suppression?{urlencode({'q': address})}")
    return None


def act_in(text: str) -> Act | None:
    """Return the button of the command that a reason names, None where it names none."""
    found = _COMMAND.search(text)
    return act_of(found[0], "") if found else None
