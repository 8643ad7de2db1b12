"""--lint names each mistake with its place and both remedies, and leaves sound ones alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from relaygw.cli import main
from tests.integration.postfix.shapes import Shape
from tests.real_postfix import make_index

_SASL = (
    "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:{dir}/sasl_passwd\n"
    "smtp_sasl_security_options = noanonymous\n"
)
_TLS = "smtp_tls_security_level = encrypt\nsmtp_tls_connection_reuse = yes\n"
_HOST = "relayhost = [smtp.sendgrid.net]:587\n"
_STOPS = "imports nothing until then"
_KEY = {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n"}


@dataclass(frozen=True)
class Mistake:
    rule: str
    main: str
    place: str
    files: dict[str, str] = field(default_factory=lambda: dict(_KEY))
    indexed: tuple[str, ...] = ("sasl_passwd",)
    others: tuple[str, ...] = ()  # rules that it breaks as well
    does: str = ""  # of relaygw


MISTAKES = (
    # the six of the article's recipes
    Mistake("password-of-another-form", _HOST + _TLS + _SASL, "sasl_passwd:1",
            {"sasl_passwd": "[smtp.sendgrid.net]:2525 apikey:SG.k\n"}),
    Mistake("wrong-side", _HOST + "smtpd_tls_security_level = encrypt\n" + _SASL, "main.cf:10",
            others=("password-in-clear",)),
    Mistake("here-document", _HOST + _TLS + _SASL, "setup.sh:1",
            {**_KEY, "setup.sh": "cat << /etc/postfix/main.cf >>EOF\nrelayhost = x\nEOF\n"}),
    Mistake("here-document", _HOST + _TLS + _SASL, "EOF",
            {**_KEY, "EOF": "relayhost = [smtp.sendgrid.net]:587\n"}),
    Mistake("one-sender", _HOST + _TLS + _SASL + "sender_dependent_relayhost_maps = "
            "texthash:{dir}/relayhosts\n", "relayhosts:1",
            {**_KEY, "relayhosts": "user@promo.example.com [smtp.sendgrid.net]:587\n"}),
    Mistake("no-reuse", _HOST + "smtp_tls_security_level = encrypt\n" + _SASL
            + "smtp_tls_connection_reuse = no\n", "main.cf:14"),
    Mistake("no-reuse-by-sender", _HOST + _TLS + _SASL
            + "smtp_sender_dependent_authentication = yes\n", "main.cf:15"),
    # others
    Mistake("takes-no-mail", _HOST + _TLS + _SASL + "smtpd_relay_restrictions =\n", "main.cf:15"),
    Mistake("every-domain", _HOST + _TLS + _SASL + "virtual_alias_maps = regexp:{dir}/virtual\n",
            "virtual:1", {**_KEY, "virtual": "/.*/ dev@a.test\n"}),
    Mistake("every-domain", _HOST + _TLS + _SASL + "virtual_alias_maps = static:dev@a.test\n",
            "main.cf:15"),
    Mistake("login-is-off", _HOST + _TLS + "smtp_sasl_password_maps = hash:{dir}/sasl_passwd\n",
            "main.cf:12"),
    Mistake("sender-login-is-off", _HOST + _TLS + _SASL, "sasl_passwd:2",
            {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n@a.test u:p\n"}),
    Mistake("no-password", _HOST + _TLS + _SASL, "sasl_passwd:1",
            {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey\n"}),
    Mistake("no-mechanism", _HOST + _TLS + _SASL.replace("= noanonymous", "= noplaintext"),
            "main.cf:14"),
    Mistake("password-in-clear", _HOST + "smtp_tls_security_level = may\n"
            "smtp_tls_connection_reuse = yes\n" + _SASL, "main.cf:10"),
    Mistake("no-wrappermode", "relayhost = [smtp.sendgrid.net]:465\n" + _TLS + _SASL, "main.cf:9",
            {"sasl_passwd": "[smtp.sendgrid.net]:465 apikey:SG.k\n"}),
    Mistake("wrappermode", _HOST + _TLS + _SASL + "smtp_tls_wrappermode = yes\n", "main.cf:15"),
    Mistake("no-authorities", _HOST + _TLS + _SASL + "smtp_tls_CAfile = /no/such/ca.pem\n",
            "main.cf:15"),
    Mistake("no-authorities", _HOST + _TLS.replace("encrypt", "verify") + _SASL, "main.cf:10"),
    Mistake("no-brackets", "relayhost = smtp.sendgrid.net:587\n" + _TLS + _SASL, "main.cf:9",
            {"sasl_passwd": "smtp.sendgrid.net:587 apikey:SG.k\n"}),
    Mistake("never-matches", _HOST + _TLS + _SASL + "sender_dependent_relayhost_maps = "
            "inline:{promo.example.com=[smtp.sendgrid.net]:587}\n", "main.cf:15"),
    Mistake("open-relay", _HOST + _TLS + _SASL + "mynetworks = 127.0.0.0/8, 0.0.0.0/0\n",
            "main.cf:15", others=("set-twice",)),
    Mistake("never-asked", _HOST + _TLS + _SASL + "smtpd_recipient_restrictions = "
            "permit_mynetworks, check_recipient_access inline:{a.test=REJECT}, reject\n",
            "main.cf:15"),
    Mistake("comment-in-value", _HOST + _TLS + _SASL + "header_size_limit = 4096000 # large\n",
            "main.cf:15"),
    Mistake("set-twice", _HOST + _TLS + _SASL + _HOST, "main.cf:9"),
    Mistake("unknown", _HOST + _TLS + _SASL + "smtp_tls_securty_level = encrypt\n", "main.cf:15"),
    Mistake("not-readable", _HOST + _TLS + _SASL + "relayhost [smtp.example.com]\n", "main.cf:15"),
    Mistake("no-index", _HOST + _TLS + _SASL + "transport_maps = hash:{dir}/transport\n",
            "transport", {**_KEY, "transport": "a.test :[b.test]\n"}),
    Mistake("unused-table", _HOST + _TLS + _SASL, "generic.db",
            {**_KEY, "generic": "a@b.test c@d.test\n"}, ("sasl_passwd", "generic")),
    Mistake("unused-password", _HOST + _TLS + _SASL, "sasl_passwd:2",
            {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n[smtp.mailgun.org]:587 u:p\n"}),
    Mistake("table", _HOST + _TLS + _SASL, "sasl_passwd:2",
            {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\nlonely\n"}),
    Mistake("table", _HOST + _TLS + _SASL, "sasl_passwd:2",
            {"sasl_passwd": "[smtp.sendgrid.net]:587 a:b\n[smtp.sendgrid.net]:587 c:d\n"}),
    Mistake("table", _HOST + _TLS + _SASL + "sender_canonical_maps = regexp:{dir}/re\n", "re:2",
            {**_KEY, "re": "/^(a)@/ $1@b.test\n/^c@/ $0\n"}),
    # what is asked first is the default of virtual_alias_domains, which has no line
    *(
        Mistake("table", _HOST + _TLS + _SASL + f"{line}\n", "main.cf:15", does=_STOPS)
        for line in ("virtual_alias_maps = mysql:/etc/postfix/x.cf", "virtual_maps = ldap:users",
                     "transport_maps = tcp:localhost:99",
                     "smtpd_recipient_restrictions = check_recipient_access pgsql:/x, reject")
    ),
    Mistake("table", _HOST + _TLS + _SASL.replace("hash:{dir}/sasl_passwd", "mysql:/x"),
            "main.cf:13", {}, (), does=_STOPS),
    Mistake("readable-passwords", _HOST + _TLS + _SASL
            + "smtp_sasl_password_maps = inline:{ {[smtp.sendgrid.net]:587=apikey:SG.k} }\n",
            "main.cf:15", {}, others=("set-twice",)),
    Mistake("password-for-another-host", _HOST + _TLS + _SASL
            + "smtp_sender_dependent_authentication = yes\n"
            "transport_maps = inline:{inner.test=smtp:[inner.test]:25}\n", "main.cf:16",
            {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n@a.test u:p\n"},
            others=("no-reuse-by-sender",)),
)  # fmt: skip


def lint(home: Path) -> tuple[int, list[dict[str, str]]]:
    done = CliRunner().invoke(main, ["import-postfix", str(home), "--lint", "--json"])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def written(one: Mistake, directory: Path) -> Path:
    return Shape(one.rule, one.main, one.files, dict.fromkeys(one.indexed, "hash")).write(directory)


@pytest.mark.parametrize("one", MISTAKES, ids=lambda one: f"{one.rule}-{one.place}")
def test_a_mistake_is_named_with_its_place_and_remedies(one: Mistake, tmp_path: Path) -> None:
    code, found = lint(written(one, tmp_path))
    assert code == 65
    assert {row["rule"] for row in found} == {one.rule, *one.others}
    mine = [row for row in found if row["rule"] == one.rule]
    assert [row["place"].removeprefix(f"{tmp_path}/postfix/") for row in mine] == [one.place]
    assert all(row["problem"] and row["postfix"] and one.does in row["relaygw"] for row in mine)
    assert all(row["relaygw"] for row in mine)
    assert not any("SG.k" in text for row in found for text in row.values())


def test_a_sound_configuration_has_no_mistakes(tmp_path: Path) -> None:
    home = Shape("sound", _HOST + _TLS + _SASL, _KEY).write(tmp_path)
    assert lint(home) == (0, [])


def test_what_is_so_by_default_is_a_hint(tmp_path: Path) -> None:
    tls = "smtp_tls_security_level = encrypt\n"
    home = Shape("sound", _HOST + tls + _SASL, _KEY).write(tmp_path)
    code, (row,) = lint(home)
    assert (code, row["kind"], row["rule"]) == (0, "hint", "no-reuse")
    done = CliRunner().invoke(main, ["import-postfix", str(home), "--lint"])
    assert done.stdout.startswith("hints ")


def test_what_postfix_writes_for_itself_is_no_table(tmp_path: Path) -> None:
    caches = (
        "smtp_tls_session_cache_database = btree:/no/such/smtp_scache\n"
        "smtpd_tls_session_cache_database = btree:${{data_directory}}/smtpd_scache\n"
        "address_verify_map = btree:/no/such/verify\npostscreen_cache_map = btree:/no/such/ps\n"
    )
    home = Shape("sound", _HOST + _TLS + _SASL + caches, _KEY).write(tmp_path)
    assert lint(home) == (0, [])


def test_passwords_that_everyone_may_read(tmp_path: Path) -> None:
    home = Shape("readable", _HOST + _TLS + _SASL, _KEY).write(tmp_path)
    (home / "sasl_passwd").chmod(0o644)
    code, (row,) = lint(home)
    assert (code, row["rule"], row["place"]) == (
        65,
        "readable-passwords",
        str(home / "sasl_passwd"),
    )
    assert row["postfix"] == f"chmod 600 {home / 'sasl_passwd'}"


def test_an_index_older_than_its_text(tmp_path: Path) -> None:
    home = Shape("old", _HOST + _TLS + _SASL, _KEY).write(tmp_path)
    index, text = home / "sasl_passwd.db", home / "sasl_passwd"
    text.write_text("[smtp.sendgrid.net]:587 apikey:new\n")
    os.utime(index, (1, 1))
    code, (row,) = lint(home)
    assert (code, row["rule"]) == (65, "old-index")
    assert row["postfix"] == f"postmap hash:{text}"
    # what Postfix does is imported: the lines of the index
    output = tmp_path / "relaygw.yaml"
    done = CliRunner().invoke(main, ["import-postfix", str(home), "--output", str(output)])
    assert done.exit_code == 0
    assert (tmp_path / "secrets" / "sendgrid").read_text() == "SG.k\n"
    make_index(text)
    assert lint(home) == (0, [])


def test_mending_takes_the_password_in_its_other_form(tmp_path: Path) -> None:
    home = written(MISTAKES[0], tmp_path)
    for option, has_login in (("--mend", True), ("--dry-run", False)):
        done = CliRunner().invoke(main, ["import-postfix", str(home), "--dry-run", option])
        assert done.exit_code == 0, done.output
        assert ("preset: sendgrid" in done.stdout) is has_login


def test_mending_protects_a_password(tmp_path: Path) -> None:
    home = written(MISTAKES[1], tmp_path)
    plain = CliRunner().invoke(main, ["import-postfix", str(home), "--dry-run"]).stdout
    assert "tls: none" in plain
    assert "auth_without_tls: true" in plain
    mended = CliRunner().invoke(main, ["import-postfix", str(home), "--dry-run", "--mend"]).stdout
    assert "tls: none" not in mended
    assert "auth_without_tls" not in mended.partition("\nproviders:")[2]


def test_mending_takes_passwords_that_are_switched_off(tmp_path: Path) -> None:
    main_cf = (
        _HOST + _TLS + "smtp_sasl_password_maps = hash:{dir}/sasl_passwd\n"
        "sender_dependent_relayhost_maps = inline:{ {@a.test=[smtp.resend.com]:587} }\n"
    )
    files = {"sasl_passwd": "@a.test resend:re_key\n[smtp.sendgrid.net]:587 apikey:SG.k\n"}
    home = Shape("off", main_cf, files).write(tmp_path)
    plain = CliRunner().invoke(main, ["import-postfix", str(home), "--dry-run"]).stdout
    assert "password: file:" not in plain
    mended = CliRunner().invoke(main, ["import-postfix", str(home), "--dry-run", "--mend"]).stdout
    assert mended.count("password: file:") == 2
    assert "preset: resend" in mended


def test_a_relative_directory_has_the_same_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shape("relative", _HOST + _TLS + _SASL, _KEY).write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert lint(Path("postfix")) == (0, [])


def test_the_postfix_here_is_asked_about_a_relative_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sasl = _SASL.replace("{dir}", "/etc/postfix")
    home = Shape("relative", _HOST + _TLS + sasl, _KEY).write(tmp_path)
    monkeypatch.chdir(home)
    done = CliRunner().invoke(main, ["import-postfix", ".", "--dry-run"])
    assert done.exit_code == 0
    assert "not the same" not in done.stdout
    assert "(checked with the Postfix of this host)" in " ".join(done.stdout.split())


def test_what_postalias_writes_for_nis_is_no_alias(tmp_path: Path) -> None:
    main_cf = (
        _HOST
        + _TLS
        + "mydestination = a.test\nmyorigin = b.test\nalias_maps = hash:{dir}/aliases\n"
    )
    files = {"aliases": "root: ops@example.com\n"}
    home = Shape("nis", main_cf, files, {"aliases": "hash"}).write(tmp_path)
    done = CliRunner().invoke(main, ["import-postfix", str(home), "--dry-run", "--json"])
    assert done.exit_code == 0
    assert "ops@example.com" in done.stdout
    assert "yp_" not in done.stdout.lower()


def test_words_for_people(tmp_path: Path) -> None:
    home = written(MISTAKES[0], tmp_path)
    done = CliRunner().invoke(main, ["import-postfix", str(home), "--lint"])
    assert done.exit_code == 65
    assert "sasl_passwd:1: password-of-another-form" in done.stdout
    assert "    Postfix write the key as the next hop is written" in done.stdout
    assert "    relaygw " in done.stdout
