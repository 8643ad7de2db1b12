from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from relaygw_postfix.main_cf import Configuration, PostfixUnreadable, read_configuration, split_list
from tests.rights import needs
from tests.tables import each_of


def read(directory: Path, main: str, master: str = "") -> Configuration:
    (directory / "main.cf").write_text(main)
    if master:
        (directory / "master.cf").write_text(master)
    return read_configuration(directory)


VALUES = """compatibility_level = 3.6
  # a comment within
a = one
    two

    three
b = $a and ${a} and $(a) $$5
c =
yes_a = ${a?full}
no_c = ${c?full}${c:empty}
both = ${a?{x}:{y}} ${c?{x}:{y}}
level = ${{$compatibility_level} >=level {3.5} ? {new} : {old}}
number = ${{10} > {9} ? {ten} : {nine}}
text = ${{x} == {y} ? {same} : {other}}
nested = ${a?{<$b>}}
relayhost = [smtp.example.com]:587
default_transport = smtp:$relayhost
myhostname = gw.example.com
"""


def test_values_are_those_that_postfix_sees(tmp_path: Path) -> None:
    found = read(tmp_path, VALUES)
    shown = subprocess.run(
        ["postconf", "-c", tmp_path, "-x", "-n"], capture_output=True, text=True, check=True
    ).stdout
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        assert " ".join(found.value(name.strip()).split()) == " ".join(value.split()), name
    assert found.value("b") == "one    two    three and one    two    three and " + (
        "one    two    three $5"
    )
    assert found.value("both") == "x y"
    assert (found.value("level"), found.value("number")) == ("new", "ten")
    assert (found.value("text"), found.value("no_c")) == ("other", "empty")
    assert found.value("mydomain") == "example.com"
    assert str(found.place("relayhost")) == "main.cf:16"


@needs("mounts")
@pytest.mark.parametrize("main", ["", "mydomain = shop.test\n"])
@pytest.mark.parametrize("machine", ["shop1", "shop1.example.com"])
def test_the_machines_name_is_taken_as_postfix_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: str, machine: str
) -> None:
    found = read(tmp_path, main)
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    monkeypatch.setattr(socket, "getfqdn", lambda: pytest.fail("a resolver may not answer"))
    own = ["unshare", "--uts", "sh", "-c", 'hostname "$1" && postconf -c "$2" -x', "sh"]
    shown = subprocess.run(
        [*own, machine, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("myhostname", "mydomain", "myorigin"):
        assert f"{name} = {found.value(name)}\n" in shown


BROKEN = [
    ("relayhost = $a\na = $b\nb = ${a}\n", "main.cf:3: $a refers to itself: a -> b -> a"),
    ("relayhost = $relayhost\n", "main.cf:1: $relayhost refers to itself"),
    ("relayhost = ${a\n", "main.cf:1: '${a' is not closed"),
    ("relayhost = $ x\n", "main.cf:1: a $ is not followed by a name; write $$"),
    ("relayhost = ${-}\n", "main.cf:1: '-' is not a name"),
    ("relayhost = ${a!b}\n", "main.cf:1: '!b' after a is neither ? nor :"),
    ("relayhost = ${{a} ? {b}}\n", "main.cf:1: '{a} ? {b}' is not a comparison"),
]


@each_of("main, problem", BROKEN)
def test_what_cannot_be_expanded_names_its_line(main: str, problem: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory, pytest.raises(PostfixUnreadable) as raised:
        read(Path(directory), main).value("relayhost")
    assert str(raised.value).startswith(problem)
    assert "fix it" in str(raised.value)


def test_an_unknown_name_is_empty_as_in_postfix(tmp_path: Path) -> None:
    assert read(tmp_path, "relayhost = [$nowhere]\n").value("relayhost") == "[]"


def test_lines_that_are_none(tmp_path: Path) -> None:
    found = read(
        tmp_path, "relayhost = a\nEOF\ncat << /etc/postfix/main.cf >>EOF\nb c d\nx-y.z=1\n"
    )
    assert [one.partition(";")[0] for one in found.problems] == [
        "main.cf:2: is a shell command, not a line of main.cf",
        "main.cf:3: is a shell command, not a line of main.cf",
        "main.cf:4: 'b' is not followed by =",
    ]


def test_the_last_of_two_holds(tmp_path: Path) -> None:
    found = read(tmp_path, "relayhost = a\nrelayhost = b\n")
    assert found.value("relayhost") == "b"
    assert [str(one.place) for one in found.repeated] == ["main.cf:1"]


def test_services_and_their_overrides(tmp_path: Path) -> None:
    master = (
        "smtp inet n - y - - smtpd\n  -o smtpd_tls_security_level=encrypt\n"
        "  -o { smtpd_recipient_restrictions = permit_mynetworks, reject }\n"
        "promo unix - - n - 5 smtp -o smtp_bind_address=10.0.0.1 -v\n"
        "too few fields\n"
        "bad unix - - n - - smtp -o nothing\n"
    )
    found = read(tmp_path, "smtp_tls_security_level = may\n", master)
    door, promo = found.service("smtp", "inet"), found.service("promo")
    assert door is not None
    assert promo is not None
    assert found.value("smtpd_tls_security_level", door) == "encrypt"
    assert found.values("smtpd_recipient_restrictions", door) == ["permit_mynetworks", "reject"]
    assert (promo.max_processes, promo.command) == ("5", "smtp")
    assert found.value("smtp_tls_security_level", promo) == "may"
    assert str(found.place("smtp_bind_address", promo)) == "master.cf:4"
    assert [one.partition(":")[2].split()[0] for one in found.problems] == ["5:", "6:"]


@each_of(
    "content, problem",
    [
        (b"relayhost = a\nx = \x00\x01\n", "main.cf:2: holds a control character"),
        (b"\x7fELF\x02\x01\x01\x00", "main.cf:1: holds a control character"),
    ],
)
def test_binary_junk_names_its_line(content: bytes, problem: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "main.cf").write_bytes(content)
        with pytest.raises(PostfixUnreadable) as raised:
            read_configuration(Path(directory))
        assert problem in str(raised.value)
        assert "restore it from a backup" in str(raised.value)


def test_a_directory_without_main_cf_says_so(tmp_path: Path) -> None:
    with pytest.raises(PostfixUnreadable, match=r"main\.cf: is not there; give the directory"):
        read_configuration(tmp_path)
    (tmp_path / "main.cf").mkdir()
    with pytest.raises(PostfixUnreadable, match="is not a regular file"):
        read_configuration(tmp_path)


def test_letters_beyond_ascii_are_read(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_bytes("mail_name = Grüße\n".encode() + b"# old \xff\n")
    assert read_configuration(tmp_path).value("mail_name") == "Grüße"
    (tmp_path / "main.cf").write_bytes(b"a = b\nx = \xff\n")
    with pytest.raises(PostfixUnreadable, match=r"main\.cf:2: is not UTF-8; convert"):
        read_configuration(tmp_path)


def test_lists() -> None:
    assert split_list("a, b\tc,{d e, f}  {g}") == ["a", "b", "c", "{d e, f}", "{g}"]
    assert split_list("inline:{a=b, {c=d e}} x") == ["inline:{a=b, {c=d e}}", "x"]
