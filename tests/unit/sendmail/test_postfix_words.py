"""What words of postqueue and postsuper become: commands of relaygw."""

from __future__ import annotations

import pytest

from relaygw.sendmail.arguments import EX_USAGE, Failure
from relaygw.sendmail.queue import gateway_words, is_listing
from tests.tables import each_of


@each_of(
    ("line", "calls"),
    [
        ("postqueue -p", ["queue list --mailq"]),
        ("postqueue -vp", ["queue list --mailq"]),
        ("postqueue -j", ["queue list --postfix-json"]),
        ("postqueue -f", ["queue flush"]),
        ("postqueue -i ABC", ["queue flush ABC"]),
        ("postqueue -iABC", ["queue flush ABC"]),
        ("postqueue -s example.com", ["queue flush --recipient @example.com"]),
        ("postsuper -d ABC", ["queue delete ABC --yes"]),
        ("postsuper -d -", ["queue delete - --yes"]),
        ("postsuper -d ALL", ["queue delete --all --yes"]),
        ("postsuper -d ALL deferred", ["queue delete --state deferred --yes"]),
        (
            "postsuper -d ALL hold incoming",
            ["queue delete --state held --state incoming --yes"],
        ),
        (
            "postsuper -d ABC -h DEF -vH GHI",
            ["queue delete ABC --yes", "queue hold DEF --yes", "queue release GHI --yes"],
        ),
        ("postsuper -r ALL", ["queue retry --all --yes"]),
        ("postsuper -e ABC -f DEF", ["queue expire ABC --yes", "queue expire DEF --yes"]),
        ("postsuper -ps", []),
    ],
)
def test_what_is_run(line: str, calls: list[str]) -> None:
    program, *words = line.split()
    assert [" ".join(one) for one in gateway_words(program.encode(), words)] == calls


@each_of(
    ("line", "problem"),
    [
        ("postqueue", "use -p, -j, -f, -i ID or -s SITE"),
        ("postqueue -p more", "use -p"),
        ("postqueue -i", "option -i needs a value"),
        ("postqueue -c /etc/postfix -p", "-c is not supported; use -p"),
        ("postsuper", "use -d, -e"),
        ("postsuper -d", "option -d needs a value"),
        ("postsuper -d ALL corrupt", "no queue of the name 'corrupt'; there are active, deferred"),
    ],
)
def test_what_is_refused(line: str, problem: str) -> None:
    program, *words = line.split()
    with pytest.raises(Failure, match=problem) as caught:
        gateway_words(program.encode(), words)
    assert caught.value.exit_code == EX_USAGE


def test_a_listing_is_asked_of_the_front_as_by_mailq() -> None:
    assert is_listing(b"postqueue", ["-p"])
    assert not is_listing(b"postqueue", ["-j"])
    assert not is_listing(b"postsuper", ["-p"])
