"""Words of the command line and what they mean, as in Postfix's sendmail."""

from __future__ import annotations

import pytest

from relaygw.sendmail.arguments import (
    EX_USAGE,
    FLUSH,
    LIST,
    NOTHING,
    SMTP,
    SUBMIT,
    VERIFY,
    Arguments,
    Failure,
    parse_arguments,
)
from tests.tables import each_of


def parse(*words: str, program: str = "sendmail") -> Arguments:
    return parse_arguments(program.encode(), [word.encode() for word in words])


@each_of(
    ("words", "expected"),
    [
        (["-t"], {"has_header_recipients": True, "stops_at_dot": True}),
        (["-t", "-i"], {"has_header_recipients": True, "stops_at_dot": False}),
        (["-ti"], {"has_header_recipients": True, "stops_at_dot": False}),
        (["-it"], {"has_header_recipients": True, "stops_at_dot": False}),
        (["-oi"], {"stops_at_dot": False}),
        (["-oitrue"], {"stops_at_dot": False}),
        (["-o", "i"], {"stops_at_dot": False}),
        (["-odi", "-oem"], {"stops_at_dot": True}),
        (["-f", "a@b.test"], {"sender": b"a@b.test"}),
        (["-fa@b.test"], {"sender": b"a@b.test"}),
        (["-ra@b.test"], {"sender": b"a@b.test"}),
        (["-f", "a@b.test", "-r", "c@d.test"], {"sender": b"c@d.test"}),
        (["-f", ""], {"sender": b""}),
        (["-tfa@b.test"], {"has_header_recipients": True, "sender": b"a@b.test"}),
        ([], {"sender": None, "full_name": None}),
        (["-F", "Shop Name"], {"full_name": b"Shop Name"}),
        (["-FShop"], {"full_name": b"Shop"}),
        (["-N", "success,failure"], {"notify": b"success,failure"}),
        (["-Rhdrs"], {"ret": b"hdrs"}),
        (["-V", "id-1"], {"envid": b"id-1"}),
        (["-bs", "-i"], {"mode": SMTP}),
        (["-bm"], {"mode": SUBMIT}),
        (["-bp"], {"mode": LIST}),
        (["-bi"], {"mode": NOTHING}),
        (["-I"], {"mode": NOTHING}),
        (["-bv", "a@b.test"], {"mode": VERIFY, "addresses": [b"a@b.test"]}),
        (["-q"], {"mode": FLUSH, "queue_id": None}),
        (["-qIabc"], {"mode": FLUSH, "queue_id": b"abc"}),
    ],
)
def test_options(words: list[str], expected: dict[str, object]) -> None:
    arguments = parse(*words)
    assert {name: getattr(arguments, name) for name in expected} == expected


@each_of(
    ("words", "addresses"),
    [
        (["a@b.test", "-t"], ["a@b.test", "-t"]),
        (["-i", "--", "-t", "a@b.test"], ["-t", "a@b.test"]),
        (["-i", "-fs@b.test", "--", "a@b.test"], ["a@b.test"]),
        (["-"], ["-"]),
        (["-i", "", "a@b.test"], ["", "a@b.test"]),
        *(([f"-{letter}", "value", "a@b.test"], ["a@b.test"]) for letter in "ABCFLOXefhopr"),
        *(([f"-{letter}value", "a@b.test"], ["a@b.test"]) for letter in "ABCDFLOXdefhopr"),
        *(([f"-{letter}", "a@b.test"], ["a@b.test"]) for letter in "DGUcdimnvxzWY"),
    ],
)
def test_where_addresses_begin(words: list[str], addresses: list[str]) -> None:
    assert parse(*words).addresses == [address.encode() for address in addresses]


INERT = ["-X/tmp/log", "-C", "/tmp/evil.cf", "-OQueueDirectory=/tmp", "-D1", "-oQ/tmp", "-v", "-z"]


def test_what_means_nothing_changes_nothing() -> None:
    plain, other = parse("-t", "a@b.test"), parse(*INERT, "-t", "a@b.test")
    assert vars(plain) == vars(other)


@each_of(
    "words",
    [
        ["-bd"],
        ["-bd", "-q30m"],
        ["-bl"],
        ["-q30m"],
        ["-be"],
        ["-bt"],
        ["-b", "x"],
        ["-f"],
        ["-X"],
        ["-qRexample.test"],
    ],
)
def test_what_is_refused(words: list[str]) -> None:
    with pytest.raises(Failure) as caught:
        parse(*words)
    assert caught.value.exit_code == EX_USAGE


@pytest.mark.parametrize(
    "words",
    [["-N", "sometimes"], ["-N", "never,delay"], ["-R", "half"], ["-V", "a\nb"], ["-V", "x" * 101]],
)
def test_a_wrong_wish_for_notices_is_ignored_with_a_word(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = parse(*words, "a@b.test")
    assert (arguments.notify, arguments.ret, arguments.envid) == (None, None, None)
    assert arguments.addresses == [b"a@b.test"]
    assert capfd.readouterr().err.endswith("; it is ignored\n")


def test_a_daemon_is_asked_for_in_another_way() -> None:
    with pytest.raises(Failure, match="relaygw serve"):
        parse("-bd")


@pytest.mark.parametrize(
    ("program", "mode"),
    [
        ("sendmail", SUBMIT),
        ("relaygw-mailq", LIST),
        ("mailq", LIST),
        ("newaliases", NOTHING),
        ("relaygw-sendmail", SUBMIT),
    ],
)
def test_the_name_of_the_program(program: str, mode: str) -> None:
    assert parse(program=program).mode == mode
