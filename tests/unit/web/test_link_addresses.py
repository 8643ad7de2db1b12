"""What a link check never reaches, and what an answer of spamd may be."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.web.sandbox import link_check
from relaygw.web.sandbox.link_check import check_links, is_own, is_public
from relaygw.web.sandbox.spamd import MAX_RULES, read_answer
from tests.tables import each_of

INSIDE = (
    *("127.0.0.1", "10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fd00::1"),
    *("fe80::1%eth0", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
    *("2002:7f00:1::", "::127.0.0.1", "nothing"),
    *("192.0.0.192", "168.63.129.16", "fec0::1", "::ffff:168.63.129.16", "64:ff9b::c000:c0"),
)
OUTSIDE = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@each_of(
    "address, expected", [(each, False) for each in INSIDE] + [(each, True) for each in OUTSIDE]
)
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(address) is expected


async def test_an_address_of_this_host_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_check, "is_public", lambda _: True)
    with socket.create_server(("127.0.0.1", 0)) as own:
        (found,) = await check_links([f"http://127.0.0.1:{own.getsockname()[1]}/"], allowed=[])
    assert "inside this network" in found.text
    assert [is_own(one) for one in ("127.0.0.1", "8.8.8.8")] == [True, False]


REFUSED = {
    "http://127.0.0.1:8080/": "inside this network",
    "http://localhost/": "inside this network",
    "http://2130706433/": "inside this network",
    "http://0x7f.1/": "inside this network",
    "http://[::ffff:7f00:1]/": "inside this network",
    "http://169.254.169.254/latest/meta-data": "inside this network",
    "http://127.0.0.1:25/": "port 25 is not a web port",
    "http://127.0.0.1:0/": "inside this network",
    "http://u@127.0.0.1/": "user name or password",
    "ftp://127.0.0.1/": "not an http or https address",
    "file:///etc/passwd": "not an http or https address",
    "http://": "not an http or https address",
    "http://[::1": "not a complete address",
    "http://a:b:c/": "not a complete address",
    "http://x.invalid/": "no such host",
    "http://" + "a" * 70 + ".test/": "no such host",
    "http://a/" + "b" * 5000: "not an http or https address",
}


@pytest.mark.usefixtures("is_unknown")
async def test_what_is_not_visited() -> None:
    found = {one.url: one for one in await check_links(REFUSED, allowed=["shop.internal"])}
    for url, why in REFUSED.items():
        assert (found[url].status, why in found[url].text) == (0, True), found[url]


SPAM = b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.5 / 5.0\r\n\r\n"


def test_answers_of_spamd() -> None:
    score = read_answer(SPAM + b"---- ----\n" + b" 1.0 RULE_X  text\n" * (MAX_RULES + 5))
    assert score is not None
    assert (score.is_spam, score.score, score.limit) == (False, -1.5, 5.0)
    assert len(score.rules) == MAX_RULES
    assert read_answer(b"SPAMD/1.1 76 EX_PROTOCOL\r\n\r\n") is None
    assert read_answer(b"SPAMD/1.1 0 EX_OK\r\n\r\n") is None
    endless = b"9" * 400  # more than a float has
    assert read_answer(SPAM.replace(b"-1.5", endless)) is None
    assert read_answer(SPAM.replace(b"5.0", endless)) is None
    told = read_answer(SPAM + b"---- ----\n " + endless + b" RULE_X  text\n")
    assert told is not None
    assert told.rules == ()
    # words before the table that look like a rule are none
    told = read_answer(SPAM + b" 9.9 BUY_NOW said the mail\n---- ----\n 0.1 REAL_ONE  x\n")
    assert told is not None
    assert [one.name for one in told.rules] == ["REAL_ONE"]


@given(st.lists(st.sampled_from([
    b"SPAMD/1.1 0 EX_OK", b"\r\n", b"\r\n\r\n", b"Spam: True ; 1.0 / 5.0", b"Spam: ; /", b"\xff",
    b"Spam: True ; 99999999999999999999 / -5", b"----\n", b" 1.0 RULE x\n", b" " * 20, b"\n", b"a",
])).map(b"".join))  # fmt: skip
def test_no_answer_raises(answer: bytes) -> None:
    read_answer(answer)
