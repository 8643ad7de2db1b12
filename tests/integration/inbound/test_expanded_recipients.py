"""A recipient that becomes several: what RCPT answers, whom the mail goes to, and how many."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.drop_file import Drop
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import compose_local
from relaygw.mail.envelope import NewRecipient
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.integration.inbound.front_rig import running_front

MANY = [f"r{number}@new.test" for number in range(600)]
PRODUCTION: dict[str, Any] = {
    "mode": "production",
    "providers": {"p": {"host": "smtp.example.com"}},
    "routes": [{"name": "default", "providers": ["p"]}],
    "rewrite": {
        "recipients": {
            "list@old.test": ["a@new.test", "b@spam.test"],
            "bad@old.test": ["c@spam.test", "d@spam.test"],
            "many@old.test": MANY,
        },
        "recipient_delimiter": "+",
    },
    "recipients": {"block": ["@spam.test"], "blocked": "reject"},
}


async def test_what_one_recipient_becomes(tmp_path: Path) -> None:
    async with running_front(tmp_path, settings=PRODUCTION) as rig:
        client = await rig.greeted()
        for command, reply in (
            (b"MAIL FROM:<a@b.test>", "250 "),
            (b"RCPT TO:<bad@old.test>", "550 5.7.1"),
            (b"RCPT TO:<list@old.test> NOTIFY=DELAY ORCPT=rfc822;list@old.test", "250 "),
            (b"RCPT TO:<a@new.test>", "250 "),
            (b"DATA", "354"),
            (b"x\r\n.", "250 "),
        ):
            last = await client.command(command)
            assert last.startswith(reply), last
    with closing(open_store(f"sqlite:///{tmp_path}/queue.db")) as store:
        (entry,) = store.queue.search(Selection(queue_ids=(last.split()[-1],)), limit=2)
    assert [(one.address, one.original, one.state) for one in entry.recipients] == [
        ("a@new.test", "list@old.test", RecipientState.PENDING),
        ("b@spam.test", "list@old.test", RecipientState.BLOCKED),
        ("a@new.test", None, RecipientState.PENDING),
    ]


async def test_a_mail_of_many_by_few_names_is_cut(tmp_path: Path) -> None:
    async with running_front(tmp_path, settings=PRODUCTION, max_recipients=100) as rig:
        client = await rig.greeted()
        await client.command(b"MAIL FROM:<a@b.test>")
        replies = [await client.command(b"RCPT TO:<many+%d@old.test>" % n) for n in range(4)]
    assert [one[:9] for one in replies] == ["250 2.1.5"] * 2 + ["452 4.5.3"] * 2


def test_so_is_a_mail_of_the_maildrop(tmp_path: Path) -> None:
    into = Intake(
        Settings.model_validate({"hostname": "gw.test", **PRODUCTION}), state_dir=tmp_path
    )
    content = ReceivedContent(tmp_path)
    content.add(b"Subject: x\r\n\r\n")
    content.read_head()
    named = [f"many+{number}@old.test" for number in range(20)]
    drop = Drop(
        name="0.drop", uid=0, sender="a@b.test", recipients=(*named, "z@old.test"), content=content
    )
    message, _ = compose_local(into, drop, into.header_of(content))
    people: list[NewRecipient] = [one for part in message.deliveries for one in part.recipients]
    kept = [one for one in people if one.state is RecipientState.CAPTURED]
    assert [one.address for one in kept] == [*named[17:], "z@old.test"]
    assert "10000 more are sent to by rewrite" in str(kept[0].reason)
    assert len(people) == 17 * 600 + 4
