from __future__ import annotations

from pathlib import Path

import pytest

from relaygw_postfix.main_cf import PostfixUnreadable, read_configuration
from relaygw_postfix.maps import Tables
from relaygw_postfix.resolve import Hop, Resolver, hop_of
from relaygw_postfix.rewriting import Rewriting
from tests.tables import each_of


def resolver(directory: Path, main: str, master: str = "") -> Resolver:
    (directory / "main.cf").write_text("myhostname = gw.example.com\nalias_maps =\n" + main)
    (directory / "master.cf").write_text(master)
    configuration = read_configuration(directory)
    return Resolver(configuration, Tables(configuration))


@each_of(
    "text, hop",
    [
        ("[smtp.x.test]:587", Hop("smtp.x.test", 587)),
        ("[Smtp.X.test]", Hop("smtp.x.test", 25)),
        ("x.test:submission", Hop("x.test", 587, is_mx=True)),
        ("x.test", Hop("x.test", 25, is_mx=True)),
        ("[10.1.1.1]:smtps", Hop("10.1.1.1", 465)),
        ("[2001:db8::1]:2525", Hop("2001:db8::1", 2525)),
        ("[ipv6:2001:db8::1]", Hop("2001:db8::1", 25)),
    ],
)
def test_next_hops(text: str, hop: Hop) -> None:
    assert hop_of(text) == hop


@each_of(
    "text", ["", "[x.test", "x.test:", "[x.test]:0", "[x.test]:99999", "[x.test]:nope", "a:b:c"]
)
def test_what_is_no_next_hop(text: str) -> None:
    with pytest.raises(ValueError, match=r"write \[HOST\]:PORT|write \[") as raised:
        hop_of(text)
    assert repr(text) in str(raised.value)


LEVELS = [
    ("", "none"),
    ("smtp_use_tls = yes\n", "may"),
    ("smtp_enforce_tls = yes\n", "verify"),
    ("smtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no\n", "encrypt"),
    ("smtp_tls_security_level = Encrypt\nsmtp_use_tls = no\n", "encrypt"),
    ("smtp_tls_security_level = may\nsmtp_tls_policy_maps = inline:{ {[x.test]:587=secure a=b} }\n",
     "secure"),
    ("smtp_tls_policy_maps = inline:{ {x.test=secure} }\n", "none"),
]  # fmt: skip


@each_of("main, level", LEVELS)
def test_levels_old_and_new(main: str, level: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        found = resolver(Path(directory), "relayhost = [x.test]:587\n" + main)
        (stop,) = found.route("a@b.test", "c@d.test").stops
        assert stop.tls == level


def test_policies_of_parent_domains_hold_for_bare_names(tmp_path: Path) -> None:
    found = resolver(tmp_path, "smtp_tls_policy_maps = inline:{ {.x.test=verify} }\n")
    assert found.tls_level("mail.x.test")[0] == "verify"
    assert found.tls_level("x.test")[0] == "none"
    assert found.tls_level("[mail.x.test]")[0] == "none"


def test_parents_of_transport_maps(tmp_path: Path) -> None:
    main = "relayhost = [r.test]\ntransport_maps = inline:{ {x.test=:[t.test]} }\n"
    found = resolver(tmp_path, main)
    assert found.route("a@b.test", "c@x.test").stops[0].hop.host == "t.test"
    assert found.route("a@b.test", "c@sub.x.test").stops[0].hop.host == "r.test"
    found = resolver(tmp_path, main + "parent_domain_matches_subdomains = transport_maps\n")
    assert found.route("a@b.test", "c@sub.x.test").stops[0].hop.host == "t.test"


def test_the_local_part_counts_for_own_domains_only(tmp_path: Path) -> None:
    main = (
        "myorigin = example.com\nrelayhost = [r.test]\nrecipient_delimiter = +\n"
        "sender_dependent_relayhost_maps = inline:{ {shop=[s.test]} }\n"
    )
    found = resolver(tmp_path, main)
    for sender, host in (
        ("shop@example.com", "s.test"),
        ("shop+tag@example.com", "s.test"),
        ("shop@other.test", "r.test"),
    ):
        assert found.route(sender, "c@d.test").stops[0].hop.host == host


def test_a_transport_that_is_nowhere_is_no_way(tmp_path: Path) -> None:
    found = resolver(tmp_path, "default_transport = promo:[x.test]\n")
    assert found.route("a@b.test", "c@d.test").fate == "given to a program"


def test_virtual_aliases_of_aliases(tmp_path: Path) -> None:
    main = (
        "virtual_alias_maps = inline:{ {a@x.test=b@x.test, c@x.test},\n"
        " {b@x.test=b@x.test d@x.test}, {c@x.test=e@x.test}, {@y.test=@x.test} }\n"
    )
    rewriting = Rewriting(resolver(tmp_path, main))
    assert rewriting.final_recipients("a@x.test") == ["b@x.test", "d@x.test", "e@x.test"]
    assert rewriting.final_recipients("c@y.test")[0] == "e@x.test"
    assert rewriting.final_recipients("z@x.test") == ["z@x.test"]


def test_aliases_that_multiply_end(tmp_path: Path) -> None:
    main = "virtual_alias_maps = inline:{ {@x.test=a@x.test, b@x.test, c@x.test, d@x.test} }\n"
    with pytest.raises(PostfixUnreadable, match="leads through a loop of virtual aliases"):
        Rewriting(resolver(tmp_path, main)).final_recipients("e@x.test")
