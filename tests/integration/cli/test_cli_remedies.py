"""What `relaygw status` says to do about held mail ends what it shows, and causes nothing else."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from relaygw.errors import StoreFull
from relaygw.mail.clock import clock_ms
from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.mail.state import DeliveryState
from relaygw.policy.untended import KINDS, ROUTE_GONE, untended
from relaygw.store.holds import Hold
from tests.builders import accepted
from tests.integration.cli.conftest import Desk
from tests.tables import each_of

CONFIG = """\
mode: production
hostname: gw.shop.test
queue: {{url: "{url}"}}
providers:
  main: {{host: smtp.provider.test}}
  spare: {{host: smtp.spare.test}}
routes:
  - {{name: default, providers: [main]}}
"""
C = HoldCode
HELD = {
    C.POISON: HoldCause(C.POISON),
    C.IN_DOUBT: HoldCause(C.IN_DOUBT),
    C.SENDER_REFUSED: sender_refused("shop.test", ["main"]),
    C.NO_SENDER: HoldCause(C.NO_SENDER, "default a@shop.test"),
    C.OVER_QUOTA: HoldCause(C.OVER_QUOTA, "default 900"),
    "content": HoldCause(C.NEEDS_8BITMIME, "default its text"),
    C.RECOVERED: HoldCause(C.RECOVERED),
    C.RESTORED: HoldCause(C.RESTORED),
    C.STORM: HoldCause(C.STORM, "abcd too often"),
    C.CONTENT_CHECK: HoldCause(C.CONTENT_CHECK, "password found in its text"),
    C.OPERATOR: HoldCause(C.OPERATOR, "ann"),
    C.STANDING: None,
    ROUTE_GONE: None,
}
ELSEWHERE = {  # remedies that are no command, or are carried out with real parts
    C.MODE: "integration/test_reconciler.py",
    C.GUARD: "integration/cli/test_cli_guard.py",
    C.OTHER: "integration/cli/test_cli_story.py: queue explain",
    "stuck": "e2e/test_hung_role.py",
    "other_machine": "e2e/test_cloned_host.py",
}
# of the words that a remedy names in a sentence: `queue release or delete`
_COMMAND = re.compile(
    r"relaygw (?:queue|hold|guard) [a-z]+(?: ID\b| --?[a-z-]+ (?:'[^']*'|[^\s;,)]+))*"
)


def test_a_full_volume_is_told_with_its_remedy(desk: Desk) -> None:
    with desk.store.database.write() as tx:
        tx.connection.exec_driver_sql("PRAGMA max_page_count = 1")  # it becomes what there is
    with pytest.raises(StoreFull, match="is full; free some space; no accepted mail is lost"):
        desk.store.intake.accept_batch([accepted(content=bytes(10**6))])


def untended_of(desk: Desk) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(desk.run("status", "--json").stdout)["untended"]
    return found


def command_in(remedy: str, **words: str) -> list[str]:
    """Return the first command of a remedy that changes something, as somebody types it."""
    listed, changing = "", []
    for text in _COMMAND.findall(remedy):
        if re.match(r"relaygw (queue|hold) (list|explain)", text):
            listed = text
        else:
            changing.append(text)
    command = changing[0]
    if command in ("relaygw queue release", "relaygw queue retry") and "--reason" in listed:
        command += listed.partition("list")[2]  # of what was just listed
    for name, value in words.items():
        command = re.sub(rf"\b{name}\b", value, command)
    return shlex.split(command)[1:]


@each_of("kind", HELD, ids=str)
def test_the_remedy_ends_it(desk: Desk, kind: str) -> None:
    desk.config.write_text(CONFIG.format(url=desk.url))
    cause, mail, at_ms = HELD[kind], accepted(at_ms=clock_ms()), clock_ms() - 60_000
    words = {"PROVIDER": "spare"}
    if kind == C.STANDING:
        desk.store.intake.accept_batch([mail])
        words["ID"] = json.loads(desk.run("hold", "add", "--subject", "x", "--json").stdout)["id"]
    elif kind == ROUTE_GONE:
        mail = accepted(at_ms=at_ms, route="gone")
        desk.store.intake.accept_batch([mail])
    else:
        mail = accepted(at_ms=at_ms, holds=(cause,))
        desk.store.intake.accept_batch([mail])
        words["ID"] = mail.queue_id
    (shown,) = untended_of(desk)
    assert shown["kind"] == kind
    command = command_in(shown["remedy"], **words)
    agreed = [] if command[0] == "hold" else ["--yes"]
    done = desk.run(*command, *agreed)
    assert done.exit_code == 0, done.output
    assert untended_of(desk) == []
    (entry,) = desk.store.queue.entries([mail.queue_id])
    assert entry.deliveries[0].state in (DeliveryState.DEFERRED, DeliveryState.INCOMING)


def test_each_kind_is_carried_out_somewhere() -> None:
    assert {*map(str, HELD), *map(str, ELSEWHERE)} == {*map(str, KINDS)}
    assert untended.__doc__


def test_the_remedy_of_a_held_provider_ends_it(desk: Desk) -> None:
    desk.config.write_text(CONFIG.format(url=desk.url))
    assert desk.run("provider", "hold", "main", "--reason", "moving").exit_code == 0
    credential = Hold(
        scope="credential", key="spare", reason="535", remedy="", since_ms=1, probe_at_ms=2
    )
    desk.store.holds.put_hold(credential)
    shown = json.loads(desk.run("status", "--json").stdout)["holds"]
    remedy = next(one["remedy"] for one in shown if one["key"] == "main")
    command = shlex.split(remedy.removeprefix("run: "))[1:]
    assert desk.run(*command).exit_code == 0
    left = json.loads(desk.run("status", "--json").stdout)["holds"]
    assert [one["key"] for one in left] == ["spare"]
