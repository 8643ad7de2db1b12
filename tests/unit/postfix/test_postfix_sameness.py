"""The table says "same" only where all that decides is followed; else it says what is not."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relaygw_postfix.access import Access
from relaygw_postfix.lint import findings
from relaygw_postfix.main_cf import PostfixUnreadable, read_configuration
from relaygw_postfix.maps import Tables
from relaygw_postfix.resolve import Resolver
from relaygw_postfix.rewriting import Rewriting
from relaygw_postfix.sameness import Comparison, Row, pairs_of
from relaygw_postfix.translation import Translation, translate
from relaygw_postfix.written import as_yaml, check_text
from tests.tables import each_of

_BASE = (
    "compatibility_level = 3.6\nmyhostname = gw.example.com\nmydomain = example.com\n"
    "mydestination = gw.example.com\nalias_maps =\nlocal_recipient_maps =\n"
    "relayhost = [relay.test]:587\nsmtp_tls_security_level = encrypt\n"
)
_ALIASES = "alias_maps = texthash:{dir}/aliases\n"
SAME, KEPT, OTHER, UNPROVEN = "same", "sent by neither", "not the same", "not proven"


@dataclass(frozen=True)
class Case:
    main: str
    pair: tuple[str, str]  # sender, recipient
    result: str
    words: str = ""  # of what is said
    files: dict[str, str] = field(default_factory=dict)
    master: str = ""
    clients: str = "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n"


def made_of(one: Case, directory: Path) -> tuple[Translation, Rewriting]:
    for name, text in one.files.items():
        (directory / name).write_text(text.replace("{dir}", str(directory)))
    (directory / "main.cf").write_text((_BASE + one.main).replace("{dir}", str(directory)))
    master = (one.master or "smtp inet n - n - - smtpd\n") + one.clients
    (directory / "master.cf").write_text(master)
    configuration = read_configuration(directory)
    rewriting = Rewriting(Resolver(configuration, Tables(configuration)))
    return translate(rewriting, Path("/etc/relaygw/secrets")), rewriting


def rows_of(made: Translation, rewriting: Rewriting, pairs: list[tuple[str, str]]) -> list[Row]:
    settings = check_text(as_yaml(made.values)).settings
    return list(Comparison(rewriting, settings, made.secrets).rows(pairs))


_A, _B = "a@shop.test", "b@cust.test"
_MAIL = (_A, _B)
_LOGIN = (
    "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = inline:{[relay.test]:587=u:p}\n"
    "smtp_sasl_security_options = noanonymous\n"
)


def access(*entries: str) -> str:
    rows = ", ".join(f"{{{one}}}" for one in entries)
    return f"smtpd_recipient_restrictions = check_recipient_access inline:{{ {rows} }}\n"


CASES = {
    "nothing": Case("", _MAIL, SAME),
    # what aliases name beside addresses
    "include": Case(_ALIASES, (_A, "list@gw.example.com"), SAME, "[relay.test]:587",
                    {"aliases": "list: :include:{dir}/members\n", "members": "# us\nc@d.test\n"}),
    "include-several": Case(_ALIASES, (_A, "list@gw.example.com"), SAME, "",
                            {"aliases": "list: :include:{dir}/members\n",
                             "members": "c@d.test, e@f.test\n"}),
    "include-unread": Case(_ALIASES, (_A, "list@gw.example.com"), UNPROVEN, ":include:/no/such",
                           {"aliases": "list: :include:/no/such\n"}),
    "program": Case(_ALIASES, (_A, "list@gw.example.com"), KEPT, "given to a program |/bin/p a, b",
                    {"aliases": 'list: "|/bin/p a, b"\n'}),
    "program-and-address": Case(_ALIASES, (_A, "list@gw.example.com"), OTHER, "to |/bin/p as well",
                                {"aliases": "list: c@d.test, |/bin/p\n"}),
    "file-and-address": Case(_ALIASES, (_A, "list@gw.example.com"), OTHER, "to /var/x as well",
                             {"aliases": "list: /var/x, c@d.test\n"}),
    "itself-and-address": Case(_ALIASES, (_A, "list@gw.example.com"), OTHER, "as well",
                               {"aliases": "list: \\list, c@d.test, list\n"}),
    "owner": Case(_ALIASES, (_A, "list@gw.example.com"), UNPROVEN, "owner-list becomes the sender",
                  {"aliases": "list: c@d.test\nowner-list: e@d.test\n"}),
    # which addresses are mapped
    "header-only": Case("sender_canonical_maps = inline:{a@shop.test=c@shop.test}\n"
                        "sender_canonical_classes = header_sender\n", _MAIL, OTHER,
                        "From of the header c@shop.test at Postfix"),
    "envelope-only": Case("sender_canonical_maps = static:c@shop.test\n"
                          "sender_canonical_classes = envelope_sender\n", _MAIL, SAME),
    "null-sender-static": Case("sender_canonical_maps = static:c@shop.test\n", ("", _B), SAME),
    "null-sender-pattern": Case("sender_canonical_maps = regexp:{ {/.+/ c@shop.test} }\n",
                                ("", _B), SAME),
    "null-sender-kept": Case("sender_canonical_maps = regexp:{ {/@/ c@shop.test} }\n",
                             ("", _B), SAME),
    "from-replaced": Case("smtp_header_checks = regexp:{ {/^From:/ REPLACE From: x@y.test} }\n",
                          _MAIL, OTHER, "From of the header x@y.test at Postfix"),
    "from-replaced-alike": Case(
        "smtp_header_checks = regexp:{ {/^From:/ REPLACE From: x@y.test} }\n"
        "sender_canonical_maps = static:x@y.test\n", _MAIL, SAME),
    "closed": Case("smtpd_relay_restrictions =\n", _MAIL, OTHER, "smtpd stops"),
    "closed-by-age": Case("compatibility_level = 0\n", _MAIL, OTHER, "compatibility_level 0"),
    "guarded-by-a-class": Case(
        "smtpd_relay_restrictions = permit_mynetworks, guarded\n"
        "smtpd_restriction_classes = guarded\nguarded = reject_unauth_destination\n",
        _MAIL, SAME),
    "no-mappings": Case("virtual_alias_maps = inline:{b@cust.test=c@cust.test}\n"
                        "receive_override_options = no_address_mappings\n", _MAIL, SAME),
    "some-mappings": Case("virtual_alias_maps = inline:{b@cust.test=c@cust.test}\n", _MAIL,
                          UNPROVEN, "receive_override_options",
                          master="smtp inet n - n - - smtpd\npickup unix n - n 60 1 pickup\n"
                          "  -o receive_override_options=no_address_mappings\n"),
    "bcc": Case("always_bcc = archive@x.test\n", _MAIL, SAME),
    "bcc-mailbox": Case("always_bcc = archive\n", _MAIL, OTHER, "archive@gw.example.com as well"),
    "aliases-without-local": Case(_ALIASES + "local_transport = error:none here\n",
                                  (_A, "list@gw.example.com"), SAME, "refused: none here",
                                  files={"aliases": "list: b@cust.test\n"}),
    "bcc-of-a-local-user": Case(
        "always_bcc = archive@x.test\nlocal_recipient_maps = unix:passwd.byname\n",
        (_A, "nouser@gw.example.com"), UNPROVEN,
        "local_recipient_maps: nouser@gw.example.com may be unknown, and refused without any copy"),
    "bcc-of-a-mailbox": Case(
        "always_bcc = archive@x.test\nvirtual_mailbox_domains = box.test\n"
        "virtual_mailbox_maps = inline:{u@box.test=u/}\n", (_A, "v@box.test"), UNPROVEN,
        "virtual_mailbox_maps: v@box.test may be unknown, and refused without any copy"),
    "recipient-bcc": Case("recipient_bcc_maps = inline:{@cust.test=c@x.test}\n", _MAIL, OTHER,
                          "c@x.test as well"),
    "extension": Case("recipient_delimiter = +\nvirtual_alias_maps = inline:{\n"
                      " {b@cust.test=c@d.test}, {@cust.test=c@d.test} }\n",
                      (_A, "b+x@cust.test"), OTHER, "c+x@d.test"),
    # who is not known
    "luser-relay": Case("luser_relay = c@d.test\n", (_A, "relaygw-sample@gw.example.com"), SAME),
    "luser-relay-user": Case("luser_relay = c@d.test\n", (_A, "nobody@gw.example.com"), UNPROVEN,
                             "luser_relay: only if nobody is not a user"),
    "luser-relay-unreached": Case("luser_relay = c@d.test\nlocal_recipient_maps = static:x\n",
                                  (_A, "x@gw.example.com"), UNPROVEN, "luser_relay"),
    "fallback-transport": Case("fallback_transport = smtp:[other.test]\n",
                               (_A, "x@gw.example.com"), UNPROVEN, "fallback_transport"),
    "relay-recipients": Case("relay_domains = cust.test\n"
                             "relay_recipient_maps = inline:{c@cust.test=x}\n", _MAIL, OTHER,
                             "unknown in relay_recipient_maps"),
    "relay-recipient": Case("relay_domains = cust.test\n"
                            "relay_recipient_maps = inline:{b@cust.test=x}\n", _MAIL, SAME),
    "unlisted": Case("smtpd_recipient_restrictions = reject_unlisted_recipient\n", _MAIL, SAME),
    "unlisted-alone": Case("smtpd_recipient_restrictions = reject_unlisted_recipient\n"
                           "smtpd_reject_unlisted_recipient = no\n", _MAIL, UNPROVEN,
                           "reject_unlisted_recipient is not supported"),
    "virtual-domain": Case("virtual_alias_domains = cust.test\n"
                           "virtual_alias_maps = inline:{c@cust.test=c@d.test}\n", _MAIL, KEPT,
                           "User unknown"),
    "virtual-mailbox": Case("virtual_mailbox_domains = cust.test\n", _MAIL, KEPT, "mailbox"),
    "virtual-transport": Case("virtual_mailbox_domains = cust.test\n"
                              "virtual_transport = smtp:[in.test]\n", _MAIL, SAME, "in.test"),
    "relocated": Case("relocated_maps = inline:{b@cust.test=c@d.test}\n", _MAIL, KEPT, "has moved"),
    # who is refused
    "sender-refused": Case("smtpd_sender_restrictions = check_sender_access "
                           "inline:{shop.test=REJECT}\n", _MAIL, OTHER, "shop.test REJECT"),
    "sender-list": Case("smtpd_sender_restrictions = check_sender_access inline:{shop.test=OK},\n"
                        "  reject\n", _MAIL, SAME),
    "not-on-sender-list": Case("smtpd_sender_restrictions = check_sender_access\n"
                               "  inline:{shop.test=OK}, reject\n", ("x@y.test", _B), OTHER),
    "unknown-domain": Case("smtpd_sender_restrictions = reject_unknown_sender_domain\n", _MAIL,
                           UNPROVEN, "reject_unknown_sender_domain is not supported"),
    "behind-permission": Case("smtpd_sender_restrictions = permit_mynetworks,\n"
                              "  reject_unknown_sender_domain\n", _MAIL, SAME),
    "policy": Case("smtpd_recipient_restrictions = check_policy_service unix:private/p\n", _MAIL,
                   UNPROVEN, "check_policy_service"),
    "only-warned": Case("smtpd_recipient_restrictions = warn_if_reject reject\n", _MAIL, SAME),
    "relaying-refused": Case("smtpd_relay_restrictions = reject_unauth_destination\n", _MAIL, KEPT,
                             "reject_unauth_destination"),
    "short-name-refused": Case("append_dot_mydomain = yes\nsmtpd_recipient_restrictions = "
                               "reject_non_fqdn_recipient\n", (_A, "b@mail"), OTHER, "non_fqdn"),
    "postmaster-alone": Case("smtpd_recipient_restrictions = reject_non_fqdn_recipient\n"
                             "myorigin = x.test\nlocal_header_rewrite_clients =\n",
                             (_A, "postmaster"), SAME),
    "greeting": Case("smtpd_helo_restrictions = reject_non_fqdn_helo_hostname,\n"
                     "  reject_invalid_hostname, reject_unknown_helo_hostname, permit\n", _MAIL,
                     SAME),
    "client-name": Case("smtpd_client_restrictions = permit_mynetworks,\n"
                        "  reject_unknown_client_hostname\n", _MAIL, SAME),
    "class-of-entry": Case(access("cust.test=permit_mynetworks", "d.test=reject") , _MAIL, SAME),
    "hold": Case(access("cust.test=HOLD"), _MAIL, KEPT, "held for all its recipients"),
    "hold-sender": Case("smtpd_sender_restrictions = check_sender_access static:HOLD\n", _MAIL,
                        KEPT, "held"),
    "discard": Case(access("cust.test=DISCARD"), _MAIL, KEPT, "discarded for all its recipients"),
    "redirect": Case(access("cust.test=REDIRECT d@e.test"), _MAIL, OTHER, "to another address"),
    "client-list": Case("smtpd_client_restrictions = check_client_access inline:{127.0.0.1=OK},\n"
                        "  reject\n", _MAIL, UNPROVEN, "check_client_access is not supported"),
    "filter": Case(access("cust.test=FILTER smtp:[x.test]"), _MAIL, OTHER, "given to a filter"),
    "prepend": Case(access("cust.test=PREPEND X-A: b"), _MAIL, OTHER, "adds a header field: X-A"),
    "access-bcc": Case(access("cust.test=BCC c@d.test"), _MAIL, OTHER, "sends a copy: c@d.test"),
    "extension-refused": Case("recipient_delimiter = +\n" + access("b@=REJECT"),
                              (_A, "b+x@cust.test"), OTHER, "b@ REJECT"),
    "extension-of-blocked": Case("recipient_delimiter = +\n" + access("b@cust.test=REJECT"),
                                 (_A, "b+x@cust.test"), OTHER, "b@cust.test REJECT"),
    # what form an address has
    "no-domain": Case("append_dot_mydomain = yes\n", (_A, "b@mail"), OTHER, "b@mail.example.com"),
    "no-myorigin": Case("append_at_myorigin = no\n", (_A, "b"), UNPROVEN, "append_at_myorigin"),
    "percent": Case("", (_A, "b%c.test@cust.test"), UNPROVEN, "allow_percent_hack"),
    # what depends on the content, or by programs
    "milter": Case("smtpd_milters = inet:localhost:8891\n", _MAIL, UNPROVEN,
                   "main.cf:9: smtpd_milters: a milter may"),
    "filter-at-door": Case("", _MAIL, UNPROVEN, "master.cf:1: content_filter",
                           master="smtp inet n - n - - smtpd -o content_filter=x:\n"),
    "header-checks": Case("header_checks = regexp:{dir}/h\n", _MAIL, UNPROVEN,
                          "h:1: header_checks: REDIRECT", {"h": "/^To:/ REDIRECT c@d.test\n"}),
    "header-checks-that-log": Case("header_checks = regexp:{dir}/h\n", _MAIL, SAME, "",
                                   {"h": "/^Subject:/ INFO\n/^X-Y:/ IGNORE\n"}),
    "inner-override": Case("", _MAIL, UNPROVEN, "transport_maps: is set for rewrite",
                           master="smtp inet n - n - - smtpd\nrewrite unix - - n - - "
                           "trivial-rewrite -o transport_maps=static:x\n"),
    "pipe": Case("transport_maps = inline:{cust.test=mlist:}\n", _MAIL, UNPROVEN,
                 "transport mlist: a program may send it on",
                 clients="smtp unix - - n - - smtp\nmlist unix - n n - - pipe user=x\n"),
    "sender-without-domain": Case("", ("www-data", _B), OTHER,
                                  "From of the header www-data@gw.example.com at Postfix, www-data "
                                  "at relaygw"),
    "recipient-without-domain": Case("myorigin = shop.test\n", (_A, "bob"), OTHER,
                                     "To of the header bob@shop.test at Postfix, bob at relaygw"),
    "header-of-others": Case("local_header_rewrite_clients =\n", ("www-data", _B), SAME),
    # which hops
    "hop-twice": Case("smtp_fallback_relay = $relayhost\n", _MAIL, SAME, "[relay.test]:587"),
    "hop-and-another": Case("smtp_fallback_relay = [spare.test]:587\n", _MAIL, SAME, ", then"),
    # what Postfix's client cannot work with
    "no-password-map": Case("smtp_sasl_auth_enable = yes\n", _MAIL, OTHER, "main.cf:9: smtp_sasl_"
                            "auth_enable: Postfix refuses to run without smtp_sasl_password_maps"),
    "no-password-map-of-transport": Case(
        "", _MAIL, OTHER, "master.cf:2: smtp_sasl_auth_enable: Postfix refuses",
        clients="smtp unix - - n - - smtp -o smtp_sasl_auth_enable=yes\n"),
    "key-twice": Case("transport_maps = texthash:{dir}/t\n", _MAIL, OTHER, "t:2: d.test exists",
                      {"t": "d.test smtp:[x.test]\nd.test smtp:[y.test]\n"}),
    "key-twice-inline": Case("transport_maps = inline:{cust.test=smtp:[x.test], "
                             "cust.test=smtp:[y.test]}\n", _MAIL, SAME, "[y.test]:25"),
    "no-index": Case("transport_maps = hash:{dir}/t\n", _MAIL, UNPROVEN, "t.db: is not there",
                     {"t": "d.test smtp:[x.test]\n"}),
    "no-index-of-access": Case("smtpd_sender_restrictions = check_sender_access hash:{dir}/t\n",
                               _MAIL, UNPROVEN, "t.db: is not there", {"t": "d.test REJECT\n"}),
    "no-index-of-list": Case("relay_domains = hash:{dir}/t\n", _MAIL, UNPROVEN,
                             "t.db: is not there", {"t": "d.test x\n"}),
    "no-index-of-copies": Case("recipient_bcc_maps = hash:{dir}/t\n", _MAIL, UNPROVEN,
                               "t.db: is not there", {"t": "d.test x\n"}),
    "no-authorities": Case("smtp_tls_policy_maps = inline:{[relay.test]:587=secure}\n", _MAIL,
                           OTHER, "TLS level secure without smtp_tls_CAfile"),
    "no-authorities-old": Case("smtp_tls_security_level =\nsmtp_enforce_tls = yes\n", _MAIL,
                               OTHER, "TLS level verify without smtp_tls_CAfile"),
    "anchor-of-policy": Case("smtp_tls_policy_maps = inline:{ {[relay.test]:587 = secure "
                             "tafile=/x} }\n", _MAIL, SAME),
    "default-authorities": Case("smtp_tls_security_level = verify\ntls_append_default_CA = yes\n",
                                _MAIL, SAME),
    "authorities-gone": Case("smtp_tls_CAfile = /no/such\n", _MAIL, UNPROVEN, "/no/such is not"),
    "no-mechanism": Case(_LOGIN + "smtp_sasl_mechanism_filter = digest-md5\n", _MAIL, OTHER,
                         "digest-md5 leaves no way to log in"),
    "some-mechanisms": Case(_LOGIN + "smtp_sasl_mechanism_filter = !gssapi, static:rest\n", _MAIL,
                            UNPROVEN, "smtp_sasl_mechanism_filter: its result"),
    "plain-mechanism": Case(_LOGIN + "smtp_sasl_mechanism_filter = PLAIN\n", _MAIL, SAME),
    "other-sasl": Case(_LOGIN + "smtp_sasl_type = dovecot\n", _MAIL, OTHER, "by cyrus only"),
    "empty-password": Case(_LOGIN.replace("u:p", "u:"), _MAIL, OTHER, "u has no password"),
    "user-alone": Case(_LOGIN.replace("u:p", "u"), _MAIL, OTHER, "u has no password"),
    "no-service": Case("", _MAIL, OTHER, "there is no service smtp", clients="relay unix - - n - - "
                       "smtp\n"),
    "other-family": Case("relayhost = [127.0.0.1]:587\n", _MAIL, OTHER, "ipv6 reaches no [127.0.",
                         clients="smtp unix - - n - - smtp -o inet_protocols=ipv6\n"),
    "unknown-level": Case("smtp_tls_security_level = encrpyt\n", _MAIL, OTHER,
                          "main.cf:9: encrpyt is not a TLS level"),
    "unknown-level-of-policy": Case("smtp_tls_policy_maps = inline:{[relay.test]:587=encrpyt}\n",
                                    _MAIL, OTHER, "main.cf:9: encrpyt is not a TLS level"),
    "unread-list": Case("relay_domains = mysql:/x\n", _MAIL, UNPROVEN, "relay_domains: cannot be"),
    # patterns that name nobody
    "unnamed-sender": Case("sender_dependent_relayhost_maps = regexp:{dir}/s\n",
                           ("relaygw-sample@relaygw-sample.invalid", _B), UNPROVEN, "s:1:",
                           {"s": "/^shop[0-9]+@/ [other.test]:587\n"}),
    "local-part-at-any-domain": Case("smtp_generic_maps = regexp:{dir}/g\n",
                                     ("relaygw-sample@relaygw-sample.invalid",
                                      "relaygw-sample@relaygw-sample.invalid"), SAME, "",
                                     {"g": "/^www-data@.*$/ c@shop.test\n"}),
    "local-part-rewritten": Case("smtp_generic_maps = regexp:{dir}/g\n",
                                 ("www-data@any.test", "www-data@other.test"), SAME, "",
                                 {"g": "/^www-data@.*$/ c@shop.test\n"}),
    "local-part-that-keeps-its-domain": Case(
        "smtp_generic_maps = regexp:{dir}/g\n",
        ("www-data@relaygw-sample.invalid", _B), OTHER, "sender shop@relaygw-sample.invalid",
        {"g": "/^www-data@(.*)$/ shop@$1\n"}),
    "local-part-on-a-way": Case("sender_dependent_relayhost_maps = regexp:{dir}/s\n",
                                ("relaygw-sample@relaygw-sample.invalid", _B), UNPROVEN, "s:1:",
                                {"s": "/^www-data@/ [other.test]:587\n"}),
    "negated-sender": Case("sender_dependent_relayhost_maps = regexp:{dir}/s\n", _MAIL, SAME,
                           "[relay.test]:587", {"s": "!/@shop\\.test$/ [other.test]:587\n"}),
    "other-than-negated": Case("sender_dependent_relayhost_maps = regexp:{dir}/s\n",
                               ("relaygw-sample@relaygw-sample.invalid", _B), SAME,
                               "[other.test]:587", {"s": "!/@shop\\.test$/ [other.test]:587\n"}),
}  # fmt: skip


@each_of("name", list(CASES))
def test_what_is_said_of_a_mail(name: str) -> None:
    one = CASES[name]
    with tempfile.TemporaryDirectory() as directory:
        (row,) = rows_of(*made_of(one, Path(directory)), [one.pair])
    assert (row.result, one.words in f"{row.postfix} {row.why}") == (one.result, True), row


def test_a_next_hop_without_a_provider_is_told(tmp_path: Path) -> None:
    made, rewriting = made_of(Case(CASES["hop-and-another"].main, _MAIL, ""), tmp_path)
    made.values["routes"][0]["providers"].pop()
    (row,) = rows_of(made, rewriting, [_MAIL])
    assert row.result == OTHER
    assert row.why.startswith("2 next hops at Postfix, 1 provider at relaygw")


def test_everybodys_mail_to_another_address_is_staging(tmp_path: Path) -> None:
    redirecting = "smtpd_recipient_restrictions = check_recipient_access static:{REDIRECT d@a.test}"
    made, rewriting = made_of(Case(redirecting + "\n", _MAIL, ""), tmp_path)
    assert made.values["mode"] == "staging"
    assert made.values["recipients"] == {"allow": ["d@a.test"], "refused": "redirect:d@a.test"}
    rows = rows_of(made, rewriting, pairs_of(made))
    assert {row.result for row in rows} == {OTHER}
    assert all("sent to another address" in row.why for row in rows)


@each_of("transport", ["error:closed", "error:5.1.2 mail is closed", "retry:later", "discard:"])
def test_a_lock_by_default_transport_is_staging(transport: str, tmp_path: Path) -> None:
    main = f"default_transport = {transport}\n"
    made, rewriting = made_of(Case(main, _MAIL, ""), tmp_path)
    assert (made.values["mode"], made.values["recipients"]["allow"]) == ("staging", [])
    assert OTHER not in {row.result for row in rows_of(made, rewriting, pairs_of(made))}
    main += "relayhost =\ntransport_maps = inline:{ {cust.test = smtp:[x.test]:587} }\n"
    made, rewriting = made_of(Case(main, _MAIL, ""), tmp_path)
    assert made.values["mode"] == "staging"
    assert made.values["recipients"]["allow"] == ["@cust.test"]
    assert [one["providers"] for one in made.values["routes"]] == [["x-test"]]
    assert OTHER not in {row.result for row in rows_of(made, rewriting, pairs_of(made))}
    assert not [one for one in made.report.warnings if "takes the default route" in one]


def test_the_service_retry_defers(tmp_path: Path) -> None:
    services = "smtp inet n - n - - smtpd\nretry unix - - n - - error\nerror unix - - n - - error\n"
    for transport, words in (("retry:paused", "deferred"), ("error:closed", "refused")):
        main = f"relayhost = [x.test]:587\ntransport_maps = inline:{{ cust.test={transport} }}\n"
        made, rewriting = made_of(Case(main, (_A, "b@cust.test"), "", master=services), tmp_path)
        (row,) = rows_of(made, rewriting, [(_A, "b@cust.test")])
        assert words in row.postfix, row
        is_told = any("relaygw hold add" in text for text in made.report.warnings)
        assert is_told is (words == "deferred")


_CLIENTS = "check_client_access inline:{127.0.0.1=OK}"


def test_no_lock_is_made_of_what_is_not_followed(tmp_path: Path) -> None:
    main = f"smtpd_client_restrictions = {_CLIENTS}, reject\n"
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    assert made.values["mode"] == "production"
    assert "allow" not in made.values["recipients"]
    assert any("set mode: staging if nobody may receive" in one for one in made.report.warnings)
    # a list of recipients behind it is followed
    recipients = "check_recipient_access inline:{cust.test=OK}, reject\n"
    main += f"smtpd_recipient_restrictions = {recipients}"
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    assert made.values["mode"] == "staging"
    assert made.values["recipients"] == {"allow": ["@cust.test"]}
    main = f"smtpd_recipient_restrictions = {_CLIENTS}, {recipients}"
    with pytest.raises(PostfixUnreadable, match="whether only listed recipients receive"):
        made_of(Case(main, _MAIL, ""), tmp_path)


def test_an_unknown_level_of_tls_is_found(tmp_path: Path) -> None:
    main = (
        "smtp_tls_security_level = encrpyt\nsmtp_tls_policy_maps = inline:{[other.test]=secrue}\n"
    )
    _, rewriting = made_of(Case(main, _MAIL, ""), tmp_path)
    found = [(one.place, one.postfix) for one in findings(rewriting) if "level" in one.rule]
    assert found == [("main.cf:9", "is it encrypt?"), ("main.cf:10", "is it secure?")]


def test_an_empty_password_is_told(tmp_path: Path) -> None:
    made, _ = made_of(Case(_LOGIN.replace("u:p", "u:"), _MAIL, ""), tmp_path)
    assert any("u has no password, and relaygw refuses" in one for one in made.report.warnings)


def test_a_password_behind_a_pattern_is_not_called_unused(tmp_path: Path) -> None:
    files = {
        "s": "!/^shop[0-9]+@/ [b.test]:587\n",
        "p": "[relay.test]:587 u:p\n[b.test]:587 v:q\n[gone.test]:587 w:r\n",
    }
    main = (
        "sender_dependent_relayhost_maps = regexp:{dir}/s\nsmtp_sasl_auth_enable = yes\n"
        "smtp_sasl_password_maps = texthash:{dir}/p\nsmtp_sasl_security_options = noanonymous\n"
    )
    _, rewriting = made_of(Case(main, _MAIL, "", files=files), tmp_path)
    unused = [one.problem for one in findings(rewriting) if one.rule == "unused-password"]
    assert unused == ["no mail goes to [gone.test]:587"]


def test_mail_of_this_hosts_own_programs_is_in_the_table(tmp_path: Path) -> None:
    main = "sender_dependent_relayhost_maps = regexp:{dir}/s\nmyorigin = shop.test\n"
    files = {"s": "/@shop\\.test$/ [own.test]:587\n"}
    made, _ = made_of(Case(main, _MAIL, "", files=files), tmp_path)
    assert ("relaygw-sample@shop.test", "relaygw-sample@relaygw-sample.invalid") in pairs_of(made)


def test_what_copies_are_made_of_is_in_the_table(tmp_path: Path) -> None:
    main = (
        "sender_bcc_maps = regexp:{dir}/s\n"
        "recipient_bcc_maps = inline:{bob=c@x.test, d@e.test=c@x.test, @f.test=c@x.test}\n"
    )
    files = {"s": "/@copied\\.test$/ c@x.test\n/^ab[0-9]+@/ y@x.test\n"}
    made, rewriting = made_of(Case(main, _MAIL, "", files=files), tmp_path)
    pairs = pairs_of(made)
    assert "relaygw-sample@copied.test" in {sender for sender, _ in pairs}
    assert {recipient for _, recipient in pairs} >= {
        "bob@gw.example.com", "d@e.test", "relaygw-sample@f.test",
    }  # fmt: skip
    rest = "relaygw-sample@relaygw-sample.invalid"
    (row,) = rows_of(made, rewriting, [(rest, rest)])
    assert (row.result, "s:2: sender_bcc_maps: /^ab[0-9]+@/ may" in row.why) == (UNPROVEN, True)
    main = "sender_bcc_maps = static:c@x.test\n"
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    assert "*" not in {sender for sender, _ in pairs_of(made)}


def test_an_address_that_stays_here_is_no_part_of_a_rule_for_its_domain(tmp_path: Path) -> None:
    main = "luser_relay = c@d.test\nalias_maps = texthash:{dir}/aliases\n"
    files = {"aliases": "trash: /dev/null\nadmin: root\nops: e@f.test\n"}
    made, rewriting = made_of(Case(main, _MAIL, "", files=files), tmp_path)
    rules = made.values["rewrite"]["recipients"]
    kept = [f"{name}@gw.example.com" for name in ("trash", "admin", "root")]
    assert [rules[address] for address in kept] == kept
    assert rules["ops@gw.example.com"] == "e@f.test"
    assert rules["@gw.example.com"] == "c@d.test"
    rows = rows_of(made, rewriting, [(_A, address) for address in kept])
    assert [row.result for row in rows] == [KEPT] * 3, rows


def test_maps_of_the_envelope_or_the_header_alone_are_told(tmp_path: Path) -> None:
    main = (
        "sender_canonical_maps = inline:{a@shop.test=c@shop.test}\n"
        "sender_canonical_classes = header_sender\n"
        "recipient_canonical_maps = inline:{b@cust.test=d@cust.test}\n"
        "recipient_canonical_classes = envelope_recipient\n"
    )
    made, rewriting = made_of(Case(main, _MAIL, ""), tmp_path)
    answer = rewriting.answer(*_MAIL)
    assert (answer.sender, answer.recipient) == (_A, "d@cust.test")
    assert made.values["rewrite"] == {
        "default_domain": "gw.example.com",
        "recipients": {"b@cust.test": "d@cust.test"},
    }
    said = "\n".join(made.report.warnings)
    assert "main.cf:10: sender_canonical_classes: Postfix maps the senders of the header" in said
    assert "recipient_canonical_classes" not in said  # rewrite.header leaves the header's alone


def test_no_mappings_at_the_door_are_told(tmp_path: Path) -> None:
    main = "virtual_alias_maps = inline:{b@cust.test=d@cust.test}\n"
    master = "smtp inet n - n - - smtpd -o receive_override_options=no_address_mappings\n"
    made, rewriting = made_of(Case(main, _MAIL, "", master=master), tmp_path)
    assert rewriting.answer(*_MAIL).recipient == _B
    assert "recipients" not in made.values["rewrite"]
    assert any("so the maps are not imported" in one for one in made.report.warnings)


def test_addresses_with_extensions_are_not_blocked_and_that_is_told(tmp_path: Path) -> None:
    main = "recipient_delimiter = +\n" + access("b@cust.test=REJECT")
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    assert any("such as user+text@domain" in one for one in made.report.warnings)


def test_long_lists_of_senders_and_recipients_are_not_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ", ".join(f"{{u{n}@d{n}.test=REJECT}}" for n in range(30))
    main = (
        f"smtpd_sender_restrictions = check_sender_access inline:{{ {rows}, {{ok.test=OK}} }}\n"
        f"smtpd_recipient_restrictions = check_recipient_access inline:{{ {rows} }}\n"
    )
    judged = []
    really = Access.judge
    monkeypatch.setattr(Access, "judge", lambda *mail: judged.append(mail) or really(*mail))
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    assert len(judged) <= 2 * len(made.routing.recipients)


def test_ports_with_restrictions_of_their_own_are_told(tmp_path: Path) -> None:
    main = "mynetworks = 127.0.0.0/8\n"
    master = (
        "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n"
        "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject -o syslog_name=x\n"
    )
    made, _ = made_of(Case(main, _MAIL, "", master=master), tmp_path)
    told = [one for one in made.report.warnings if "submission" in one]
    assert told == [
        "master.cf:2: submission: Postfix takes mail here only of users who log in; its listener "
        "takes mail of 127.0.0.0/8 without a login and of nobody else; write users (relaygw users "
        "hash), and auth: required into this listener",
        "master.cf:2: submission: its own smtpd_recipient_restrictions: not imported; the lists, "
        "and the table of sameness, are those of smtp",
    ]


def test_actions_of_access_tables_are_told(tmp_path: Path) -> None:
    main = (
        "smtpd_sender_restrictions = check_sender_access inline:{a.test=REJECT, b.test=HOLD}\n"
        + access("c.test=", "d.test=FILTER x:", "e.test=REJECT")
    )
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    told = [one for one in made.report.warnings if one.startswith("main.cf:")]
    assert [one.partition("; ")[0] for one in told if "is not imported" in one] == [
        "main.cf:9: smtpd_sender_restrictions: check_sender_access is not imported",
        "main.cf:10: c.test: an empty action is not imported",
        "main.cf:10: d.test: FILTER is not imported",
    ]
    assert any(
        "main.cf:9: a.test: REJECT is for a sender (and 1 more lines)" in one for one in told
    )


@pytest.mark.parametrize("main", ["", "local_header_rewrite_clients =\n"])
def test_what_is_not_completed_in_the_header_is_told(main: str, tmp_path: Path) -> None:
    made, _ = made_of(Case(main, _MAIL, ""), tmp_path)
    said = "\n".join(made.report.warnings)
    assert ("Postfix completes them to bob@gw.example.com" in said) is (main == "")


@pytest.mark.parametrize(
    ("main", "retry", "bounces"),
    [
        ("", None, None),
        ("delay_warning_time = 0h\n", None, None),
        ("delay_warning_time = 4\n", {"warn_after": "4h"}, {"to": "sender"}),
        ("delay_warning_time = 30m\n", {"warn_after": "30m"}, {"to": "sender"}),
        ("delay_warning_time = 9d\n", None, None),
        ("notify_classes = resource, bounce\n", None, {"to": "postmaster@shop.test"}),
        (
            "notify_classes = bounce\nbounce_notice_recipient = ops@shop.test\n"
            "delay_warning_time = 1h\n",
            {"warn_after": "1h"},
            {"to": "ops@shop.test"},
        ),
    ],
)
def test_who_hears_of_failures_is_taken_where_somebody_reads_it(
    tmp_path: Path, main: str, retry: dict[str, str] | None, bounces: dict[str, str] | None
) -> None:
    main = "relayhost = [smtp.x.test]:587\nmyorigin = shop.test\n" + main
    made, _ = made_of(Case(main=main, pair=_MAIL, result=""), tmp_path)
    assert (made.values.get("retry"), made.values.get("bounces")) == (retry, bounces)
    assert check_text(as_yaml(made.values)).settings
