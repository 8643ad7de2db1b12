from __future__ import annotations

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewDelivery, NewRecipient
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.load import load_settings
from relaygw.settings.model import fingerprint
from tests.builders import instance
from tests.integration.cli.conftest import Desk

D = DeliveryState
VERBS = ("retry", "hold", "release", "delete")


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_selector_nothing_happens(desk: Desk, verb: str) -> None:
    queue_id = desk.add()
    for more in ((), ("--limit", "5")):
        result = desk.run("queue", verb, "--yes", *more)
        assert result.exit_code == 64
        assert "give ids, selectors or --all" in result.stderr
    assert desk.states(queue_id) == {D.INCOMING}


@pytest.mark.parametrize("option", ["--sender", "--recipient", "--subject", "--reason", "--id"])
def test_an_empty_selector_is_refused_and_not_everything(desk: Desk, option: str) -> None:
    queue_id = desk.add()
    assert desk.run("queue", "delete", "--yes", option, "").exit_code == 64
    assert desk.run("queue", "delete", "--yes", "").exit_code == 64
    assert desk.states(queue_id) == {D.INCOMING}


def test_no_ids_on_stdin_are_no_messages(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "delete", "-", "--yes", stdin="\n")
    assert (result.exit_code, result.stdout) == (0, "0 messages deleted\n")
    assert desk.states(queue_id) == {D.INCOMING}


def test_ids_come_from_stdin_as_mailq_prints_them(desk: Desk) -> None:
    first, second, other = desk.add(), desk.add(), desk.add()
    lines = f"{first}*  4271 Nov 25\n\n{second.lower()}\n"
    result = desk.run("queue", "delete", "-", "--yes", stdin=lines)
    assert result.exit_code == 0
    assert desk.states(first) == desk.states(second) == {D.DELETED}
    assert desk.states(other) == {D.INCOMING}


def test_ids_on_stdin_need_yes_because_nobody_can_be_asked(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "delete", "-", stdin=f"{queue_id}\n")
    assert result.exit_code == 64
    assert desk.states(queue_id) == {D.INCOMING}


def test_it_shows_and_asks_before_it_changes(desk: Desk) -> None:
    queue_id = desk.add()
    refused = desk.run("queue", "delete", "--all", stdin="n\n")
    assert refused.exit_code == 0
    assert queue_id in refused.stdout
    assert "nothing changed" in refused.stdout
    assert "delete 1 message?" in refused.stderr
    assert desk.states(queue_id) == {D.INCOMING}
    agreed = desk.run("queue", "delete", "--all", stdin="y\n")
    assert agreed.stdout.splitlines()[-1] == "1 message deleted"
    assert desk.states(queue_id) == {D.DELETED}


def test_no_answer_is_no(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "delete", "--all", stdin="")
    assert result.exit_code == 64
    assert "give --yes or --dry-run" in result.stderr
    assert desk.states(queue_id) == {D.INCOMING}


def test_a_dry_run_shows_and_changes_nothing(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "delete", "--all", "--dry-run")
    assert result.exit_code == 0
    assert queue_id in result.stdout
    assert result.stdout.splitlines()[-1] == "1 message would be deleted"
    assert desk.states(queue_id) == {D.INCOMING}
    assert desk.store.audit.entries(limit=1) == []


def test_a_long_preview_is_cut_but_all_are_changed(desk: Desk) -> None:
    ids = [desk.add() for _ in range(25)]
    result = desk.run("queue", "delete", "--sender", "a@shop.test", "--yes")
    assert "... and 5 more" in result.stdout
    assert {state for queue_id in ids for state in desk.states(queue_id)} == {D.DELETED}


def test_more_than_one_transaction_of_messages(desk: Desk) -> None:
    ids = [desk.add() for _ in range(1001)]
    assert desk.run("queue", "hold", "--all", "--yes").exit_code == 0
    assert len(desk.lines("queue", "list", "--state", "held", "--json")) == len(ids)
    entries = desk.store.audit.entries(limit=10)
    assert sum(entry.affected for entry in entries) == len(ids)


def test_all_and_a_selector_contradict_each_other(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "delete", "--all", "--sender", "a@", "--yes")
    assert result.exit_code == 64
    assert desk.states(queue_id) == {D.INCOMING}


def test_the_null_sender_selects_bounces_only(desk: Desk) -> None:
    mail, bounce = desk.add(), desk.add(sender="")
    assert desk.run("queue", "delete", "--sender", "<>", "--yes").exit_code == 0
    assert desk.states(mail) == {D.INCOMING}
    assert desk.states(bounce) == {D.DELETED}


def test_retry_makes_deferred_mail_due_now_and_only_that(desk: Desk) -> None:
    held, deferred = desk.add(), desk.add()
    desk.run("queue", "hold", held, "--yes")
    desk.attempt(D.DEFERRED, reason="451 later")
    result = desk.run("queue", "retry", "--all", "--yes")
    assert result.stdout.splitlines()[-1] == "1 message due now"
    (part,) = desk.entry(deferred).deliveries
    assert part.due_at_ms <= clock_ms()
    assert desk.states(held) == {D.HELD}


def test_what_the_mode_would_hold_again_does_not_count_as_released(desk: Desk) -> None:
    customer, colleague = desk.add("b@cust.test"), desk.add("dev@agency.test")
    assert desk.run("queue", "hold", "--all", "--yes").exit_code == 0
    text = desk.config.read_text().replace("mode: production", "mode: staging")
    desk.config.write_text(text + "recipients: {allow: [dev@agency.test]}\n")
    settings = load_settings(config=desk.config, environ={}).settings
    desk.store.instances.register(instance("w", fingerprint=fingerprint(settings)))
    result = desk.run("queue", "release", "--all", "--yes")
    assert result.stdout.splitlines()[-1] == "1 message released"
    assert (
        f"{customer}: left alone: the mode or recipients.allow permits none of its" in result.stderr
    )
    assert (desk.states(customer), desk.states(colleague)) == ({D.HELD}, {D.DEFERRED})


def test_hold_and_release(desk: Desk) -> None:
    queue_id = desk.add()
    desk.run("queue", "hold", queue_id, "--yes", "--note", "wrong price")
    (part,) = desk.entry(queue_id).deliveries
    assert (part.state, part.reason) == (D.HELD, "operator: wrong price")
    assert desk.run("queue", "release", "--reason", "wrong price", "--yes").exit_code == 0
    (part,) = desk.entry(queue_id).deliveries
    assert part.state is D.DEFERRED
    assert part.due_at_ms <= clock_ms()


@pytest.mark.parametrize(("verb", "exit_code"), [("delete", 75), ("hold", 75), ("retry", 0)])
def test_a_message_that_is_being_sent_is_left_alone_and_named(
    desk: Desk, verb: str, exit_code: int
) -> None:
    queue_id = desk.add()
    desk.claim()
    result = desk.run("queue", verb, "--all", "--yes")
    assert result.exit_code == exit_code
    assert f"{queue_id}: left alone: a worker is sending it now" in result.stderr
    assert desk.states(queue_id) == {D.ACTIVE}


def test_unknown_ids_are_named_and_the_others_are_done(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "delete", "NOSUCHMESSAGE", queue_id, "--yes")
    assert result.exit_code == 65
    assert "NOSUCHMESSAGE: no such message" in result.stderr
    assert desk.states(queue_id) == {D.DELETED}


def test_an_id_in_the_wrong_state_is_named_with_its_state(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "release", queue_id, "--yes")
    assert result.exit_code == 65
    assert "it is incoming; release is for mail that is held" in result.stderr


def test_json_tells_the_result_of_each_message(desk: Desk) -> None:
    queue_id = desk.add()
    desk.claim()
    other = desk.add()
    result = desk.run("queue", "delete", "--all", "--yes", "--json")
    assert result.stdout.splitlines() == [
        f'{{"queue_id":"{other}","result":"deleted","reason":null}}',
        f'{{"queue_id":"{queue_id}","result":"left alone","reason":"a worker is sending it now"}}',
    ]
    assert desk.run("queue", "delete", "--all", "--json").exit_code == 64


def test_every_change_is_in_the_audit_trail(desk: Desk) -> None:
    queue_id = desk.add()
    desk.run("queue", "delete", "--sender", "a@shop.test", "--yes")
    (entry,) = desk.store.audit.entries(limit=10)
    assert (entry.action, entry.target, entry.affected) == ("queue.delete", queue_id, 1)
    assert entry.detail == "sender='a@shop.test'"
    assert entry.actor


def test_the_sandbox_lists_the_newest_first_and_filters(desk: Desk) -> None:
    desk.add()
    old = desk.add_captured("ann@x.test", age_s=60)
    new = desk.add_captured("bob@x.test")
    assert [one["queue_id"] for one in desk.lines("sandbox", "list", "--json")] == [new, old]
    found = desk.lines("sandbox", "list", "--json", "--recipient", "ANN@")
    assert [one["queue_id"] for one in found] == [old]
    assert [one["queue_id"] for one in desk.lines("sandbox", "show", "latest", "--json")] == [new]
    assert "captured" in desk.run("sandbox", "list").stdout


def test_latest_is_the_newest_in_every_command(desk: Desk) -> None:
    old, new = desk.add_captured("ann@x.test", age_s=60), desk.add_captured("bob@x.test")
    planned = desk.run("sandbox", "release", "latest", "--dry-run")
    assert "bob@x.test" in planned.output and "no such message" not in planned.output
    deleted = desk.run("sandbox", "delete", "latest", "--yes")
    assert deleted.exit_code == 0, deleted.output
    assert [one["queue_id"] for one in desk.lines("sandbox", "list", "--json")] == [old]
    assert new not in desk.run("sandbox", "show", "latest").stdout


def test_an_empty_sandbox(desk: Desk) -> None:
    assert desk.run("sandbox", "list").stdout == "the sandbox is empty\n"
    for command in ("show", "delete", "release"):
        result = desk.run("sandbox", command, "latest", *(() if command == "show" else ("--yes",)))
        assert result.exit_code == 65
        assert "latest: no such message" in result.stderr


def test_sandbox_delete_never_takes_other_mail(desk: Desk) -> None:
    finished = desk.add(NewRecipient(address="b@spam.test", state=RecipientState.BLOCKED))
    queued, captured = desk.add(), desk.add_captured()
    result = desk.run("sandbox", "delete", finished, queued, captured, "--yes")
    assert result.exit_code == 65
    assert f"{finished}: left alone: it is not captured" in result.stderr
    assert desk.lines("sandbox", "list", "--json") == []
    assert desk.states(finished) == {D.FINISHED}
    assert desk.states(queued) == {D.INCOMING}


def test_sandbox_delete_all_spares_what_still_waits_to_be_sent(desk: Desk) -> None:
    parts = (
        NewDelivery(
            route="default",
            stream="transactional",
            recipients=(
                NewRecipient(address="qa@x.test"),
                NewRecipient(address="b@y.test", state=RecipientState.CAPTURED),
            ),
        ),
    )
    mixed, captured = desk.add(deliveries=parts), desk.add_captured()
    assert desk.run("sandbox", "delete", "--yes").exit_code == 64
    assert desk.run("sandbox", "delete", "--all", "--yes").stdout.endswith("2 messages deleted\n")
    assert desk.lines("sandbox", "list", "--json") == []
    assert desk.states(mixed) == {D.INCOMING}
    assert desk.run("sandbox", "show", captured).exit_code == 65


def test_retry_says_when_nobody_would_send_it(desk: Desk) -> None:
    lost, fine = desk.add(route="before"), desk.add()
    for route in ("before", "default"):
        desk.attempt(D.DEFERRED, reason="451 later", route=route)
    known = desk.run("queue", "retry", lost, "--yes")
    assert known.stdout.splitlines()[-1] == "1 message due now", "others may know its route"
    for one in desk.store.instances.registered():
        desk.store.instances.bury(one.incarnation)
    for words in (("queue", "retry", "--all", "--yes"), ("queue", "flush")):
        result = desk.run(*words)
        assert result.exit_code == 65
        assert result.stdout.splitlines()[-1] == "1 message due now"
        assert (
            f"{lost}: left alone: no worker sends mail of route before, which is not in the "
            "configuration; add the route to the configuration again and reload, or relaygw "
            "queue move --route before --to PROVIDER"
        ) in result.stderr
    assert desk.run("queue", "move", lost, "--to", "main", "--yes").exit_code == 0
    assert desk.run("queue", "retry", lost, fine, "--yes").exit_code == 0


def test_check_names_routes_that_mail_waits_on_and_that_are_gone(desk: Desk) -> None:
    assert "mail waits" not in desk.run("check").stderr
    desk.add(route="before")
    desk.add()
    result = desk.run("check")
    assert result.exit_code == 0
    assert "mail waits on route before, which is not in the configuration" in result.stderr
    assert "route default" not in result.stderr
