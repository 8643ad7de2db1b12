from __future__ import annotations

import re
from pathlib import Path

import relaygw
from relaygw.operations.audit import KINDS, audit_object, deed_of
from relaygw.operations.queue_actions import ACTIONS
from relaygw.store.audit import AuditEntry
from tests.tables import each_of

ID, OTHER = "1M8FC4RK90ATX", "1M8FC5T10AVTY"


def entry(action: str, target: str, detail: str = "", number: int = 1) -> AuditEntry:
    return AuditEntry(
        at_ms=0, actor="anna", action=action, target=target, affected=number, detail=detail
    )


@each_of(
    ("line", "shown"),
    [
        (entry("queue.hold", f"{ID} {OTHER}",
               "web, recipient='@x.example' note='the shop\\'s template'", 2),
         "held 2 messages to @x.example in the pages because “the shop's template”: "
         f"{ID}, {OTHER}"),
        (entry("queue.hold", " ".join([ID] * 5), "", 5),
         f"held 5 messages: {ID}, {ID}, {ID} and 2 more"),
        (entry("queue.release", ID, "reason='timed out'"),
         f"released 1 message deferred with “timed out”: {ID}"),
        (entry("queue.retry", ID, "drain"), f"made 1 message due now to drain the gateway: {ID}"),
        (entry("queue.retry", ID, "provider main was released"),
         f"made 1 message due now (provider main was released): {ID}"),
        (entry("queue.retry", ID, "web, all waiting", 4000),
         f"made 4,000 messages that waited due now in the pages: {ID}"),
        (entry("queue.delete", ID,
               "sender='a@b' state_names=('held', 'active') older_than_s=3600.0"),
         f"moved 1 message from a@b in state held or active older than 1 hour to the trash: {ID}"),
        (entry("queue.undelete", ID), f"restored 1 message from the trash: {ID}"),
        (entry("queue.expire", ID, "web note='too late'"),
         f"ended 1 message as expired in the pages because “too late”: {ID}"),
        (entry("queue.move", ID, "to='spare' web, state='held' state='deferred'"),
         f"moved 1 message in state held or deferred to provider spare in the pages: {ID}"),
        (entry("queue.reroute", ID, "from='old'"),
         f"rerouted 1 message of route old: {ID}"),
        (entry("queue.resend", f"{ID} {OTHER}", "to a@b.example (captured); web"),
         f"sent a message again to a@b.example (captured) in the pages: {ID} as {OTHER}"),
        (entry("queue.export", "stdout", "subject='sale'", 7),
         "exported 7 messages with “sale” in the subject to stdout"),
        (entry("queue.import", "/var/spool/x", "", 7), "imported 7 messages from /var/spool/x"),
        (entry("sandbox.delete", ID, "web, search: from:x", 2),
         f"deleted 2 messages from the sandbox (search: from:x) in the pages: {ID}"),
        (entry("sandbox.check_links", ID, "web, 5 links"),
         f"visited the links of 1 message (5 links) in the pages: {ID}"),
        (entry("sandbox.release", ID, "to a@b.example (allowed) for x@y.example; api"),
         f"released a captured message to a@b.example (allowed) for x@y.example by the API: {ID}"),
        (entry("provider.hold", "main", "they asked"), "held provider main because “they asked”"),
        (entry("provider.release", "main", "credential main: 535 bad key"),
         "released provider main (credential main: 535 bad key)"),
        (entry("provider.release", "main", "provider main: operator: anna"),
         "released provider main"),
        (entry("provider.release", "main", "provider main: operator: they asked"),
         "released provider main (operator: they asked)"),
        (entry("db.restore", "/a/b.db", "", 7),
         "replaced the queue with a copy, with 7 messages of /a/b.db"),
        (entry("hold.end", "15c671b1 mail to gmx.example", ""),
         "ended the standing hold 15c671b1 mail to gmx.example"),
        (entry("strange.deed", "it", "some detail", 2), "strange.deed it (some detail) (2)"),
        (entry("strange.deed", "", "", 1), "strange.deed"),
    ],
)  # fmt: skip
def test_a_line_is_a_sentence(line: AuditEntry, shown: str) -> None:
    assert deed_of(line).text == f"anna {shown}"
    assert audit_object(line)["text"] == f"anna {shown}"


@each_of(
    ("detail", "shown"),
    [
        ('{"before":"a","after":"b","changed":["routes","web"]}',
         "A anna changed the settings of routes, web (now b)"),
        ('{"before":null,"after":"b","changed":[]}',
         "A anna recorded the settings for the first time (b)"),
        ("no JSON", "A anna changed the settings (no JSON)"),
        ("[]", "A anna changed the settings ([])"),
    ],
)  # fmt: skip
def test_settings(detail: str, shown: str) -> None:
    assert deed_of(entry("settings.change", "gw", detail)).text == shown


def test_the_page_of_a_message_names_the_other_copy_only() -> None:
    resent = entry("queue.resend", f"{ID} {OTHER}", "to a@b.example")
    assert deed_of(resent, on=ID).ids == (OTHER,)
    assert deed_of(entry("queue.hold", f"{ID} {OTHER}"), on=ID).ids == ()


def test_every_kind_that_is_written_has_words() -> None:
    written = {f"queue.{name}" for name in ACTIONS}
    for path in Path(relaygw.__file__).parent.rglob("*.py"):
        if path.parent.name not in ("web", "queue"):  # names of templates
            written |= set(re.findall(r'"((?:queue|sandbox|hold|provider|db|settings)\.[a-z]+)"',
                                      path.read_text()))  # fmt: skip
    others = {
        one for one in written if one.endswith((".db", ".html", ".lock", ".password", ".url"))
    }
    assert written - others <= set(KINDS), written - others - set(KINDS)
