from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from relaygw.cli import main
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.mail.state import DeliveryState
from relaygw.observe.history import Series
from relaygw.policy.retry import retried_in_doubt, unsent
from relaygw.settings.presets import presets
from relaygw.store.holds import PAUSED, Hold
from relaygw.store.limits import SenderNote
from tests.builders import accepted, instance
from tests.integration.cli.conftest import Desk
from tests.tables import each_of

PROVIDERS = """\
mode: production
hostname: gw.shop.test
queue: {{url: "{url}"}}
providers:
  main: {{preset: ses, region: eu-central-1, username: u, password: "env:K", rate: 14/s,
         daily_quota: 50000}}
  spare: {{host: smtp.spare.test}}
routes:
  - {{name: promo, sender: ["@promo.test"], providers: [main]}}
  - {{name: default, providers: [main, spare]}}
"""


@pytest.fixture
def shop(desk: Desk) -> Desk:
    desk.config.write_text(PROVIDERS.format(url=desk.url))
    return desk


def put_hold(desk: Desk, scope: str, key: str, *, probe_at_ms: int | None = None) -> None:
    desk.store.holds.put_hold(
        Hold(
            scope=scope,
            key=key,
            reason="535 5.7.8 Authentication credentials invalid",
            remedy="check its user name and password",
            since_ms=clock_ms() - 60_000,
            probe_at_ms=probe_at_ms,
        )
    )


def test_the_list_has_a_line_for_each_provider(shop: Desk) -> None:
    head, main_line, spare, *_ = shop.run("provider", "list").stdout.splitlines()
    assert head.split() == ["NAME", "WHERE", "CONN", "RATE", "QUOTA", "STATE"]
    assert main_line.split() == ["main", "email-smtp.eu-central-1.a…", "5", "14/s", "50000", "ok"]
    assert spare.split() == ["spare", "smtp.spare.test:587", "5", "-", "-", "ok"]


def test_the_list_tells_why_one_is_held_and_what_to_do(shop: Desk) -> None:
    put_hold(shop, "credential", "main", probe_at_ms=clock_ms() + 240_000)
    put_hold(shop, "sender domain", "spare promo.test")
    put_hold(shop, "credential", "mainframe")
    result = shop.run("provider", "list")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "held: 535 5.7…" in lines[1]
    assert lines[2].endswith("partly held")
    text = " ".join(result.stdout.split())
    assert "held credential main since" in text
    assert "535 5.7.8 Authentication credentials invalid; next probe at" in text
    assert "remedy check its user name and password" in text
    assert "held sender domain spare promo.test since" in text
    assert "mainframe" not in text


def test_the_list_as_json(shop: Desk) -> None:
    put_hold(shop, "credential", "main")
    first, second = shop.lines("provider", "list", "--json")
    assert {key: first[key] for key in ("name", "state", "preset", "host", "port", "tls")} == {
        **{"name": "main", "state": "held", "preset": "ses", "port": 587, "tls": "required"},
        "host": "email-smtp.eu-central-1.amazonaws.com",
    }
    assert (first["rate"], first["rate_counts"], first["daily_quota"]) == (
        *("14/s", "recipients", 50000),
    )
    (hold,) = first["holds"]
    assert (hold["scope"], hold["probe_at"]) == ("credential", None)
    assert (second["state"], second["holds"], second["preset"]) == ("ok", [], None)


def test_the_list_tells_how_much_of_a_quota_is_used(shop: Desk) -> None:
    shop.store.limits.use_quota("main", wanted=12_345, quota=50_000)
    *_, last = shop.run("provider", "list").stdout.splitlines()
    assert last == "quota       main: 12345 of 50000 recipients used in the last 24 hours"
    text = shop.config.read_text().replace("rate: 14/s", "account: ses, rate: 14/s")
    shop.config.write_text(text)
    shop.store.limits.use_quota("ses", wanted=7, quota=50_000)
    *_, last = shop.run("provider", "list").stdout.splitlines()
    assert last.endswith("main: 7 of 50000 recipients used by account ses in the last 24 hours")
    main_object, spare = shop.lines("provider", "list", "--json")
    assert (main_object["quota_used"], spare["quota_used"]) == (7, None)


def test_the_list_tells_what_a_provider_is_slowed_to_and_why(shop: Desk) -> None:
    shop.store.limits.lower_rate("main", per_s=10.0, guard_s=0.0)
    shop.store.limits.lower_connections("spare", own=4, incarnation="w1", guard_s=0.0)
    lines = shop.run("provider", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines[1:3]] == ["slowed", "slowed"]
    text = " ".join(" ".join(lines).split())
    assert re.search(
        r"slowed main to (8|9)\.\d+/s recipients: it asked to slow down at about 10/s", text
    )
    assert "slowed spare to 4 connections: it refused more than 4, 20" in text
    first, second = shop.lines("provider", "list", "--json")
    assert first["state"] == second["state"] == "slowed"
    assert 8 <= first["rate_now_per_s"] < 10
    assert first["learned"]["rate_per_s"] == 10.0
    assert first["learned"]["rate_at"].startswith("20")
    assert (second["connections_now"], second["rate_now_per_s"]) == (4, None)
    assert second["learned"] == {
        **{"rate_per_s": None, "rate_at": None, "connections": 4},
        "connections_at": second["learned"]["connections_at"],
    }


def test_mail_in_hand_that_gets_no_answer_shows_for_how_long_and_until_when(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.config.write_text(re.sub(r" *rate: 14/s,?", "", shop.config.read_text()))
    shop.add()
    shop.claim()
    assert shop.lines("provider", "list", "--json")[0]["state"] == "ok"  # a moment is no wait
    monkeypatch.setattr("relaygw.operations.providers._LONG_S", 0.0)
    for words in (("provider", "list"), ("status",)):
        text = " ".join(shop.run(*words).stdout.split())
        assert re.search(
            r"waiting workers wait for a connection or an answer of main, the first of them for "
            r"[\w ]+; its time limits end that within (1 hour|\d+ minutes)",
            text,
        ), text
    main, spare = shop.lines("provider", "list", "--json")
    assert (main["state"], spare["state"]) == ("busy", "ok")
    assert main["in_hand_s"] >= 0
    shop.run("provider", "hold", "main")
    assert shop.lines("provider", "list", "--json")[0]["state"] == "held"


def test_a_provider_defers_until_it_takes_a_message(shop: Desk) -> None:
    for _ in range(3):
        shop.add()
    shop.attempt(DeliveryState.DEFERRED, reason="451 4.3.0 later")
    shop.store.watch.add_history(clock_ms(), {(Series.DEFERRED.value, "main"): 3})
    main, spare = shop.lines("provider", "list", "--json")
    assert (main["state"], spare["state"]) == ("deferring", "ok")
    shop.store.watch.add_history(clock_ms(), {(Series.DELIVERED.value, "main"): 1})
    assert shop.lines("provider", "list", "--json")[0]["state"] == "ok"


@pytest.mark.parametrize(
    ("ago_s", "expected"),
    [(10, "a probe is under way since"), (90, "the last probe was due at")],
)
def test_a_probe_that_is_under_way_shows_with_its_end(
    shop: Desk, ago_s: int, expected: str
) -> None:
    queue_id, now_ms = shop.add(), clock_ms()
    shop.store.instances.register(instance("w"))
    for name in ("main", "spare"):
        hold = Hold(
            scope="unreachable",
            key=name,
            reason="no connection",
            remedy="",
            since_ms=now_ms - 100_000,
            probe_at_ms=now_ms - ago_s * 1000,
        )
        shop.store.holds.put_hold(hold)
    assert expected in " ".join(shop.run("provider", "list").stdout.split())
    is_under_way = ago_s < 60
    assert ("its probe ends" in shop.run("queue", "explain", queue_id).stdout) is is_under_way


def test_a_ceiling_above_the_rate_slows_nothing(shop: Desk) -> None:
    shop.store.limits.lower_rate("main", per_s=100.0, guard_s=0.0)
    shop.store.limits.lower_connections("spare", own=9, incarnation="w1", guard_s=0.0)
    lines = shop.run("provider", "list").stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["ok", "ok"]
    assert "slowed" not in " ".join(lines)


def note(provider: str, sender: str, **more: int | str | None) -> SenderNote:
    known = SenderNote(provider=provider, sender=sender)
    return replace(known, **more)  # type: ignore[arg-type]  # of the fields' own types


@pytest.fixture
def seen(shop: Desk) -> Desk:
    now_ms = clock_ms()
    hour_ms, day_ms = 3_600_000, 86_400_000
    refusal = (
        "554 5.7.1 Message rejected: Email address is not verified in region EU-CENTRAL-1 " * 2
    )
    shop.store.limits.note_senders(
        [
            note("main", "a@shop.test", accepted_at_ms=now_ms - hour_ms),
            note("main", "news@promo.test", refused_at_ms=now_ms - 60_000, reply=refusal),
            note("main", "", accepted_at_ms=now_ms - hour_ms),
            note("spare", "a@shop.test", refused_at_ms=now_ms - 2 * day_ms, reply="550 5.7.1 no"),
            note("spare", "a@shop.test", accepted_at_ms=now_ms - day_ms),
            note("gone", "a@shop.test", refused_at_ms=now_ms - day_ms, reply="550 5.7.1 never"),
        ]
    )
    return shop


def test_senders_refused_ones_first_with_the_refusal(seen: Desk) -> None:
    result = seen.run("provider", "senders")
    head, *rows, footer, advice = result.stdout.splitlines()
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert head.split() == ["SENDER", "PROVIDER", "STATE", "ACCEPTED", "REFUSED"]
    assert rows[0].split() == ["news@promo.test", "main", "refused", "-", "1m"]
    assert rows[1].startswith("  554 5.7.1 Message rejected: Email address is not verified in")
    assert rows[1].endswith("…") and len(rows[1]) == 80
    assert [row.split() for row in rows[2:]] == [
        ["<>", "main", "accepted", "1h", "-"],
        ["a@shop.test", "main", "accepted", "1h", "-"],
        ["a@shop.test", "spare", "accepted", "1d", "2d"],
    ]
    assert footer == "-- 4 lines, 1 refused"
    assert "relaygw classify" in advice


def test_senders_of_one_provider_and_of_one_that_is_no_more(seen: Desk) -> None:
    _, row, footer = seen.run("provider", "senders", "spare").stdout.splitlines()
    assert (row.split()[1], footer) == ("spare", "-- 1 line, 0 refused")
    assert "550 5.7.1 never" in seen.run("provider", "senders", "gone").stdout
    result = seen.run("provider", "senders", "mian")
    assert result.exit_code == 65
    assert result.stderr == "relaygw: mian: no such provider; name one of: main, spare\n"


def test_senders_as_json(seen: Desk) -> None:
    first, *rest = seen.lines("provider", "senders", "--json")
    assert (first["provider"], first["sender"], first["state"]) == (
        *("main", "news@promo.test", "refused"),
    )
    assert first["reply"].endswith("EU-CENTRAL-1 ") and first["accepted_at"] is None
    assert [one["sender"] for one in rest] == ["", "a@shop.test", "a@shop.test"]
    assert rest[-1]["reply"] == "550 5.7.1 no" and rest[-1]["state"] == "accepted"


def test_no_sender_was_seen(shop: Desk) -> None:
    assert shop.run("provider", "senders").stdout == "no sender was seen yet\n"
    assert shop.lines("provider", "senders", "--json") == []


def test_a_refusal_that_would_steer_the_terminal_is_harmless(shop: Desk) -> None:
    evil = note("main", "a\x1b[2J@x.test", refused_at_ms=clock_ms(), reply="550 \x1b]0;x\x07")
    shop.store.limits.note_senders([evil])
    assert "\x1b" not in shop.run("provider", "senders").stdout


def test_hold_and_release(shop: Desk) -> None:
    held = shop.run("provider", "hold", "main", "--reason", "key is being changed")
    assert held.exit_code == 0
    assert held.stdout.splitlines() == [
        "main: held until: relaygw provider release main",
        "workers start no new message through it after about a second; messages being sent then "
        "are completed",
        "mail waits on routes without another provider: promo",
    ]
    (hold,) = shop.store.holds.in_force()
    assert (hold.scope, hold.key, hold.probe_at_ms) == ("provider", "main", None)
    assert hold.reason == "operator: key is being changed"
    again = shop.run("provider", "hold", "main")
    assert again.stdout.startswith("main: was already held")
    released = shop.run("provider", "release", "main")
    assert released.exit_code == 0
    assert released.stdout.startswith("main: released; it was held: operator: ")
    assert shop.store.holds.in_force() == []
    trail = [(one.action, one.target, one.affected) for one in shop.store.audit.entries(limit=9)]
    assert sorted(trail) == [
        *[("provider.hold", "main", 1)] * 2,
        ("provider.release", "main", 1),
    ]


def test_a_reason_steers_no_terminal_when_its_hold_ends(shop: Desk) -> None:
    assert shop.run("provider", "hold", "main", "--reason", "x\ny\x1b[31mRED").exit_code == 0
    released = shop.run("provider", "release", "main")
    assert released.stdout.endswith("it was held: operator: x y?[31mRED\n")


def test_release_makes_due_what_the_hold_had_put_off(shop: Desk) -> None:
    refused = "535 5.7.8 Authentication credentials invalid"
    put_off = shop.add()
    shop.attempt(DeliveryState.DEFERRED, reason=refused)
    doubtful = shop.add()
    shop.attempt(DeliveryState.DEFERRED, reason=refused, doubted=True)
    greylisted = shop.add()
    shop.attempt(DeliveryState.DEFERRED, reason="451 4.7.1 greylisted")
    before = {one: shop.due_at_ms(one) for one in (put_off, doubtful, greylisted)}
    put_hold(shop, "credential", "main", probe_at_ms=clock_ms() + 240_000)
    assert shop.run("provider", "release", "main").exit_code == 0
    assert shop.due_at_ms(put_off) <= clock_ms() < before[put_off]
    assert shop.due_at_ms(doubtful) == before[doubtful]
    assert shop.due_at_ms(greylisted) == before[greylisted]


def test_release_makes_due_what_was_refused_like_all_before(shop: Desk) -> None:
    refused = shop.add()
    shop.attempt(DeliveryState.DEFERRED, reason="550 5.1.1 user unknown")
    hold = Hold(
        scope="provider",
        key="main",
        reason=HoldCause(HoldCode.REFUSED_ALIKE, "20 550 5.1.1 user unknown").sentence,
        remedy="look",
        since_ms=clock_ms(),
        probe_at_ms=clock_ms() + 240_000,
    )
    shop.store.holds.put_hold(hold)
    assert shop.run("provider", "release", "main").exit_code == 0
    assert shop.due_at_ms(refused) <= clock_ms()


@pytest.mark.parametrize(
    ("scope", "key", "words"),
    [
        ("credential", "main", "the last probe was due at"),
        ("unreachable", "main", "the last probe was due at"),
        ("provider", "main", "the next message is a probe, since"),
        ("sender domain", "main promo.test", "the next message is a probe, since"),
    ],
)
def test_the_list_tells_when_a_probe_was_due(shop: Desk, scope: str, key: str, words: str) -> None:
    probe_at_ms = clock_ms() - 240_000
    put_hold(shop, scope, key, probe_at_ms=probe_at_ms)
    text = " ".join(shop.run("provider", "list").stdout.split())
    assert f"credentials invalid; {words} {utc_text(probe_at_ms)} (4m ago)" in text


def test_an_operators_hold_outlasts_what_the_provider_says(shop: Desk) -> None:
    put_hold(shop, "provider", "main", probe_at_ms=1)
    assert "main: held until" in shop.run("provider", "hold", "main").stdout
    put_hold(shop, "provider", "main", probe_at_ms=2)
    (hold,) = shop.store.holds.in_force()
    assert hold.probe_at_ms is None
    assert hold.reason.startswith("operator: ")


def test_release_ends_the_holds_of_key_and_sender_domains_of_that_provider_only(
    shop: Desk,
) -> None:
    put_hold(shop, "provider", "main")
    put_hold(shop, "credential", "main")
    put_hold(shop, "sender domain", "main promo.test")
    put_hold(shop, "sender domain", "mainframe promo.test")
    put_hold(shop, "credential", "spare")
    result = shop.run("provider", "release", "main")
    assert len(result.stdout.splitlines()) == 3
    assert "main: released (sender domain main promo.test); it was held: 535" in result.stdout
    assert {hold.key for hold in shop.store.holds.in_force()} == {"mainframe promo.test", "spare"}
    assert len(shop.store.audit.entries(limit=9)) == 3


def test_release_lets_mail_of_a_refused_sender_domain_go(shop: Desk) -> None:
    queue_id = shop.add()
    shop.attempt(DeliveryState.HELD, reason=sender_refused("shop.test", ["main"]).sentence)
    other = shop.add()
    shop.attempt(DeliveryState.HELD, reason=sender_refused("other.test", ["main"]).sentence)
    put_hold(shop, "sender domain", "main shop.test")
    shop.run("provider", "release", "main")
    assert shop.states(queue_id) == {DeliveryState.DEFERRED}
    assert shop.states(other) == {DeliveryState.HELD}


def test_nothing_to_release(shop: Desk) -> None:
    result = shop.run("provider", "release", "spare")
    assert (result.exit_code, result.stdout) == (
        0,
        "spare: nothing to release, it is neither held nor paused\n",
    )
    assert shop.store.audit.entries(limit=9) == []


@pytest.mark.parametrize("verb", ["hold", "release"])
def test_an_unknown_name_is_refused_with_the_known_ones(shop: Desk, verb: str) -> None:
    result = shop.run("provider", verb, "mian")
    assert result.exit_code == 65
    assert result.stderr == "relaygw: there is no provider 'mian'; write one of main, spare\n"
    assert shop.store.holds.in_force() == []


def test_a_hold_of_a_provider_that_is_no_more_can_be_released(shop: Desk) -> None:
    put_hold(shop, "provider", "gone")
    assert shop.run("provider", "release", "gone").exit_code == 0
    assert shop.store.holds.in_force() == []


def test_gateways_of_relay_to_are_listed_by_their_names(desk: Desk) -> None:
    desk.config.write_text(
        f'mode: production\nqueue: {{url: "{desk.url}"}}\nrelay_to: [smtp://hub1, smtps://hub2]\n'
    )
    names = [one["name"] for one in desk.lines("provider", "list", "--json")]
    assert names == ["hub1", "hub2-465"]
    text = desk.config.read_text().replace("hub1", "hub1.dc1.example.com:2525")
    desk.config.write_text(text)
    _, first, _ = desk.run("provider", "list").stdout.splitlines()
    assert first.startswith("hub1-dc1-example-com-2525 hub1.dc1.")
    assert len(first) <= 80


def run(*words: str) -> tuple[int, list[str], str]:
    result = CliRunner().invoke(main, ["provider", "presets", *words], env={"COLUMNS": "80"})
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_presets_need_no_configuration_and_fit_the_screen() -> None:
    code, lines, _ = run("--config", "/nonexistent")
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1 : len(presets()) + 1]] == list(presets())
    assert (
        "ses           email-smtp.REGION.amazonaws.com     587  region username password" in lines
    )


@each_of("name", presets())
def test_all_about_one_preset_fits_the_screen(name: str) -> None:
    code, lines, _ = run(name)
    assert code == 0
    # an address of a page is not folded: it could not be copied
    assert max(len(line) for line in lines if "https://" not in line) <= 80
    words = " ".join(" ".join(lines).split())
    preset = presets()[name]
    for part in (preset.service, *preset.asks.values(), *map(str, preset.notes)):
        assert " ".join(part.split()) in words
    for region_or_variant in (*preset.regions, *preset.variants):
        assert region_or_variant in words
    assert "{region}" not in words


def test_presets_as_json() -> None:
    objects = [json.loads(line) for line in run("--json")[1]]
    assert [one["name"] for one in objects] == list(presets())
    (mailgun,) = [json.loads(line) for line in run("mailgun", "--json")[1]]
    assert mailgun["regions"]["eu"]["keys"] == {"host": "smtp.eu.mailgun.org"}
    assert mailgun["implicit_ports"] == [465]


def test_the_name_of_a_preset_is_taken_in_any_case() -> None:
    assert run("SendGrid") == run("sendgrid")
    assert run("SendGrid")[0] == 0


def test_each_note_shows_when_it_was_looked_up() -> None:
    words = " ".join(" ".join(run("smtp2go")[1]).split())
    assert "a free account sends 25 an hour: set rate: 25/h (2026-12)" in words
    (told,) = [json.loads(line) for line in run("smtp2go", "--json")[1]]
    assert {"text", "checked"} == set(told["notes"][0])


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    code, lines, error = run("acme")
    assert (code, lines) == (65, [])
    assert error.startswith("relaygw: acme: no such preset; name one of: sendgrid, mailgun, ")


def test_a_pause_is_listed_with_its_end_and_released(shop: Desk) -> None:
    put_hold(shop, PAUSED, "main", probe_at_ms=clock_ms() + 30_000)
    assert shop.run("provider", "list").stdout.splitlines()[1].endswith("paused")
    for command in (("provider", "list"), ("status",)):
        text = " ".join(shop.run(*command).stdout.split())
        assert "paused main since" in text
        assert "535 5.7.8 Authentication credentials invalid; next probe at" in text
    first, _ = shop.lines("provider", "list", "--json")
    assert (first["state"], first["holds"][0]["scope"]) == ("paused", PAUSED)
    assert shop.run("provider", "release", "main").stdout.startswith(
        "main: released; it was paused"
    )
    assert shop.store.holds.in_force() == []
    (entry,) = shop.store.audit.latest("provider.release", since_ms=0, limit=9)
    assert (entry.target, entry.detail.startswith("paused main")) == ("main", True)


def test_what_waits_for_a_rate_or_is_in_doubt_is_listed(shop: Desk) -> None:
    text = shop.config.read_text().replace("rate: 14/s", "rate: 2/m")
    shop.config.write_text(text)
    shop.store.intake.accept_batch([accepted() for _ in range(3)])
    for command in (("provider", "list"), ("status",)):
        said = " ".join(shop.run(*command).stdout.split())
        assert "waiting 3 wait for main at 2/m, the last for 1 minute" in said
    first, second = shop.lines("provider", "list", "--json")
    assert (first["waiting"], first["behind_s"], second["behind_s"]) == (3, 90.0, 0.0)
    put_hold(shop, PAUSED, "main", probe_at_ms=clock_ms())
    first, second = shop.lines("provider", "list", "--json")
    assert (first["waiting"], second["waiting"]) == (0, 3), "the next one takes it"
    shop.store.instances.register(instance("w"))
    (claimed,) = shop.store.leases.claim("default", limit=1, incarnation="w", now_ms=clock_ms())
    lost = unsent(replace(claimed, provider="main"), DeliveryState.DEFERRED, clock_ms())
    lost = retried_in_doubt(lost, clock_ms() + 300_000)
    shop.store.leases.record_batch([lost], incarnation="w", now_ms=clock_ms())
    said = " ".join(shop.run("provider", "list").stdout.split())
    assert "in doubt 1 delivery that main may have taken" in said
