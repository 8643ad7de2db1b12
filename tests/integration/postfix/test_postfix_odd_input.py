"""What import-postfix does with what is odd, broken, or there already."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from relaygw.cli import main
from tests.integration.postfix.shapes import Shape
from tests.rights import needs

_NOBODY = 65534  # a user ID
_HOST = "relayhost = [smtp.sendgrid.net]:587\nsmtp_tls_security_level = encrypt\n"
_SASL = (
    "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{dir}/sasl_passwd\n"
    "smtp_sasl_security_options = noanonymous\n"
)


def run(home: Path, *words: object) -> Result:
    return CliRunner().invoke(main, ["import-postfix", *map(str, (home, *words))])


def imported(home: Path, *words: object) -> tuple[dict[str, object], str]:
    """The file, and what was said."""
    done = run(home, "--dry-run", *words)
    assert done.exit_code == 0, done.output
    said, _, text = done.stdout.partition("\n# Made by")
    return yaml.safe_load(text.partition("\n")[2]), " ".join(said.split())


@dataclass(frozen=True)
class Broken:
    name: str
    main: str
    problems: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    master: str = ""


BROKEN = (
    Broken("no-relayhost", "relayhost =\n",
           ("mail goes to each recipient's own server (by MX)", "--relayhost '[smtp.example.com]")),
    Broken("no-relayhost-for-a-sender", _HOST + "sender_dependent_default_transport_maps = "
           "inline:{@a.test=smtp:}\nrelayhost =\n", ("by MX", "--relayhost")),
    # without the line a password would be sent in clear text, as by no Postfix
    Broken("no-sign", _HOST.replace("level =", "level") + _SASL,
           ("main.cf:10: 'smtp_tls_security_level' is not followed by =; write NAME = VALUE",
            "Postfix does not start with it"), {"sasl_passwd": "[smtp.sendgrid.net]:587 u:p\n"}),
    Broken("no-sign-of-relayhost", "relayhost [smtp.a.test]:587\n",
           ("main.cf:9: 'relayhost' is not followed by =",)),
    Broken("no-service", _HOST, ("master.cf:", "has 3 of 8 fields"), master="too few fields\n"),
    Broken("no-sign-of-a-service", _HOST,
           ("master.cf:", "-o 'smtp_tls_security_level' is not NAME=VALUE",
            "Postfix does not start this service"),
           master="promo unix - - n - - smtp -o smtp_tls_security_level encrypt\n"),
    Broken("cycle-of-values", "relayhost = $a\na = $b\nb = $a\n",
           ("main.cf:11: $a refers to itself: a -> b -> a",)),
    Broken("no-such-file", _HOST + "transport_maps = hash:{dir}/none\n",
           ("main.cf:11: ", "/postfix/none is not there; put it there")),
    Broken("database", _HOST + "sender_dependent_relayhost_maps = mysql:/etc/postfix/x.cf\n",
           ("main.cf:11: mysql: is in a database", "texthash:FILE")),
    Broken("unknown-type", _HOST + "transport_maps = hsah:{dir}/x\n",
           ("main.cf:11: 'hsah' is not a table type that relaygw supports",)),
    Broken("no-passwords", _HOST + _SASL, ("main.cf:12: ", "/postfix/sasl_passwd is not there")),
    Broken("binary", _HOST + "transport_maps = texthash:{dir}/junk\n",
           ("/postfix/junk:2: holds a control character", "restore it"),
           {"junk": "a.test :\n\0\1\2\n"}),
    Broken("bad-hop", "relayhost = [smtp.example.com]:smpt\n",
           ("main.cf:9: relayhost: '[smtp.example.com]:smpt' has an invalid port",)),
    Broken("hop-of-the-address", _HOST + "sender_dependent_relayhost_maps = pcre:{dir}/re\n",
           ("re:1:", "the next hop depends on the address"), {"re": "/@(.*)$/ [smtp.$1]:587\n"}),
)  # fmt: skip


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: one.name)
def test_what_cannot_be_imported_says_where_and_what_to_do(one: Broken, tmp_path: Path) -> None:
    home = Shape(one.name, one.main, one.files, master=one.master).write(tmp_path)
    output = tmp_path / "relaygw.yaml"
    done = run(home, "--output", output)
    assert done.exit_code == 65, done.output
    assert done.stdout == ""
    assert all(problem in done.stderr for problem in one.problems), done.stderr
    assert not output.exists()


CIRCLES = (
    Broken("virtual", _HOST + "virtual_alias_maps = texthash:{dir}/virtual\n",
           ("main.cf:11: a@a.test leads through a loop of virtual aliases", "remove one"),
           {"virtual": "a@a.test b@a.test\nb@a.test a@a.test x@a.test\ngood@a.test c@b.test\n"}),
    Broken("aliases", _HOST + "mydestination = a.test\nalias_maps = hash:{dir}/aliases\n",
           ("a@a.test leads through too many aliases or a loop",),
           {"aliases": "a: b@a.test\nb: a@a.test\ngood: c@b.test\n"}),
)  # fmt: skip


def test_a_circle_of_canonical_addresses_is_named_and_sent(tmp_path: Path) -> None:
    main_cf = _HOST + "canonical_maps = texthash:{dir}/canonical\n"
    files = {"canonical": "a@a.test b@a.test\nb@a.test a@a.test\ngood@a.test c@b.test\n"}
    values, said = imported(Shape("circle", main_cf, files).write(tmp_path), "--all")
    assert values["rewrite"]["recipients"] == {"good@a.test": "c@b.test"}  # type: ignore[index]
    assert "main.cf:11: canonical_maps leads in a loop: a@a.test -> b@a.test; remove one" in said
    assert "anybody to a@a.test: same" in said


@pytest.mark.parametrize("one", CIRCLES, ids=lambda one: one.name)
def test_a_circle_of_addresses_is_named_and_stops_nothing_else(one: Broken, tmp_path: Path) -> None:
    shape = Shape(one.name, one.main, one.files, {"aliases": "hash"})
    values, said = imported(shape.write(tmp_path), "--all")
    assert all(problem in said for problem in one.problems), said
    assert "Postfix does not deliver this mail, and it is not rewritten here" in said
    rows = said.partition("sameness")[2]
    assert re.search(r"anybody to a@a.test: (not the same|sent by neither) Postfix deferred", rows)
    kept = dict(values["rewrite"]).get("recipients", {})  # type: ignore[call-overload]
    assert ("good@a.test" in kept) is ("good" in "".join(one.files.values()))


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert (done.exit_code, done.stdout) == (65, "")
    assert "main.cf: is not there; give the directory with main.cf" in done.stderr


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    files = {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n"}
    home = Shape("there", _HOST + _SASL, files).write(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    (output / "relaygw.yaml").write_text("mine\n")
    for words in (["--output", output], ["--output", output / "relaygw.yaml"]):
        done = run(home, *words)
        assert (done.exit_code, done.stdout) == (73, "")
        assert "already exists; no file is overwritten" in done.stderr
    (output / "relaygw.yaml").unlink()
    (output / "secrets").mkdir()
    (output / "secrets" / "sendgrid").write_text("mine\n")
    assert run(home, "--output", output).exit_code == 73
    assert not (output / "relaygw.yaml").exists()
    assert (output / "secrets" / "sendgrid").read_text() == "mine\n"
    (output / "secrets" / "sendgrid").unlink()
    (output / "secrets").chmod(0o777)
    done = run(home, "--output", output)
    assert (done.exit_code, done.stdout) == (73, "")
    assert "so others could replace secrets; chmod 700" in done.stderr
    (output / "secrets").chmod(0o700)
    assert run(home, "--output", output).exit_code == 0
    assert stat.S_IMODE((output / "secrets" / "sendgrid").stat().st_mode) == 0o600
    assert run(home, "--output", tmp_path / "no" / "relaygw.yaml").exit_code == 73
    for name in ("made", "other/"):  # no name of a file is one of a directory
        done = run(home, "--output", f"{tmp_path}/{name}")
        assert done.exit_code == 0, done.output
        made = tmp_path / name
        assert sorted(one.name for one in made.iterdir()) == ["relaygw.yaml", "secrets"]
        modes = [stat.S_IMODE(one.stat().st_mode) for one in (made, made / "secrets")]
        assert modes == [0o755, 0o700]
        assert f"{made}/relaygw.yaml" in "".join(done.output.split())


@needs("root")
def test_a_place_that_this_user_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run writes nothing, and asks nothing of the place."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        home = Shape("closed", _HOST).write(base)
        (base / "closed").mkdir(mode=0o700)
        monkeypatch.chdir(base / "closed")
        os.seteuid(_NOBODY)
        try:
            tried = run(home, "--dry-run")
            written = [run(home), run(home, "--output", "deep/relaygw.yaml")]
        finally:
            os.seteuid(0)
    assert tried.exit_code == 0, tried.output
    assert "providers:" in tried.stdout
    for done in written:
        assert done.exit_code == 73
        assert ": cannot be written (Permission denied); nothing was written" in done.stderr


def test_one_bad_address_does_not_end_the_comparison(tmp_path: Path) -> None:
    home = Shape("one", _HOST, {}).write(tmp_path)
    bad = ["--compare", "a@b@x", "--compare", "a@b.test,c@d@e", "--recipient", "x y"]
    _, said = imported(home, *bad, "--compare", "a@b.test,c@d.test", "--all")
    assert "a@b.test to c@d.test: same" in said
    assert said.count("it is not compared") == 3


def test_relayhost_may_be_given(tmp_path: Path) -> None:
    home = Shape("none", "relayhost =\n").write(tmp_path)
    values, _ = imported(home, "--relayhost", "[smtp.eu.mailgun.org]:587")
    assert values["routes"] == [{"name": "default", "providers": ["smtp-eu-mailgun-org"]}]


def test_a_rewriting_of_everybody_is_written(tmp_path: Path) -> None:
    main_cf = _HOST + "sender_canonical_maps = regexp:{dir}/senders\n"
    home = Shape("all", main_cf, {"senders": "/.+/ noreply@example.com\n"}).write(tmp_path)
    values, said = imported(home)
    assert values["rewrite"] == {
        "default_domain": "shop1.example.com",
        "senders": {"*": "noreply@example.com", "<>": "noreply@example.com"},
    }
    assert "/.+/" not in said


def test_a_rewriting_that_keeps_the_local_part_is_written(tmp_path: Path) -> None:
    main_cf = _HOST + "smtp_generic_maps = inline:{@old.example.com=@example.com}\n"
    values, _ = imported(Shape("keeps", main_cf).write(tmp_path))
    rule = {"@old.example.com": "@example.com"}
    assert values["rewrite"] == {
        "default_domain": "shop1.example.com",
        "senders": rule,
        "recipients": rule,
        "header": ["senders", "recipients"],
    }


def test_listeners_networks_and_limits(tmp_path: Path) -> None:
    main_cf = (
        _HOST + "inet_interfaces = 127.0.0.1, 10.1.1.1\nmynetworks = 127.0.0.0/8, [::1]/128, "
        "[::ffff:127.0.0.0]/104, 10.0.0.0/8, 0.0.0.0/0\nmessage_size_limit = 20971520\n"
        "smtpd_client_message_rate_limit = 30\nsmtpd_recipient_limit = 50\n"
    )
    master = "submission inet n - n - - smtpd\n  -o smtpd_tls_security_level=encrypt\n"
    values, said = imported(Shape("in", main_cf, master=master).write(tmp_path))
    listeners = values["listeners"]
    assert isinstance(listeners, list)
    assert [one["bind"] for one in listeners] == [
        "127.0.0.1:25", "10.1.1.1:25", "127.0.0.1:587", "10.1.1.1:587",
    ]  # fmt: skip
    assert listeners[0] == {
        "bind": "127.0.0.1:25",
        "allow": ["127.0.0.0/8", "::1/128", "10.0.0.0/8"],
        "max_message_size": 20971520,
        "max_recipients": 50,
        "rate_per_client": "30/m",
    }
    assert "0.0.0.0/0 covers much of the Internet: an open relay" in said


def test_networks_with_hosts_taken_out_are_left_out(tmp_path: Path) -> None:
    main_cf = f"{_HOST}mynetworks = 127.0.0.0/8, !10.1.0.0/16, 10.0.0.0/8, 192.168.1.0/24\n"
    values, said = imported(Shape("out", main_cf).write(tmp_path))
    listeners = values["listeners"]
    assert isinstance(listeners, list)
    assert {tuple(one["allow"]) for one in listeners} == {("127.0.0.0/8", "192.168.1.0/24")}
    assert "!10.1.0.0/16 excludes hosts" in said
    assert "10.0.0.0/8 contains excluded hosts" in said


def test_provider_with_a_password_that_looks_like_a_reference(tmp_path: Path) -> None:
    files = {"sasl_passwd": "[smtp.sendgrid.net]:587 env:name:file:/etc/passwd\n"}
    values, _ = imported(Shape("odd", _HOST + _SASL, files).write(tmp_path))
    provider = values["providers"]["sendgrid"]  # type: ignore[index]
    assert provider["password"].endswith("/secrets/sendgrid")
    assert "passwd" not in provider["password"]


def lists_of(values: dict[str, object]) -> dict[str, object]:
    found = values["recipients"]
    assert isinstance(found, dict)
    return found


def test_who_is_refused_within_a_list_of_who_receives(tmp_path: Path) -> None:
    main_cf = (
        _HOST + "smtpd_recipient_restrictions = check_recipient_access inline:{\n"
        "  {boss@agency.test=REJECT}, {agency.test=OK}, {other.test=REJECT} }, reject\n"
    )
    values, said = imported(Shape("within", main_cf).write(tmp_path))
    assert values["mode"] == "staging"
    assert lists_of(values) == {
        "allow": ["@agency.test"],
        "block": ["boss@agency.test"],
        "blocked": "reject",
    }
    assert "Postfix means the domains below agency.test, too" in said


def test_who_receives_within_a_blocked_domain_is_told(tmp_path: Path) -> None:
    main_cf = _HOST + "smtpd_recipient_restrictions = check_recipient_access inline:{\n" \
        "  {good@bad.test=OK}, {bad.test=DISCARD} }\n"  # fmt: skip
    values, said = imported(Shape("within", main_cf).write(tmp_path))
    assert lists_of(values) == {"block": ["@bad.test"], "blocked": "drop"}
    assert "good@bad.test: Postfix sends this mail, though @bad.test is blocked" in said
    assert "anybody to good@bad.test: not the same" in said


def test_mail_to_a_domains_own_server_is_told(tmp_path: Path) -> None:
    main_cf = _HOST + "transport_maps = inline:{direct.test=smtp:}\n"
    values, said = imported(Shape("direct", main_cf).write(tmp_path))
    assert values["routes"] == [{"name": "default", "providers": ["smtp-sendgrid-net"]}]
    assert "mail to @direct.test goes directly to its own server (by MX)" in said
    assert "anybody to @direct.test: not the same" in said


def test_mail_for_this_host_is_captured_and_root_has_a_reader(tmp_path: Path) -> None:
    main_cf = _HOST + "mydestination = $myhostname\nalias_maps = texthash:{dir}/aliases\n" \
        "transport_maps = inline:{spam.test=discard:}\n"  # fmt: skip
    aliases = "root: ops@example.com\nlist: |/usr/bin/program\n"
    values, said = imported(Shape("local", main_cf, {"aliases": aliases}).write(tmp_path))
    assert lists_of(values) == {
        "block": ["@spam.test", "@shop1.example.com"],
        "blocked": "capture",
    }
    assert values["rewrite"]["recipients"] == {  # type: ignore[index]
        "root": "ops@example.com",
        "root@shop1.example.com": "ops@example.com",
    }
    assert "@shop1.example.com: Postfix keeps this mail on this host" in said
    assert "@spam.test: Postfix discards this mail; recipients.blocked is capture" in said


def test_restrictions_that_are_not_imported_are_told(tmp_path: Path) -> None:
    main_cf = (
        _HOST + "smtpd_sender_restrictions = reject_non_fqdn_sender, check_sender_access\n"
        "  hash:/etc/postfix/x, reject_rbl_client zen.example.org, my_class\n"
        "smtpd_restriction_classes = my_class\nmy_class = check_policy_service unix:p, permit\n"
        "smtpd_recipient_restrictions = check_recipient_access inline:{ {a.test=HOLD} }\n"
    )
    _, said = imported(Shape("strict", main_cf).write(tmp_path))
    for words in (
        "main.cf:11: smtpd_sender_restrictions: check_sender_access is not imported",
        "main.cf:11: smtpd_sender_restrictions: reject_rbl_client is not imported",
        "main.cf:14: my_class: check_policy_service is not imported",
        "main.cf:15: a.test: HOLD is not imported",
        "relaygw's lists also apply to mail from the sendmail command",
    ):
        assert words in said
    assert "zen.example.org is" not in said


def test_a_reason_to_prove_nothing_is_told_once_and_counted(tmp_path: Path) -> None:
    home = Shape("milter", _HOST + "smtpd_milters = inet:localhost:8891\n").write(tmp_path)
    _, said = imported(home)
    rows = said.partition("sameness")[2]
    assert rows.startswith(" 3 mails: 3 not proven (checked with the Postfix of this host)")
    assert rows.count(": not proven") == 1
    assert "to anybody: not proven (and 2 more) Postfix [smtp.sendgrid.net]:587" in rows
    assert "main.cf:11: smtpd_milters: a milter may refuse, redirect or change it" in rows
    _, said = imported(home, "--all")
    assert said.count(": not proven Postfix") == 3


def test_a_sender_whose_mail_is_refused_is_told(tmp_path: Path) -> None:
    main_cf = _HOST + "sender_dependent_default_transport_maps = inline:{ {@bad.test=error:no} }\n"
    values, said = imported(Shape("refused", main_cf).write(tmp_path))
    assert values["routes"] == [{"name": "default", "providers": ["smtp-sendgrid-net"]}]
    assert "main.cf:11: @bad.test error:no: mail of @bad.test is refused" in said
    assert "@bad.test to anybody: not the same" in said


def test_a_copy_of_a_directory_brings_its_own_tables(tmp_path: Path) -> None:
    main_cf = (
        _HOST + "mydestination = $myhostname\nalias_maps = texthash:/etc/aliases\n"
        "transport_maps = texthash:/etc/postfix/transport\n"
    )
    files = {
        "transport": "copied.test :[copied.relay.test]\n",
        "aliases": "root: own@copied.test\n",
    }
    values, _ = imported(Shape("copy", main_cf, files).write(tmp_path))
    assert "copied-relay-test" in values["providers"]  # type: ignore[operator]
    assert values["rewrite"]["recipients"]["root"] == "own@copied.test"  # type: ignore[index]


def test_passwords_are_in_no_list_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run_really = subprocess.run

    def noted(command: list[str], *args: Any, **how: Any) -> Any:
        seen.append(" ".join(map(str, command)))
        return run_really(command, *args, **how)

    main_cf = (
        _HOST + "smtp_sasl_auth_enable = yes\n"
        "smtp_sasl_password_maps = inline:{ {[smtp.sendgrid.net]:587=apikey:SG.inline} }\n"
        "transport_maps = inline:{ {a.test=:[b.test]} }\n"
    )
    home = Shape("inline", main_cf).write(tmp_path)
    monkeypatch.setattr(subprocess, "run", noted)
    done = run(home, "--output", tmp_path / "relaygw.yaml")
    assert done.exit_code == 0
    assert (tmp_path / "secrets" / "sendgrid").read_text() == "SG.inline\n"
    assert seen
    assert "SG.inline" not in "".join((*seen, done.output, (tmp_path / "relaygw.yaml").read_text()))


def test_an_alias_for_several_is_a_list(tmp_path: Path) -> None:
    main_cf = _HOST + "virtual_alias_maps = inline:{ {all@a.test=x@b.test, y@b.test} }\n"
    values, said = imported(Shape("several", main_cf).write(tmp_path))
    found = values["rewrite"]["recipients"]  # type: ignore[index]
    assert found == {"all@a.test": ["x@b.test", "y@b.test"]}
    assert "not the same" not in said


def test_what_is_told_of_many_alike_is_told_once(tmp_path: Path) -> None:
    entries = ", ".join(f"{{c{number}.test=smtp:}}" for number in range(12))
    main_cf = _HOST + f"transport_maps = inline:{{ {entries} }}\n"
    home = Shape("many", main_cf).write(tmp_path)
    _, said = imported(home)
    assert said.count("goes directly to its own server") == 1
    assert "(and 11 more like this; --all shows each)" in said
    _, said = imported(home, "--all")
    assert said.count("goes directly to its own server") == 12


def test_the_only_address_of_a_pattern_is_not_the_last_route(tmp_path: Path) -> None:
    main_cf = "default_transport = error:none\ntransport_maps = pcre:{dir}/map\n"
    table = {"map": "/^vip@a\\.test$/ smtp:[v.test]\n"}
    values, _ = imported(Shape("vip", _HOST + main_cf, table).write(tmp_path))
    routes = values["routes"]
    assert isinstance(routes, list)
    assert [(one.get("recipient"), one["providers"]) for one in routes] == [
        (["vip@a.test"], ["v-test"]),
        (None, ["smtp-sendgrid-net"]),
    ]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    values, said = imported(Shape("alone", main_cf, table).write(elsewhere))
    assert values["mode"] == "staging"
    assert "relaygw wants a last route: it has v-test" in said


def test_mail_of_everybody_to_one_reader_is_staging(tmp_path: Path) -> None:
    table = "/^qa@a\\.test$/ qa@a.test\n/./ dev@a.test\n"
    main_cf = _HOST + "virtual_alias_maps = regexp:{dir}/virtual\nvirtual_alias_domains =\n"
    values, _ = imported(Shape("reader", main_cf, {"virtual": table}).write(tmp_path))
    recipients = values["recipients"]
    assert isinstance(recipients, dict)
    assert (values["mode"], recipients["refused"]) == ("staging", "redirect:dev@a.test")
    assert {*recipients["allow"]} >= {"dev@a.test", "qa@a.test"}


def test_a_pattern_that_makes_every_domain_an_alias_can_be_mended(tmp_path: Path) -> None:
    main_cf = _HOST + "virtual_alias_maps = regexp:{dir}/virtual\n"
    home = Shape("all", main_cf, {"virtual": "/.*/ dev@a.test\n"}).write(tmp_path)
    values, said = imported(home)
    assert values["recipients"] == {"allow": []}
    assert "anybody's domain is in virtual_alias_domains: only listed recipients receive" in said
    assert "virtual:1: every-domain: regexp:" in said
    assert "relaygw-sample" not in run(home, "--dry-run", "--all").stdout
    values, _ = imported(home, "--mend")
    assert values["recipients"] == {"allow": ["dev@a.test"], "refused": "redirect:dev@a.test"}
    # a list that is written is meant
    explicit = tmp_path / "explicit"
    explicit.mkdir()
    main_cf += "virtual_alias_domains = static:all\n"
    home = Shape("all", main_cf, {"virtual": "/.*/ dev@a.test\n"}).write(explicit)
    values, said = imported(home, "--mend")
    assert values["recipients"] == {"allow": []}
    assert "every-domain" not in said


def test_an_archive_is_let_out_of_staging(tmp_path: Path) -> None:
    main_cf = _HOST + "always_bcc = archive@a.test\n"
    main_cf += "smtpd_recipient_restrictions = check_recipient_access inline:{dev@b.test=OK},\n"
    values, _ = imported(Shape("archive", f"{main_cf} reject\n").write(tmp_path))
    assert (values["mode"], values["archive_to"]) == ("staging", "archive@a.test")
    # smtpd is not asked about it
    assert values["recipients"] == {"allow": ["dev@b.test", "archive@a.test"]}
    main_cf = _HOST + "mydestination = $myhostname\nalways_bcc = archive\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    values, said = imported(Shape("mailbox", main_cf).write(elsewhere))
    assert "archive_to" not in values
    assert "always_bcc: leads to no address elsewhere" in said
