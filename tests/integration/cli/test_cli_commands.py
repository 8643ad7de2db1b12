"""undelete, expire, move, flush, shape, audit, and the queue in Postfix's forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.drop import COMPLETE_SUFFIX, ID_BYTES
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.access import note_logins
from relaygw.operations.audit import note_settings
from relaygw.settings.load import load_settings
from tests.integration.cli.conftest import Desk

D, R = DeliveryState, RecipientState


@pytest.fixture
def two(desk: Desk) -> Desk:
    """A desk with a second provider, which sends for one domain only."""
    text = desk.config.read_text().replace(
        "routes:\n",
        "  other: {host: smtp.other.test, port: 25, tls: none}\n"
        '  picky: {host: smtp.picky.test, port: 25, tls: none, senders: ["@promo.test"]}\n'
        "routes:\n",
    )
    desk.config.write_text(text)
    return desk


# --- the trash ----------------------------------------------------------------------------


def test_undelete_brings_mail_back_as_it_was(desk: Desk) -> None:
    held, due = desk.add(subject="sale one"), desk.add(subject="sale two")
    desk.run("queue", "hold", held, "--yes", "--note", "wrong price")
    desk.run("queue", "delete", "--subject", "sale", "--yes")
    assert desk.states(held) == desk.states(due) == {D.DELETED}
    tried = desk.run("queue", "undelete", "--subject", "sale", "--dry-run")
    assert tried.stdout.splitlines()[-1] == "2 messages would be back in the queue"
    assert desk.states(due) == {D.DELETED}
    result = desk.run("queue", "undelete", "--subject", "sale", "--yes")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (
        0,
        "2 messages back in the queue",
    )
    (part,) = desk.entry(held).deliveries
    assert (part.state, part.reason) == (D.HELD, "operator: wrong price")
    (part,) = desk.entry(due).deliveries
    assert part.state is D.DEFERRED
    assert part.due_at_ms <= clock_ms()
    assert desk.entry(due).recipients[0].state is R.PENDING


def test_what_is_not_in_the_trash_is_left_alone(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "undelete", queue_id, "--yes")
    assert result.exit_code == 65
    assert "it is incoming; undelete is for mail that is deleted" in result.stderr


# --- the end ------------------------------------------------------------------------------


def test_expired_mail_says_who_ended_it_and_why(desk: Desk) -> None:
    queue_id = desk.add()
    desk.attempt(D.DEFERRED, reason="451 later")
    result = desk.run("queue", "expire", "--all", "--yes", "--note", "shop closed")
    assert result.stdout.splitlines()[-1] == "1 message expired"
    (recipient,) = desk.entry(queue_id).recipients
    assert recipient.state is R.EXPIRED
    assert recipient.reply is not None
    assert recipient.reply.startswith("expired by ")
    assert recipient.reply.endswith(": shop closed; before: 451 later")
    assert desk.store.audit.entries(limit=1)[0].action == "queue.expire"


def test_mail_that_is_being_sent_does_not_expire(desk: Desk) -> None:
    queue_id = desk.add()
    desk.claim()
    result = desk.run("queue", "expire", "--all", "--yes")
    assert result.exit_code == 75
    assert f"{queue_id}: left alone: a worker is sending it now" in result.stderr
    assert desk.states(queue_id) == {D.ACTIVE}


# --- moves --------------------------------------------------------------------------------


def test_a_move_needs_a_provider_that_there_is(two: Desk) -> None:
    queue_id = two.add()
    for words in (("--to", "nobody"), ()):
        result = two.run("queue", "move", queue_id, "--yes", *words)
        assert result.exit_code == 64
    assert "name one of: main, other, picky" in two.run(
        "queue", "move", queue_id, "--to", "nobody"
    ).stderr.replace("\n", " ")


def test_moved_mail_is_due_by_the_other_provider(two: Desk) -> None:
    queue_id = two.add()
    two.attempt(D.DEFERRED, reason="451 later")
    question = two.run("queue", "move", queue_id, "--to", "other", stdin="n\n")
    assert "move 1 message to other?" in question.stderr
    result = two.run("queue", "move", queue_id, "--to", "other", "--yes")
    assert result.stdout.splitlines()[-1] == "1 message moved to other"
    (part,) = two.entry(queue_id).deliveries
    assert part.route == "provider:other"
    assert part.due_at_ms <= clock_ms()
    entry = two.store.audit.entries(limit=1)[0]
    assert (entry.action, entry.target, entry.detail) == ("queue.move", queue_id, "to='other'")
    two.claim("provider:other")
    assert [one.queue_id for one in two.claimed] == [queue_id]


def test_who_a_provider_may_not_send_as_is_not_moved_to_it(two: Desk) -> None:
    shop, promo = two.add(), two.add(sender="news@promo.test")
    result = two.run("queue", "move", "--all", "--to", "picky", "--yes", "--force")
    assert result.exit_code == 65
    assert f"{shop}: left alone: provider picky may not send as a@shop.test" in result.stderr
    assert two.entry(promo).deliveries[0].route == "provider:picky"
    assert two.entry(shop).deliveries[0].route == "default"


def doubt(desk: Desk) -> None:
    """Let a worker lose the answer to everything that is due."""
    incarnation = desk.claim()
    updates = [
        DeliveryUpdate(
            queue_id=one.queue_id,
            delivery_no=one.delivery_no,
            state=D.DEFERRED,
            due_at_ms=clock_ms() + 300_000,
            provider="main",
            reason="lost after the final dot",
            recipients=(),
            doubted=True,
        )
        for one in desk.claimed
    ]
    desk.store.leases.record_batch(updates, incarnation=incarnation, now_ms=clock_ms())


def test_mail_in_doubt_is_moved_by_force_only_and_said_to_be_sent_twice(two: Desk) -> None:
    queue_id = two.add()
    doubt(two)
    result = two.run("queue", "move", queue_id, "--to", "other", "--yes")
    assert result.exit_code == 65
    assert "main may have sent it already; with --force it may be sent twice" in result.stderr
    assert two.entry(queue_id).deliveries[0].route == "default"
    assert two.run("queue", "move", queue_id, "--to", "main", "--yes").exit_code == 0
    forced = two.run("queue", "move", queue_id, "--to", "other", "--yes", "--force")
    assert (forced.exit_code, "may be sent twice" in forced.stderr) == (0, True)
    assert two.entry(queue_id).deliveries[0].route == "provider:other"


def test_what_the_provider_refuses_is_moved_to_it_by_force_only(two: Desk) -> None:
    queue_id = two.add()
    two.attempt(D.HELD, reason="sender domain shop.test is refused by main, other")
    result = two.run("queue", "move", queue_id, "--to", "other", "--yes")
    assert "other refuses sender domain shop.test" in result.stderr
    assert two.run("queue", "move", queue_id, "--to", "other", "--yes", "--force").exit_code == 0
    assert two.states(queue_id) == {D.DEFERRED}  # held on account of its providers: now due


def test_what_an_operator_holds_stays_held_when_it_is_moved(two: Desk) -> None:
    queue_id = two.add()
    two.run("queue", "hold", queue_id, "--yes")
    assert two.run("queue", "move", queue_id, "--to", "other", "--yes").exit_code == 0
    (part,) = two.entry(queue_id).deliveries
    assert (part.state, part.route) == (D.HELD, "provider:other")


# --- flush and selectors ------------------------------------------------------------------


@pytest.mark.parametrize("command", [["flush"], ["retry", "--all", "--yes"]])
def test_mail_in_doubt_is_tried_at_its_own_times_or_by_force(
    desk: Desk, command: list[str]
) -> None:
    queue_id = desk.add()
    desk.attempt(D.DEFERRED, reason="may be sent more than once", doubted=True)
    before = desk.entry(queue_id)
    result = desk.run("queue", *command)
    assert (result.exit_code, result.stdout) == (0, "0 messages due now\n")
    assert f"{queue_id}: left alone: main may have sent it already; with --force" in result.stderr
    assert desk.entry(queue_id) == before
    result = desk.run("queue", "retry", queue_id, "--force", "--yes")
    assert "it may be sent twice" in result.stderr
    assert desk.entry(queue_id).deliveries[0].due_at_ms <= clock_ms()


def test_flush_reads_ids_from_stdin(desk: Desk) -> None:
    chosen, _ = desk.add(), desk.add()
    desk.attempt(DeliveryState.DEFERRED, reason="450 later")
    result = desk.run("queue", "flush", "-", "--json", stdin=f"{chosen}\n")
    assert [json.loads(line)["queue_id"] for line in result.stdout.splitlines()] == [chosen]


def test_mail_that_was_never_tried_is_retried(desk: Desk) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "retry", queue_id, "--yes")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 message due now")


def test_flush_makes_all_deferred_mail_due_and_asks_nothing(desk: Desk) -> None:
    deferred = desk.add()
    desk.attempt(D.DEFERRED, reason="451 later")
    held = desk.add()
    desk.run("queue", "hold", held, "--yes")
    assert "would be" in desk.run("queue", "flush", "--dry-run").stdout
    result = desk.run("queue", "flush")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 message due now")
    assert desk.entry(deferred).deliveries[0].due_at_ms <= clock_ms()
    assert desk.states(held) == {D.HELD}
    assert desk.lines("queue", "flush", "--json") == [
        {"queue_id": deferred, "result": "due now", "reason": None}
    ]


def test_the_last_reply_selects(desk: Desk) -> None:
    slow = desk.add()
    desk.attempt(D.DEFERRED, reason="451 4.7.1 slow down")
    desk.add()
    found = desk.lines("queue", "list", "--reply", "Slow Down", "--json")
    assert [one["queue_id"] for one in found] == [slow]


VERBS = {
    "retry": (), "hold": (), "release": (), "delete": (), "undelete": (), "expire": (),
    "move": ("--to", "other"),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_reads_ids_from_stdin_and_needs_a_yes(two: Desk, verb: str) -> None:
    two.add()
    words = ("queue", verb, "-", *VERBS[verb])
    result = two.run(*words, "--yes", stdin="NOSUCHMESSAGE  some more\n")
    assert result.exit_code == 65
    assert "NOSUCHMESSAGE: no such message" in result.stderr
    assert two.run(*words, stdin="NOSUCHMESSAGE\n").exit_code == 64
    assert two.run("queue", verb, *VERBS[verb], "--yes").exit_code == 64  # names no message


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_what_a_list_by_provider_shows_and_no_more(two: Desk, verb: str) -> None:
    tried = two.add(subject="sale")
    two.attempt(D.DEFERRED, reason="451 later")  # at main
    untried = two.add(subject="sale")
    if verb in ("release", "undelete"):
        assert not two.run(
            "queue", "hold" if verb == "release" else "delete", "--all", "--yes"
        ).exit_code
    words = ("queue", verb, "--subject", "sale", *VERBS[verb], "--dry-run", "--json")
    assert two.lines(*words, "--provider", "elsewhere") == []
    (one,) = two.lines(*words, "--provider", "main")
    assert one["queue_id"] == tried
    assert {one["queue_id"] for one in two.lines(*words)} == {tried, untried}
    assert [one["queue_id"] for one in two.lines("queue", verb, *words[4:], "--provider", "main")]


def test_a_move_needs_to_know_where_to(two: Desk) -> None:
    queue_id = two.add()
    for words in (("--all",), ("--provider", "main")):
        refused = two.run("queue", "move", *words, "--yes")
        assert (refused.exit_code, "--to" in refused.stderr) == (64, True)
    assert two.states(queue_id) == {D.INCOMING}


@pytest.mark.parametrize(
    ("verb", "result"),
    [("expire", "expired"), ("delete", "deleted"), ("move", "moved to other")],
)
def test_json_of_the_verbs(two: Desk, verb: str, result: str) -> None:
    queue_id = two.add()
    words = ("queue", verb, queue_id, *VERBS[verb], "--json")
    assert two.run(*words).exit_code == 64
    assert two.lines(*words, "--dry-run") == [
        {"queue_id": queue_id, "result": f"would be {result}", "reason": None}
    ]
    assert two.states(queue_id) == {D.INCOMING}
    assert two.lines(*words, "--yes") == [{"queue_id": queue_id, "result": result, "reason": None}]


# --- Postfix's forms ----------------------------------------------------------------------


def test_what_sendmail_left_is_no_empty_queue(desk: Desk) -> None:
    maildrop = desk.config.parent / "maildrop"
    maildrop.mkdir()
    (maildrop / f"{'0' * 2 * ID_BYTES}{COMPLETE_SUFFIX}").write_bytes(b"x")
    for words in ([], ["--mailq"]):
        listed = desk.run("queue", "list", *words)
        assert f"not in the queue yet: 1 message of sendmail in {maildrop}" in listed.stderr


def test_the_list_as_mailq(desk: Desk) -> None:
    assert desk.run("queue", "list", "--mailq").stdout == "Mail queue is empty\n"
    old = desk.add("b@x.test", age_s=60)
    desk.attempt(D.DEFERRED, reason="451 later")
    new = desk.add("c@x.test", subject="sale")
    desk.run("queue", "hold", new, "--yes")
    shown = desk.run("queue", "list", "--mailq").stdout
    heading, first, reason, recipient, empty, second, *_, closing = shown.splitlines()
    assert heading == "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------"
    assert first.split()[0] == old
    assert (reason.strip(), recipient.strip(), empty) == ("(451 later)", "b@x.test", "")
    assert second.split()[0] == f"{new}!"
    assert closing == "-- 0 Kbytes in 2 Requests."
    some = desk.run("queue", "list", "--mailq", "--subject", "sale").stdout
    assert some.splitlines()[1:] == [*shown.splitlines()[5:-1], "-- 0 Kbytes in 1 Request."]


def test_the_list_as_postqueue_prints_it(desk: Desk) -> None:
    old = desk.add("b@x.test", age_s=60)
    desk.attempt(D.DEFERRED, reason="451 later")
    bounce = desk.add("c@x.test", sender="")
    first, second = desk.lines("queue", "list", "--postfix-json")
    assert first == {
        "queue_name": "deferred",
        "queue_id": old,
        "arrival_time": desk.entry(old).accepted_at_ms // 1000,
        "message_size": 21,
        "forced_expire": False,
        "sender": "a@shop.test",
        "recipients": [{"address": "b@x.test", "delay_reason": "451 later"}],
    }
    assert (second["queue_id"], second["queue_name"]) == (bounce, "incoming")
    assert (second["sender"], second["recipients"]) == ("MAILER-DAEMON", [{"address": "c@x.test"}])
    assert desk.lines("queue", "list", "--postfix-json", "--sender", "a@") == [first]
    desk.run("queue", "hold", old, "--yes")
    assert desk.lines("queue", "list", "--postfix-json")[0]["queue_name"] == "hold"


def test_the_forms_exclude_each_other_and_nothing_else(desk: Desk) -> None:
    desk.add()
    result = desk.run("queue", "list", "--mailq", "--json")
    assert (result.exit_code, result.stdout) == (64, "")
    assert len(desk.run("queue", "list", "--json", "--limit", "1").stdout.splitlines()) == 1


# --- shape --------------------------------------------------------------------------------


def test_shape_counts_recipients_by_domain_and_age(desk: Desk) -> None:
    desk.add("b@x.test", "c@x.test", "d@y.test", age_s=12 * 60)
    desk.add("e@x.test")
    desk.add("f@z.test", age_s=3 * 86400)
    assert desk.run("queue", "shape").stdout.splitlines() == [
        "             T 5 10 20 40 80 160 320 640 1280 1280+",
        "       TOTAL 5 1  0  3  0  0   0   0   0    0     1",
        "x.test       3 1  0  2  0  0   0   0   0    0     0",
        "y.test       1 0  0  1  0  0   0   0   0    0     0",
        "z.test       1 0  0  0  0  0   0   0   0    0     1",
    ]
    (row,) = desk.lines("queue", "shape", "--json", "--recipient", "e@", "--by", "sender")
    assert (row["sender"], row["total"], row["minutes"]["5"]) == ("a@shop.test", 1, 1)
    assert len(desk.lines("queue", "shape", "--json", "--limit", "2")) == 2


def test_shape_of_nothing_and_of_ids(desk: Desk) -> None:
    assert desk.run("queue", "shape").stdout.splitlines()[-1].split() == ["TOTAL", *["0"] * 11]
    queue_id = desk.add()
    desk.add()
    (row,) = desk.lines("queue", "shape", queue_id, "--json", "--by", "provider")
    assert (row["provider"], row["total"]) == ("(not tried)", 1)


def test_shape_of_a_recipient_and_of_the_null_sender(desk: Desk) -> None:
    desk.add("b@x.test", "c@y.test")
    desk.add("d@z.test", sender="")
    for words, domains in (
        (("--recipient", "c@"), {"x.test", "y.test"}),
        (("--sender", "<>"), {"z.test"}),
    ):
        rows = desk.lines("queue", "shape", "--json", *words)
        assert {row["recipient"] for row in rows} == domains


def test_shape_fits_80_columns_and_is_not_steered(desk: Desk) -> None:
    evil = "\x1b[2J" + "long" * 30
    desk.add()
    desk.attempt(D.DEFERRED, reason=f"451 {evil}")
    shown = desk.run("queue", "shape", "--by", "reason").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def test_what_waits_untried_tells_for_what_as_its_story_does(desk: Desk) -> None:
    queue_id = desk.add(sender="a@Shop.test")
    desk.attempt(D.HELD, reason="operator: x", route="other")  # a worker is there
    (row,) = desk.lines("queue", "shape", "--by", "reason", "--json")
    assert row["reason"] == "(none)"
    desk.run("provider", "hold", "main", "--reason", "why")
    what = "an operator holds provider main (why)"
    assert f"{what[1:]}; it is sent" in " ".join(
        desk.run("queue", "explain", queue_id).stdout.split()
    )
    (row,) = desk.lines("queue", "shape", "--by", "reason", "--json")
    assert (row["reason"], row["total"]) == (what, 1)
    for words in ((), ("--recipient", "b@")):  # the plain list is read from the queue otherwise
        (listed,) = desk.lines("queue", "list", "--postfix-json", *words)
        assert listed["recipients"] == [{"address": "b@cust.test", "delay_reason": what}]
        assert f"({what})" in desk.run("queue", "list", "--mailq", *words).stdout
    desk.run("queue", "hold", queue_id, "--note", "me", "--yes")
    (row,) = desk.lines("queue", "shape", "--by", "reason", "--json")
    assert row["reason"] == "operator: me"


def test_mail_in_doubt_with_a_provider_that_is_gone_does_not_end_a_list(desk: Desk) -> None:
    queue_id = desk.add()
    desk.attempt(D.DEFERRED, reason="lost", doubted=True)
    desk.config.write_text(desk.config.read_text().replace("main", "spare"))
    for words in (("explain", queue_id), ("shape", "--by", "reason"), ("list", "--mailq")):
        assert desk.run("queue", *words).exit_code == 0, words


# --- the audit trail ----------------------------------------------------------------------


def test_audit_tells_who_did_what(desk: Desk) -> None:
    assert desk.run("audit").stdout == "-- 0 entries\n"
    queue_id = desk.add(subject="sale")
    desk.run("queue", "hold", "--subject", "sale", "--yes")
    desk.run("queue", "delete", queue_id, "--yes")
    desk.run("provider", "hold", "main")
    told = desk.run("audit", columns=200).stdout
    heading, provider, delete, hold, closing = told.splitlines()
    assert heading.startswith("TIME (UTC)")
    assert provider[20:].endswith("held provider main")
    assert delete.endswith(f"moved 1 message to the trash: {queue_id}")
    assert "held 1 message with “sale” in the subject" in hold
    assert closing == "-- 3 entries"
    (newest,) = desk.lines("audit", "--json", "--action", "queue", "--limit", "1")
    assert newest["at"].endswith("Z")
    del newest["at"]
    who = newest.pop("actor")
    assert newest == {
        "action": "queue.delete", "target": queue_id, "affected": 1, "detail": "",
        "text": f"{who} moved 1 message to the trash: {queue_id}",
    }  # fmt: skip
    assert "more match" in desk.run("audit", "--limit", "1").stdout
    assert desk.lines("audit", "--json", "--actor", "nobody at all") == []
    assert len(desk.lines("audit", "--json", "--who", who, "--since", "1h")) == 3
    assert len(desk.lines("audit", "--json", "--since", "today", "--until", "today")) == 3
    assert desk.lines("audit", "--json", "--until", "1h") == []
    assert desk.run("audit", "--until", "soon").exit_code == 64
    assert desk.run("audit", "--since", "soon").exit_code == 64
    assert desk.run("audit", "--actor", "").exit_code == 64


def test_audit_fits_80_columns_and_is_not_steered(desk: Desk) -> None:
    desk.add()
    desk.run("queue", "hold", "--subject", "x", "--yes", "--note", "\x1b[2J" + "long " * 40)
    desk.run("queue", "release", "--reason", "\x1b[2Jlong " * 9, "--yes")
    shown = desk.run("audit").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def test_changes_of_the_configuration_are_in_the_trail(desk: Desk) -> None:
    def note(occasion: str) -> bool:
        loaded = load_settings(config=desk.config, environ={})
        return note_settings(desk.store, loaded.settings, occasion=occasion, now_ms=clock_ms())

    assert note("start")
    assert not note("reload")  # nothing is new
    desk.config.write_text(desk.config.read_text().replace("smtp.provider", "smtp.elsewhere"))
    assert note("reload")
    change, first = desk.lines("audit", "--json", "--action", "settings")
    assert first["detail"].endswith("seen first")
    assert change["actor"] == "reload on gw.shop.test"
    assert change["detail"].startswith("providers.main.host (settings ")
    assert "elsewhere" not in json.dumps(change)
    # back again, which an earlier entry was like
    desk.config.write_text(desk.config.read_text().replace("smtp.elsewhere", "smtp.provider"))
    assert note("reload")
    assert len(desk.lines("audit", "--json")) == 3


def test_no_secret_is_in_the_trail(desk: Desk, tmp_path: Path) -> None:
    secret = "hush-" + tmp_path.name
    text = desk.config.read_text().replace(
        "port: 2525, tls: none", f"port: 2525, username: u, password: 'plain:{secret}'"
    )
    desk.config.write_text(text)
    desk.config.chmod(0o600)
    settings = load_settings(config=desk.config, environ={}).settings
    note_settings(desk.store, settings, occasion="start", now_ms=clock_ms())
    assert secret not in desk.store.audit.entries(limit=1)[0].detail


HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRaQ"


def test_who_may_log_in_is_listed_with_age_and_last_use(desk: Desk) -> None:
    assert desk.run("users", "list").stdout == "-- 0 logins\n"
    text = f"{desk.config.read_text()}\nusers: [{{name: shop1, password_hash: '{HASH}'}}]\n"
    web = f"web: {{users: [{{name: anna, password_hash: '{HASH}', role: admin}}]}}\n"
    desk.config.write_text(text + web)
    settings = load_settings(config=desk.config, environ={}).settings
    now_ms = clock_ms()
    note_logins(desk.store, settings, now_ms=now_ms - 3 * 86_400_000)
    desk.store.sessions.note_used({("smtp", "shop1"): now_ms})
    heading, anna, shop, closing = desk.run("users", "list").stdout.splitlines()
    assert heading.split() == ["NAME", "KIND", "ROLE", "AGE", "LAST", "USED", "(UTC)"]
    assert anna.split() == ["anna", "web", "admin", "3d", "never"]
    assert shop.split()[:4] == ["shop1", "smtp", "-", "3d"]
    assert closing == "-- 2 logins"
    assert max(map(len, (heading, anna, shop))) <= 80
    _, shop1 = desk.lines("users", "list", "--json")
    assert (shop1["kind"], shop1["name"], shop1["role"]) == ("smtp", "shop1", "")
    assert shop1["used_at"].endswith("Z")
