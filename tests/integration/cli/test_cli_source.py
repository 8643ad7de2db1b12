"""`relaygw queue` tells where a message came from, whoever knew it."""

from __future__ import annotations

from relaygw.mail.envelope import Source
from tests.integration.cli.conftest import Desk


def test_local_mail_names_its_directory_and_script(desk: Desk) -> None:
    source = Source(uid=33, script="33:mail.php", cwd="/srv/shop\x1b[2J")
    queue_id = desk.add("b@cust.test", source=source)
    shown = " ".join(desk.run("queue", "show", queue_id).stdout.split())
    assert "source uid 33, script 33:mail.php, directory /srv/shop?[2J" in shown
    (found,) = desk.lines("queue", "list", "--json")
    assert (found["source"]["cwd"], found["source"]["host"]) == (source.cwd, None)


def test_relayed_mail_names_the_machine_that_took_it(desk: Desk) -> None:
    source = Source(client="10.0.0.7", helo="web1", host="web1.shop.test", uid=33)
    queue_id = desk.add("b@cust.test", source=source)
    shown = " ".join(desk.run("queue", "show", queue_id).stdout.split())
    assert "source host web1.shop.test, client 10.0.0.7, HELO web1, uid 33" in shown
    (found,) = desk.lines("queue", "list", "--json")
    assert found["source"]["host"] == "web1.shop.test"
