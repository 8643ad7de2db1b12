"""Every parameter of Postfix has a verdict, and the table has nothing else."""

from __future__ import annotations

import subprocess
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from relaygw_postfix.main_cf import known_facts, read_configuration
from relaygw_postfix.report import VERDICTS, Report, verdict_on


def parameters() -> list[str]:
    shown = subprocess.run(["postconf", "-d"], capture_output=True, text=True, check=True).stdout
    return [line.split(" ")[0] for line in shown.splitlines()]


ROWS = known_facts()["verdicts"]
NAMES = [name for row in ROWS for name in row["names"]]


def test_every_parameter_of_this_postfix_has_a_verdict() -> None:
    assert [name for name in parameters() if verdict_on(name) is None] == []


def test_each_name_stands_once_and_has_a_reason() -> None:
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    assert {row["verdict"] for row in ROWS} == set(VERDICTS)
    assert all(row["why"] for row in ROWS)


def test_each_pattern_stands_for_some_parameter() -> None:
    known = parameters()
    patterns = [name for name in NAMES if "*" in name]
    assert [one for one in patterns if not any(fnmatchcase(n, one) for n in known)] == []


def test_defaults_are_those_of_postfix() -> None:
    shown = subprocess.run(["postconf", "-d"], capture_output=True, text=True, check=True).stdout
    real = {line.split(" ")[0]: line.partition("=")[2].strip() for line in shown.splitlines()}
    own = ("mydomain", "process_name", "alias_maps", "daemon_directory", "virtual_maps")
    for name, value in known_facts()["defaults"].items():
        if name in real and name not in own:
            assert str(value) == real[name], name


def test_verdicts_on_what_is_set(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(
        "relayhost = [$myown]:587\nmyown = x.test\nheader_checks =\ncontent_filter = scan:\n"
        "smtp_tls_securty_level = may\npromo_destination_rate_delay = 1s\n"
        "strange_destination_rate_delay = 1s\nmy_class = reject\n"
        "smtpd_restriction_classes = my_class\n"
    )
    (tmp_path / "master.cf").write_text(
        "promo unix - - n - - smtp -o smtp_bind_address=10.0.0.1\n"
        "mlist unix - n n - - pipe user=x\nsmtp inet n - n - - smtpd\n"
    )
    told = {
        one.parameter.name: (one.verdict, str(one.parameter.place), one.why)
        for one in Report().verdicts(read_configuration(tmp_path))
    }
    assert {name: one[:2] for name, one in told.items()} == {
        "relayhost": ("translated", "main.cf:1"),
        "myown": ("taken", "main.cf:2"),
        "header_checks": ("translated", "main.cf:3"),
        "content_filter": ("refused", "main.cf:4"),
        "smtp_tls_securty_level": ("refused", "main.cf:5"),
        "promo_destination_rate_delay": ("translated", "main.cf:6"),
        "strange_destination_rate_delay": ("refused", "main.cf:7"),
        "my_class": ("taken", "main.cf:8"),
        "smtpd_restriction_classes": ("translated", "main.cf:9"),
        "smtp_bind_address": ("refused", "master.cf:1"),
        "service promo unix": ("translated", "master.cf:1"),
        "service mlist unix": ("refused", "master.cf:2"),
        "service smtp inet": ("translated", "master.cf:3"),
    }
    assert "is it smtp_tls_security_level?" in told["smtp_tls_securty_level"][2]


def test_what_is_set_for_services_that_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("relayhost = [x.test]:587\n")
    (tmp_path / "master.cf").write_text(
        "smtp inet n - n - - smtpd -o smtpd_recipient_restrictions=permit\n"
        "submission inet n - n - - smtpd -o smtpd_sender_restrictions=permit\n"
        "  -o cleanup_service_name=sub -o message_size_limit=7 -o mynetworks=10.0.0.0/8\n"
        "sub unix n - - - 0 cleanup -o sender_canonical_maps=static:x\n"
        "smtp unix - - n - - smtp -o smtp_generic_maps=static:x\n"
    )
    told = [
        (one.parameter.name, one.verdict, one.why)
        for one in Report().verdicts(read_configuration(tmp_path))
        if not one.parameter.name.startswith("service")
    ]
    alone = "it is set for {} alone, and not imported"
    assert [one[:2] for one in told if one[1] != "refused"] == [
        ("relayhost", "translated"),
        ("smtpd_recipient_restrictions", "translated"),
        ("message_size_limit", "taken"),
        ("smtp_generic_maps", "translated"),
    ]
    assert [(name, why) for name, verdict, why in told if verdict == "refused"] == [
        ("smtpd_sender_restrictions", alone.format("submission")),
        ("cleanup_service_name", "mail of submission passes sub, which is not imported"),
        ("mynetworks", alone.format("submission")),
        ("sender_canonical_maps", alone.format("sub")),
    ]
