"""Whatever stands in the files: a file that loads, or an error with its place. Never a crash."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relaygw_postfix.lint import findings
from relaygw_postfix.main_cf import PostfixUnreadable, read_configuration
from relaygw_postfix.maps import Tables
from relaygw_postfix.mistakes import MendedResolver, mended
from relaygw_postfix.resolve import Resolver
from relaygw_postfix.rewriting import Rewriting
from relaygw_postfix.sameness import Comparison, pairs_of
from relaygw_postfix.translation import translate
from relaygw_postfix.written import as_yaml, check_text

_TABLES = st.sampled_from(
    ["texthash:{dir}/one", "texthash:{dir}/two", "regexp:{dir}/three", "static:{[x.test]:587}",
     "inline:{ {a@b.test=c@d.test}, {@e.test=[f.test]} }", "hash:{dir}/none", "ldap:x", "$x", ""]
)  # fmt: skip
_HOPS = st.sampled_from(
    ["[x.test]:587", "y.test", "[smtp.sendgrid.net]:587, [z.test]", "[10.0.0.1]:25", "[::1]:25",
     "", "[smtp.gmail.com]:465", "smtp:[a.test]", "discard:", "error:no", "DUNNO", ":", "smtp:"]
)  # fmt: skip
_VALUES = {
    "relayhost": _HOPS,
    "default_transport": st.sampled_from(["smtp", "smtp:[x.test]", "pipe", "promo:", "local"]),
    "transport_maps": _TABLES,
    "sender_dependent_relayhost_maps": _TABLES,
    "sender_dependent_default_transport_maps": _TABLES,
    "smtp_sasl_password_maps": _TABLES,
    "smtp_sasl_auth_enable": st.sampled_from(["yes", "no", ""]),
    "smtp_sender_dependent_authentication": st.sampled_from(["yes", "no"]),
    "smtp_tls_security_level": st.sampled_from(["may", "encrypt", "dane", "none", "what", ""]),
    "smtp_tls_wrappermode": st.sampled_from(["yes", "no"]),
    "smtp_tls_policy_maps": _TABLES,
    "smtp_generic_maps": _TABLES,
    "sender_canonical_maps": _TABLES,
    "canonical_maps": _TABLES,
    "virtual_alias_maps": _TABLES,
    "alias_maps": _TABLES,
    "masquerade_domains": st.sampled_from(["example.com", "!a.example.com example.com"]),
    "mydestination": st.sampled_from(["$myhostname, localhost", "", "texthash:{dir}/one"]),
    "relay_domains": st.sampled_from(["b.test", "texthash:{dir}/two", ""]),
    "recipient_delimiter": st.sampled_from(["+", "+-", ""]),
    "mynetworks": st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "nonsense", "[::1]/128 192.0.2.1"]),
    "inet_interfaces": st.sampled_from(["all", "loopback-only", "10.1.1.1", "a.test", ""]),
    "smtpd_recipient_restrictions": st.sampled_from(
        ["check_recipient_access texthash:{dir}/one, reject", "permit", "reject", "own",
         "check_recipient_access { inline:{ {b.test=OK}, {c.test=REJECT} } }, strange"]
    ),
    "smtpd_sender_restrictions": st.sampled_from(
        ["check_sender_access texthash:{dir}/one, permit", "warn_if_reject", "sleep 1, {reject}",
         "check_sender_access", "reject_unauth_destination, regexp:{dir}/three", "own, permit",
         "check_policy_service {unix:x, timeout=1}, check_sender_access ldap:x"]
    ),
    "smtpd_restriction_classes": st.sampled_from(["own", ""]),
    "own": st.sampled_from(["own", "check_recipient_access texthash:{dir}/two", ""]),
    "relocated_maps": _TABLES,
    "relay_recipient_maps": _TABLES,
    "virtual_alias_domains": _TABLES,
    "recipient_bcc_maps": _TABLES,
    "luser_relay": st.sampled_from(["a@b.test", "$user@b.test", "someone", ""]),
    "local_recipient_maps": st.sampled_from(["", "static:x"]),
    "header_checks": _TABLES,
    "always_bcc": st.sampled_from(["c", "c@d.test", "|x"]),
    "canonical_classes": st.sampled_from(["header_sender", "envelope_recipient", ""]),
    "masquerade_classes": st.sampled_from(["envelope_recipient", ""]),
    "receive_override_options": st.sampled_from(["no_address_mappings", "x", ""]),
    "append_dot_mydomain": st.sampled_from(["yes", "no"]),
    "append_at_myorigin": st.sampled_from(["yes", "no"]),
    "message_size_limit": st.sampled_from(["0", "1000", "many"]),
    "minimal_backoff_time": st.sampled_from(["300s", "10", "2h", "soon"]),
    "smtp_destination_rate_delay": st.sampled_from(["0s", "1s", "5m", "x"]),
    "myhostname": st.sampled_from(["gw.example.com", "gw", "not a name", "$mydomain"]),
    "myorigin": st.sampled_from(["example.com", "/etc/mailname", "$myhostname", "$x"]),
}  # fmt: skip
_KEYS = st.sampled_from(
    ["a@b.test", "@b.test", "b.test", ".b.test", "*", "user", "[x.test]:587", "x.test", "user@",
     "smtp.sendgrid.net", "@", "<>", '"a b"@c.test', "a@[10.0.0.1]", "-x@b.test", "ä@b.test"]
)  # fmt: skip
_RESULTS = st.one_of(
    _HOPS,
    st.sampled_from(
        ["u:p", "c@d.test", "@e.test", "a@b.test, b@c.test", "OK", "REJECT", "DISCARD", "HOLD",
         "REDIRECT c@d.test", "FILTER smtp:x", "BCC", "PREPEND", "own", "reject", "encrypt",
         ":include:/no/such", "\\\\user", "/var/x, c@d.test", "secure match=x", "|/bin/sh", "",
         "user", "promo:"]
    ),
)  # fmt: skip
_LINES = st.builds("{} {}".format, _KEYS, _RESULTS)
_PATTERNS = st.builds(
    "/{}/ {}".format,
    st.sampled_from([r"@b\.test$", ".", r"^(.*)@(b|c)\.test$", "(", r"\.b\.test$", "[[:digit:]]+"]),
    st.one_of(_RESULTS, st.sampled_from(["[$1.test]", "$1@e.test"])),
)
_MASTER = "smtp inet n - n - - smtpd\npromo unix - - n - 2 smtp -o smtp_sasl_auth_enable=yes\n"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries({}, optional=_VALUES),
    st.lists(_LINES, max_size=5),
    st.lists(_LINES, max_size=5),
    st.lists(_PATTERNS, max_size=3),
)
@example({"relayhost": "[x.test]:587", "header_checks": "regexp:{dir}/three"}, [], [], ["/a/ "])
def test_any_configuration(
    values: dict[str, str], one: list[str], two: list[str], three: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file, lines in (("one", one), ("two", two), ("three", three)):
            (directory / file).write_text("\n".join(lines) + "\n")
        main = "".join(f"{key} = {value}\n" for key, value in values.items())
        (directory / "main.cf").write_text(main.replace("{dir}", name))
        (directory / "master.cf").write_text(_MASTER)
        for is_mended in (False, True):
            try:
                imported(directory, is_mended=is_mended)
            except PostfixUnreadable as error:
                assert ": " in str(error)


def imported(directory: Path, *, is_mended: bool) -> None:
    configuration = read_configuration(directory)
    plain = Rewriting(Resolver(configuration, Tables(configuration)))
    assert all(one.place and one.postfix and one.relaygw for one in findings(plain))
    rewriting = plain
    if is_mended:
        better = mended(configuration)
        rewriting = Rewriting(MendedResolver(better, Tables(better)))
    made = translate(rewriting, Path("/etc/relaygw/secrets"))
    loaded = check_text(as_yaml(made.values))
    pairs = pairs_of(made)
    for row in Comparison(plain, loaded.settings, made.secrets).rows(pairs):
        assert row.result == "same" or row.why
