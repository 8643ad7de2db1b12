"""The guard on the command line: what is held and allowed, and how that changes."""

from __future__ import annotations

import pytest

from relaygw.alerting.guard import GuardWatch
from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.mail.envelope import Source
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.settings.model import Settings
from tests.integration.cli.conftest import Desk

SCRIPT = Source(uid=33, script="33:up.php")
GUARDED = Settings.model_validate({"mode": "sandbox", "guard": {"action": "hold"}})


def class_of(template: str) -> MailClass:
    source = ("local", "", "", 33, "33:up.php")
    return MailClass.of(
        source, sender_domain="shop.test", template=template, stream="transactional"
    )


@pytest.fixture
def spam(desk: Desk) -> MailClass:
    """A script that sent orders for days, and now something else; some of both waits."""
    for template, ago_ms, number in (("Order #", 3 * DAY_MS, 5), ("Buy #", 0, 40)):
        at_ms = clock_ms() - ago_ms
        desk.store.sources.count_mail(
            [ClassCount(class_of(template), at_ms, at_ms, number, number)]
        )
    for subject in ("Buy 1", "Buy 2", "Order 3"):
        desk.add(source=SCRIPT, subject=subject)
    return class_of("Buy #")


def held(desk: Desk) -> list[str]:
    """Return the subjects of what is held."""
    return sorted(
        one["subject"] for one in desk.lines("queue", "list", "--state", "held", "--json")
    )


def test_an_operator_holds_what_is_new_or_all_and_releases_it(desk: Desk, spam: MailClass) -> None:
    source = spam.source_id
    assert "0 messages held" in desk.run("guard", "hold", source, "--dry-run").stdout
    assert held(desk) == []
    done = desk.run("guard", "hold", source, "--reason", "broken into").stdout
    assert "templates of the last day; 2 messages that waited held, too" in done
    assert held(desk) == ["Buy 1", "Buy 2"]
    (row,) = desk.lines("guard", "list", "--json")
    assert (row["id"], row["action"], row["held"], row["reason"]) == (
        source,
        "hold",
        2,
        "broken into",
    )
    assert "broken into; local uid 33 33:up.php" in desk.run("guard", "list", columns=120).stdout
    assert "1 message that waited" in desk.run("guard", "hold", source, "--all").stdout
    assert held(desk) == ["Buy 1", "Buy 2", "Order 3"]
    assert desk.run("guard", "release", source).stdout == f"{source}: 3 messages released\n"
    assert (held(desk), desk.lines("guard", "list", "--json")) == ([], [])
    actions = [one["action"] for one in desk.lines("audit", "--json")]
    assert sorted({*actions}) == ["guard.hold", "guard.release", "queue.hold", "queue.release"]


def test_what_the_guard_held_is_allowed_once_it_is_released(desk: Desk, spam: MailClass) -> None:
    watch = GuardWatch(desk.store, GUARDED)
    (finding,) = watch.look([], now_ms=clock_ms())
    assert held(desk) == ["Buy 1", "Buy 2"]
    target = spam.source_id
    assert f"relaygw guard release {target} sends it" in finding.remedy
    assert "relaygw queue delete --reason" in finding.remedy
    done = desk.run("guard", "release", target).stdout
    assert done == f"{target}: 2 messages released; it may send 160 an hour from now on\n"
    assert (watch.look([], now_ms=clock_ms()), held(desk)) == ([], [])
    # more than that is told, and never held
    at_ms = clock_ms()
    desk.store.sources.count_mail([ClassCount(spam, at_ms, at_ms, 200, 200)])
    assert len(GuardWatch(desk.store, GUARDED).look([], now_ms=at_ms)) == 1  # a slow one rests
    assert held(desk) == []
    assert "judged as others" in desk.run("guard", "allow", "--remove", target).stdout
    assert "was not allowed" in desk.run("guard", "allow", "--remove", target).stdout


def test_a_class_is_held_and_allowed_by_its_id(desk: Desk, spam: MailClass) -> None:
    desk.run("guard", "hold", spam.class_id)
    assert held(desk) == ["Buy 1", "Buy 2"]
    done = desk.run("guard", "allow", spam.class_id, "--per-hour", "90").stdout
    assert "may send 90 messages an hour: local uid 33 33:up.php “Buy #”; 2 messages" in done
    assert held(desk) == []


@pytest.mark.parametrize("verb", ["allow", "release"])
def test_a_class_of_a_source_that_is_held_is_let_go(desk: Desk, spam: MailClass, verb: str) -> None:
    desk.run("guard", "hold", spam.source_id, "--all")
    done = desk.run("guard", verb, spam.class_id).stdout
    assert "2 messages released" in done
    assert held(desk) == ["Order 3"]
    states = {one["id"]: one["action"] for one in desk.lines("guard", "list", "--json")}
    assert states == {spam.source_id: "hold", spam.class_id: "allow"}
    desk.add(source=SCRIPT, subject="Buy 4")
    GuardWatch(desk.store, GUARDED).look([], now_ms=clock_ms())
    assert held(desk) == ["Order 3"]


@pytest.mark.parametrize("verb", ["allow", "release"])
def test_a_source_is_let_go_with_its_classes(desk: Desk, spam: MailClass, verb: str) -> None:
    desk.run("guard", "hold", spam.class_id, class_of("Order #").class_id)
    done = desk.run("guard", verb, spam.source_id).stdout
    assert "3 messages released" in done
    assert held(desk) == []
    held_ids = [
        one["id"] for one in desk.lines("guard", "list", "--json") if one["action"] == "hold"
    ]
    assert held_ids == []


def test_what_cannot_be_asked(desk: Desk) -> None:
    for verb in ("hold", "allow", "release"):
        done = desk.run("guard", verb, "0123456789abcdef")
        assert (done.exit_code, "relaygw sources" in done.stderr) == (65, True)
        assert desk.run("guard", verb).exit_code == 64
    assert desk.run("guard", "list").stdout == "-- 0 entries, 0 alerts\n"
    off = "guard: {action: off}\nsilence: {enabled: false}\nstorms: {action: off}\n"
    desk.config.write_text(desk.config.read_text() + off)
    assert "set guard.action" in desk.run("guard", "hold", "x").stderr
