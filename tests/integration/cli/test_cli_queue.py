from __future__ import annotations

import re

import pytest

from relaygw.cli.text import cells
from relaygw.mail.envelope import NewDelivery, NewRecipient, Source
from relaygw.mail.state import DeliveryState, RecipientState
from tests.integration.cli.conftest import Desk

D = DeliveryState


def test_an_empty_queue_says_so(desk: Desk) -> None:
    result = desk.run("queue", "list")
    assert (result.exit_code, result.stdout) == (0, "the queue is empty\n")


def test_a_list_shows_the_unfinished_in_the_order_of_acceptance(desk: Desk) -> None:
    young, old = desk.add(age_s=60), desk.add(age_s=7200)
    desk.add_captured()
    rows = desk.run("queue", "list").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["QUEUE", old, young, "--"]
    assert rows[-1] == "-- 2 messages"
    assert rows[1].split()[1:4] == ["2h", "incoming", "21"]


def test_rows_fit_80_columns_and_obey_no_terminal_sign(desk: Desk) -> None:
    desk.add(
        "someone.with.a.long.name@customer.example.test",
        "other@customer.test",
        sender="a.very.long.sender.address@mail.shop.example.test",
        subject="\x1b[2J\u202e" + "注文確認" * 30,
        age_s=400 * 86400,
        size_bytes=123_456_789,
    )
    output = desk.run("queue", "list").stdout
    assert max(map(cells, output.splitlines())) <= 80
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert " +1 " in output
    assert "incoming    123M" in output


def test_the_fields_of_json_are_the_documented_ones(desk: Desk) -> None:
    source = Source(client="10.1.2.3", helo="web1", user="shop1", listener="127.0.0.1:25", uid=33)
    queue_id = desk.add(
        NewRecipient(address="b@cust.test", original="root"), source=source, subject="Größe"
    )
    desk.attempt(D.DEFERRED, reason="451 4.7.0 slow down")
    (found,) = desk.lines("queue", "list", "--json")
    assert list(found)[:13] == [
        "queue_id",
        "state",
        "stream",
        "route",
        "sender",
        "recipients",
        "subject",
        "size_bytes",
        "accepted_at",
        "source",
        "attempts",
        "next_attempt_at",
        "reason",
    ]
    assert list(found["recipients"][0])[:8] == (
        ["address", "original", "state", "provider", "reply", "dsn", "attempts", "next_attempt_at"]
    )
    assert list(found["source"])[:5] == ["client", "user", "listener", "uid", "script"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["accepted_at"])
    assert found["queue_id"] == queue_id
    assert found["state"] == "deferred"
    assert found["reason"] == "451 4.7.0 slow down"
    assert found["subject"] == "Größe"
    assert found["source"]["client"] == "10.1.2.3"
    assert found["attempts"] == 1
    (recipient,) = found["recipients"]
    assert recipient["original"] == "root"
    assert recipient["provider"] == "main"
    assert recipient["next_attempt_at"] == found["next_attempt_at"] > found["accepted_at"]
    assert desk.lines("queue", "show", queue_id, "--json") == [{**found, "events": []}]


def test_a_message_of_several_deliveries_is_as_far_as_its_least_finished_one(desk: Desk) -> None:
    parts = (
        NewDelivery(
            route="captured",
            stream="transactional",
            recipients=(NewRecipient(address="x@y.test", state=RecipientState.CAPTURED),),
        ),
        NewDelivery(
            route="promo", stream="promotional", recipients=(NewRecipient(address="b@cust.test"),)
        ),
    )
    desk.add(deliveries=parts)
    (found,) = desk.lines("queue", "list", "--json")
    assert (found["state"], found["route"], found["stream"]) == ("incoming", "promo", "promotional")
    assert [one["state"] for one in found["recipients"]] == ["captured", "pending"]


@pytest.mark.parametrize(
    "selector",
    [
        ("--sender", "PROMO@"),
        ("--sender", "<>"),
        ("--recipient", "cust2"),
        ("--subject", "newsletter 50%"),
        ("--route", "promo"),
        ("--stream", "promotional"),
        ("--client", "10.1.2.3"),
        ("--older-than", "2h"),
        ("--state", "deferred"),
        ("--provider", "main"),
        ("--reason", "slow"),
    ],
)
def test_each_selector_picks_its_message_and_no_other(
    desk: Desk, selector: tuple[str, str]
) -> None:
    desk.add(subject="other 50 %", sender="shop@shop.test", age_s=60)
    recipients = (NewRecipient(address="b@cust2.test"),)
    wanted = desk.add(
        subject="Your Newsletter 50% off",
        sender="" if selector[1] == "<>" else "promo@shop.test",
        deliveries=(NewDelivery(route="promo", stream="promotional", recipients=recipients),),
        source=Source(client="10.1.2.3"),
        age_s=3 * 3600,
    )
    desk.attempt(D.DEFERRED, reason="451 Slow down", route="promo")
    found = desk.lines("queue", "list", "--json", *selector)
    assert [one["queue_id"] for one in found] == [wanted]


def test_a_limit_that_cuts_says_that_more_match(desk: Desk) -> None:
    first = desk.add(age_s=9)
    desk.add(age_s=5)
    result = desk.run("queue", "list", "--limit", "1")
    assert first in result.stdout
    assert result.stdout.splitlines()[-1] == "-- 1 message, more match"
    assert desk.run("queue", "list", "--limit", "2").stdout.splitlines()[-1] == "-- 2 messages"


def test_a_list_goes_over_all_pages(desk: Desk) -> None:
    ids = [desk.add(age_s=5000 - number) for number in range(1001)]
    assert [one["queue_id"] for one in desk.lines("queue", "list", "--json")] == ids


def test_show_tells_the_whole_story(desk: Desk) -> None:
    queue_id = desk.add(
        "b@cust.test", age_s=60, source=Source(client="10.0.0.1", script="33:m.php")
    )
    desk.attempt(D.DEFERRED, reason="451 4.7.0 slow down")
    output = desk.run("queue", "show", queue_id.lower()).stdout
    for words in (
        queue_id,
        "deferred",
        "client 10.0.0.1, script 33:m.php",
        "b@cust.test: pending",
        "main: 451 4.7.0 slow down [4.7.0]",
        "(in 10m)",
        "mode production",
    ):
        assert words in output
    assert max(map(len, output.splitlines())) <= 80


def test_show_of_an_unknown_id_is_a_data_error(desk: Desk) -> None:
    known = desk.add()
    result = desk.run("queue", "show", "NOSUCHMESSAGE", known)
    assert result.exit_code == 65
    assert result.stderr == "relaygw: NOSUCHMESSAGE: no such message\n"
    assert known in result.stdout


def test_raw_content_is_byte_exact(desk: Desk) -> None:
    content = b"Subject: x\r\n\r\n\xff\x00bytes\r\n.dot\r\n"
    queue_id = desk.add(content=content)
    result = desk.run("queue", "show", "--raw", queue_id)
    assert (result.exit_code, result.stdout_bytes) == (0, content)


def test_raw_content_that_ends_early_is_no_success(desk: Desk) -> None:
    queue_id = desk.add(content=b"Subject: x\r\n", size_bytes=2_000_000)
    result = desk.run("queue", "show", "--raw", queue_id)
    assert result.exit_code == 65
    assert "only 12 of 2000000 bytes were left" in result.stderr


def test_raw_content_that_is_gone_is_named(desk: Desk) -> None:
    dropped = NewRecipient(address="b@spam.test", state=RecipientState.BLOCKED)
    queue_id = desk.add(dropped, content=b"x\r\n")
    result = desk.run("queue", "show", "--raw", queue_id)
    assert (result.exit_code, result.stdout) == (65, "")
    assert "no longer kept" in result.stderr


# --- what became of it ------------------------------------------------------------------------

R = RecipientState


def people(*results: R) -> tuple[NewRecipient, ...]:
    """Return a recipient for each result."""
    return tuple(
        NewRecipient(address=f"{n}.{result}@cust.test", state=result, reason="550 5.1.1 unknown")
        for n, result in enumerate(results)
    )


def listed(desk: Desk, *words: str) -> list[str]:
    return [one["queue_id"] for one in desk.lines("queue", "list", "--json", *words)]


def test_mail_by_result_is_newest_first_unless_the_oldest_are_wanted(desk: Desk) -> None:
    old, young = (desk.add(*people(R.BOUNCED), age_s=age_s) for age_s in (60, 30))
    expired, waits = desk.add(*people(R.EXPIRED), age_s=20), desk.add()
    assert listed(desk, "--result", "bounced") == [young, old]
    assert listed(desk, "--result", "bounced", "--oldest-first") == [old, young]
    assert listed(desk, "--result", "bounced", "--result", "expired") == [expired, young, old]
    assert listed(desk, "--state", "finished", "--limit", "1") == [expired]
    assert listed(desk) == [waits]
    newer = desk.add()
    assert listed(desk) == [waits, newer]
    assert listed(desk, "--newest-first") == [newer, waits]


def test_the_newest_come_first_over_all_pages(desk: Desk) -> None:
    ids = [desk.add(*people(R.DELIVERED), age_s=5000 - number) for number in range(600)]
    assert listed(desk, "--result", "delivered") == ids[::-1]


def test_mail_of_a_time(desk: Desk) -> None:
    old, young = (desk.add(*people(R.BOUNCED), age_s=age_s) for age_s in (3 * 86400, 60))
    assert listed(desk, "--result", "bounced", "--since", "2d") == [young]
    assert listed(desk, "--result", "bounced", "--until", "2d") == [old]
    assert listed(desk, "--since", "2d", "--state", "all") == [young]
    assert listed(desk, "--result", "bounced", "--since", "4d", "--until", "2d") == [old]


def test_mail_by_where_it_came_from(desk: Desk) -> None:
    source = Source(host="web1.shop.test", uid=33, script="/srv/shop/cron.php")
    wanted = desk.add(source=source)
    desk.add(source=Source(host="web2.shop.test", uid=333, script="/srv/blog/cron.php"))
    for words in (("--host", "WEB1.shop.test"), ("--uid", "33"), ("--script", "shop/cron")):
        assert listed(desk, *words) == [wanted]


def test_several_results_are_shown(desk: Desk) -> None:
    queue_id = desk.add(*people(R.DELIVERED, R.DELIVERED, R.BOUNCED))
    narrow = desk.run("queue", "list", "--result", "bounced").stdout
    assert " bounced +2 " in narrow
    wide = desk.run("queue", "list", "--result", "bounced", columns=120).stdout
    assert " 2 delivered, 1 bounced " in wide
    assert "2 delivered, 1 bounced" in desk.run("queue", "show", queue_id).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--state", "bounced"), "'bounced' is a result, not a state; write --result bounced"),
        (("--result", "held"), "'held' is a state, not a result; write --state held"),
        (
            ("--result", "in doubt"),
            "'in doubt' is an attempt, not a result; write --attempt 'in doubt'",
        ),
        (
            ("--since", "5m", "--until", "10m"),
            "--since 5m is later than --until 10m; exchange them",
        ),
        (("--result", "lost"), "'lost' is not one of 'delivered'"),
        (
            ("--since", "bounced"),
            "'bounced' is not a time; write today, 10:30, 2026-11-27, or an age",
        ),
        (("--until", ""), "is empty"),
        (("--uid", "www-data"), "'www-data' is not a user ID; `id -u NAME` prints it"),
        (("--oldest-first", "--newest-first"), "cannot be used together"),
    ],
)
def test_what_cannot_be_selected_by_is_said(desk: Desk, words: tuple[str, ...], said: str) -> None:
    result = desk.run("queue", "list", *words)
    assert result.exit_code == 64
    assert said in " ".join(result.stderr.split())


def test_a_change_by_result_leaves_what_is_over_alone(desk: Desk) -> None:
    over = desk.add(*people(R.BOUNCED))
    parts = tuple(
        NewDelivery(route=route, stream="transactional", recipients=people(result))
        for route, result in (("captured", R.BOUNCED), ("default", R.PENDING))
    )
    waits = desk.add(deliveries=parts)
    result = desk.run("queue", "hold", "--result", "bounced", "--yes")
    assert result.stdout.splitlines()[-1] == "1 message held"
    assert result.stderr == ""
    assert D.HELD in desk.states(waits)
    assert desk.states(over) == {D.FINISHED}
