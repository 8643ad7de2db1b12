"""`relaygw hold`: what an operator writes, and what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from relaygw.mail.clock import clock_ms
from relaygw.mail.hold import provider_down
from relaygw.mail.standing_hold import HoldScope
from relaygw.mail.state import DeliveryState
from relaygw.store.holds import Hold, ended_entry
from tests.builders import accepted
from tests.integration.cli.conftest import Desk
from tests.tables import each_of

D = DeliveryState


def add(desk: Desk, *words: str) -> dict[str, Any]:
    result = desk.run("hold", "add", *words, "--json")
    assert result.exit_code == 0, result.output
    done: dict[str, Any] = json.loads(result.stdout)
    return done


def test_what_waits_is_held_listed_and_released(desk: Desk) -> None:
    gmx, web, both = (
        accepted("a@gmx.test"),
        accepted("b@web.test"),
        accepted("a@gmx.test", "b@web.test"),
    )
    desk.store.intake.accept_batch([gmx, web, both])
    result = desk.run(
        *("hold", "add", "--recipient-domain", "gmx.test", "--reason", "their  server is down")
    )
    assert result.exit_code == 0
    assert ": recipient domain gmx.test, 1 message waiting; held until" in result.stdout  # not both
    states = {
        one.queue_id: one.deliveries[0].state
        for one in desk.store.queue.entries([gmx.queue_id, web.queue_id, both.queue_id])
    }
    assert states == {gmx.queue_id: D.HELD, web.queue_id: D.INCOMING, both.queue_id: D.INCOMING}
    head, row, last = desk.run("hold", "list").stdout.splitlines()
    assert head.split() == ["ID", "WAITING", "SINCE", "UNTIL", "MAIL"]
    assert len(row) <= 80
    assert "mail to gmx.test" in row
    assert last == "-- 1 hold"
    (hold,) = map(json.loads, desk.run("hold", "list", "--json").stdout.splitlines())
    assert list(hold) == ["id", "scope", "value", "since", "until", "reason", "by", "waiting"]
    assert (hold["reason"], hold["until"], hold["waiting"]) == ("their server is down", None, 1)
    status = " ".join(desk.run("status").stdout.split())
    assert "held mail to gmx.test since" in status
    assert (
        f"their server is down; 1 message waiting, until it is ended: relaygw hold end {hold['id']}"
        in status
    )
    assert "a standing hold keeps it" in status
    shown = json.loads(desk.run("status", "--json").stdout)["standing_holds"]
    assert shown == [hold]
    explained = " ".join(desk.run("queue", "explain", gmx.queue_id).stdout.split())
    assert f"relaygw hold end {hold['id']}" in explained
    assert "it is held until that hold ends." in explained
    add(desk, "--recipient-domain", "gmx.test", "--until", "2099-01-31T10:00")
    (later,) = map(json.loads, desk.run("hold", "list", "--json").stdout.splitlines())
    explained = " ".join(desk.run("queue", "explain", gmx.queue_id).stdout.split())
    assert f"until that hold ends, {later['until'][:19].replace('T', ' ')} UTC" in explained
    left = desk.run("queue", "release", gmx.queue_id, "--yes")
    assert f"relaygw hold end {hold['id']}" in left.output
    assert (
        desk.run("hold", "end", hold["id"]).stdout
        == f"{hold['id']}: ended; 1 message due, unless another hold keeps them\n"
    )
    assert desk.run("hold", "list").stdout == "-- 0 holds\n"
    actions = [one.action for one in desk.store.audit.entries(limit=9)]
    assert actions == ["hold.end", "hold.add", "hold.add"]


def test_the_same_again_changes_what_is_given(desk: Desk) -> None:
    first = add(desk, "--sender", "<>")
    again = add(desk, "--sender", "<>", "--until", "2h", "--reason", "bounces")
    assert first["id"] == again["id"]
    assert (first["value"], first["until"]) == ("<>", None)
    assert again["until"] is not None
    kept = add(desk, "--sender", "<>")
    assert (kept["until"], kept["reason"]) == (again["until"], "bounces")
    assert add(desk, "--sender", "<>", "--reason", "new")["until"] == again["until"]
    endless = add(desk, "--sender", "<>", "--until", "none")
    assert (endless["until"], endless["reason"]) == (None, "new")
    (hold,) = desk.store.holds.standing()
    over = replace(hold, until_ms=clock_ms() - 1)
    desk.store.holds.put_standing(over, entry=ended_entry(over, "x", 0, ""))
    assert add(desk, "--sender", "<>")["until"] is None


@each_of(
    "words, value",
    [
        (("--recipient", "Ann@GMX.test"), "ann@gmx.test"),
        (("--recipient-domain", "@bücher.test"), "xn--bcher-kva.test"),
        (("--sender", "<shop@shop.test>"), "shop@shop.test"),
        (("--sender-domain", "Shop.test"), "shop.test"),
        (("--subject", " Order   17 "), "Order 17"),
        (("--route", "default"), "default"),
        (("--client", "10.0.0.7/24"), "10.0.0.0/24"),
        (("--client", "::1"), "::1/128"),
    ],
)
def test_each_scope_is_taken(desk: Desk, words: tuple[str, str], value: str) -> None:
    done = add(desk, *words)
    assert (done["scope"], done["value"]) == (words[0][2:].replace("-", "_"), value)
    assert HoldScope(done["scope"])


@each_of(
    "words, said",
    [
        ((), "the hold is about nothing; write one of recipient-domain, recipient, sender"),
        (("--until", "18:00"), "the hold is about nothing"),
        (("--route", "default", "--subject", "x"), "about subject and route"),
        (("--recipient-domain", "a b"), "recipient-domain 'a b' is not a domain"),
        (("--recipient-domain", " "), "recipient-domain ' ' is empty"),
        (("--recipient", "ann"), "recipient 'ann' is not an address"),
        (("--sender", "x"), "sender 'x' is not an address"),
        (("--route", "defualt"), "route 'defualt' is not a route; there are "),
        (("--client", "10.0.0"), "client '10.0.0' is not an IP address or network; write 10.0.0.7"),
        (("--subject", "x" * 301), "has 301 characters, more than 300"),
        (("--subject", "x", "--until", "soon"), "until 'soon' is not a time; write 18:00, 2h"),
        (("--subject", "x", "--until", "2020-01-01"), "until '2020-01-01' is over already"),
    ],
)
def test_mistakes_change_nothing_and_say_what_to_write(
    desk: Desk, words: tuple[str, ...], said: str
) -> None:
    result = desk.run("hold", "add", *words)
    assert result.exit_code == 65
    assert said in " ".join(result.output.split())
    assert desk.store.holds.standing() == []


def test_an_unknown_id_is_said(desk: Desk) -> None:
    result = desk.run("hold", "end", "nope")
    assert result.exit_code == 65
    assert "id 'nope' is not the id of a standing hold in force" in result.output
    assert "relaygw hold list" in result.output


def test_many_waiting_messages_are_held_in_time(desk: Desk) -> None:
    desk.store.intake.accept_batch([accepted("a@gmx.test", at_ms=clock_ms()) for _ in range(1_200)])
    assert add(desk, "--client", "127.0.0.0/8")["waiting"] == 1_200


def test_the_release_of_a_provider_makes_no_mail_of_one_named_like_it_due(desk: Desk) -> None:
    ids = {}
    for name in ("main", "main-eu"):
        ids[name] = desk.add(f"{name}@cust.test")
        desk.attempt(D.DEFERRED, reason=provider_down(name).sentence)
        stop = Hold(
            scope="provider",
            key=name,
            reason="535 key",
            remedy="",
            since_ms=clock_ms(),
            probe_at_ms=None,
        )
        desk.store.holds.put_hold(stop)
    due = {name: desk.due_at_ms(queue_id) for name, queue_id in ids.items()}
    assert desk.run("provider", "release", "main").exit_code == 0
    assert desk.due_at_ms(ids["main"]) < due["main"]
    assert desk.due_at_ms(ids["main-eu"]) == due["main-eu"]
