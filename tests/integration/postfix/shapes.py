"""Configurations of Postfix as people have them: recipes of articles, and others of practice.

A shape has main.cf, further files beside it, and mail whose way is looked at. `{dir}` is the
directory; names in `indexed` are made into tables by postmap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.real_postfix import make_index

MASTER = Path("/etc/postfix/master.cf.proto")
_BASE = """compatibility_level = 3.6
myhostname = shop1.example.com
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
"""
_SASL = """smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:{dir}/sasl_passwd
smtp_sasl_security_options = noanonymous
"""
_SENDERS = ("shop@example.com", "news@promo.example.com", "")
_RECIPIENTS = ("customer@cust.test",)


@dataclass(frozen=True)
class Shape:
    """One configuration."""

    name: str
    main: str
    files: Mapping[str, str] = field(default_factory=dict)
    indexed: Mapping[str, str] = field(default_factory=lambda: {"sasl_passwd": "hash"})
    master: str = ""  # lines to add
    senders: Sequence[str] = _SENDERS
    recipients: Sequence[str] = _RECIPIENTS
    base: str = _BASE

    def write(self, directory: Path) -> Path:
        """Write it below a directory."""
        home = directory / "postfix"
        home.mkdir()
        places = {"dir": str(home)}
        (home / "main.cf").write_text(_filled(self.base + self.main, places))
        (home / "master.cf").write_text(MASTER.read_text() + _filled(self.master, places))
        for name, text in self.files.items():
            (home / name).write_text(_filled(text, places))
            (home / name).chmod(0o600)
        for name, kind in self.indexed.items():
            if name in self.files:
                make_index(home / name, kind)
        return home


def _filled(text: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


_SENDGRID = """relayhost = [smtp.sendgrid.net]:587
smtp_tls_security_level = encrypt
header_size_limit = 4096000
"""
_ACCOUNTS = "".join(
    f"@shop{n}.example.com {'abcd'[n % 4]}:\n" for n in range(40)
)  # forty domains, four accounts

SHAPES = (
    # --- the recipes of the article ---------------------------------------------------------
    Shape(
        "sendgrid-as-printed",
        "relayhost = [smtp.sendgrid.net]:587\nsmtpd_tls_security_level = encrypt\n"
        "header_size_limit = 4096000\nsmtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n"
        + _SASL,
        {"sasl_passwd": "[smtp.sendgrid.net]:2525 apikey:SG.key-1\n"},
    ),
    Shape(
        "sendgrid",
        _SENDGRID + _SASL,
        {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k:2\n"},
    ),
    Shape(
        "sendgrid-2525",
        "relayhost = [smtp.sendgrid.net]:2525\nsmtp_tls_security_level = encrypt\n" + _SASL,
        {"sasl_passwd": "smtp.sendgrid.net apikey:SG.host-key\n"},
    ),
    Shape(
        "mailgun",
        "relayhost = [smtp.mailgun.org]:2525\nsmtp_tls_security_level = encrypt\n" + _SASL,
        {"sasl_passwd": "[smtp.mailgun.org]:2525 postmaster@mg.example.com:mg-key\n"},
    ),
    Shape(
        "ses",
        "relayhost = [email-smtp.us-west-2.amazonaws.com]:587\nsmtp_use_tls = yes\n"
        "smtp_tls_security_level = encrypt\nsmtp_tls_note_starttls_offer = yes\n" + _SASL,
        {"sasl_passwd": "[email-smtp.us-west-2.amazonaws.com]:587 AKIAEXAMPLE:ses+key/=\n"},
    ),
    Shape(
        "promotional-sender",
        _SENDGRID + _SASL + "smtp_sender_dependent_authentication = yes\n"
        "sender_dependent_relayhost_maps = hash:{dir}/relayhost_map\n",
        {
            "sasl_passwd": "@promo.example.com AKIAPROMO:promo-key\n"
            "[smtp.sendgrid.net]:587 apikey:SG.k2\n",
            "relayhost_map": "@promo.example.com [email-smtp.eu-west-1.amazonaws.com]:587\n",
        },
        {"sasl_passwd": "hash", "relayhost_map": "hash"},
        senders=("shop@example.com", "news@promo.example.com", "News@PROMO.example.com",
                 "x@sub.promo.example.com", ""),
    ),
    # --- others -----------------------------------------------------------------------------
    Shape(
        "satellite",
        "relayhost = mail.example.com\nsmtp_generic_maps = hash:{dir}/generic\n"
        "myorigin = shop1.example.com\n",
        {"generic": "www-data@shop1.example.com shop@example.com\n"
                    "@shop1.example.com noreply@example.com\n"},
        {"generic": "hash"},
        senders=("www-data@shop1.example.com", "root", "shop@example.com"),
    ),
    Shape(
        "forty-domains",
        "relayhost = [smtp.mailgun.org]:587\nsmtp_tls_security_level = encrypt\n"
        "sender_dependent_default_transport_maps = texthash:{dir}/transports\n"
        "smtp_sasl_security_options = noanonymous\n",
        {
            "transports": _ACCOUNTS,
            **{f"passwd_{one}": f"smtp.mailgun.org {one}@mg.example.com:key-{one}\n"
               for one in "abcd"},
        },
        {f"passwd_{one}": "hash" for one in "abcd"},
        master="".join(
            f"{one} unix - - n - 5 smtp -o smtp_sasl_auth_enable=yes\n"
            "  -o smtp_sasl_password_maps=hash:{dir}/passwd_" + f"{one}\n" for one in "abcd"
        ),
        senders=(*(f"order@shop{n}.example.com" for n in range(0, 40, 7)), "x@other.test", ""),
    ),
    Shape(
        "staging-by-transport",
        _SENDGRID + _SASL + "transport_maps = inline:{ {agency.test=:}, {*=discard:staging} }\n",
        {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n"},
        recipients=("dev@agency.test", "customer@cust.test", "dev@sub.agency.test"),
    ),
    Shape(
        "staging-by-access",
        _SENDGRID + _SASL
        + "smtpd_recipient_restrictions = check_recipient_access hash:{dir}/access, reject\n",
        {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n",
         "access": "dev@agency.test OK\nqa.agency.test OK\n"},
        {"sasl_passwd": "hash", "access": "hash"},
        recipients=("dev@agency.test", "any@qa.agency.test", "other@agency.test"),
    ),
    Shape(
        "blocked-recipients",
        _SENDGRID + _SASL + "smtpd_recipient_restrictions = reject_unauth_pipelining,\n"
        "    check_recipient_access texthash:{dir}/blocked, permit_mynetworks, reject\n",
        {"sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n",
         "blocked": "spam.test REJECT known spammer\nabuse@cust.test 550 5.7.1 no\n"},
        recipients=("a@spam.test", "abuse@cust.test", "customer@cust.test"),
    ),
    Shape(
        "gmail-465",
        "relayhost = [smtp.gmail.com]:465\nsmtp_tls_wrappermode = yes\n"
        "smtp_tls_security_level = encrypt\n" + _SASL,
        {"sasl_passwd": "[smtp.gmail.com]:465 shop@gmail.com:app password with blanks\n"},
    ),
    Shape(
        "tls-policies",
        "relayhost = [smtp.eu.mailgun.org]:587\nsmtp_tls_security_level = may\n"
        "smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n"
        "smtp_tls_policy_maps = texthash:{dir}/policy\ntransport_maps = cdb:{dir}/transport\n"
        + _SASL,
        {
            "sasl_passwd": "[smtp.eu.mailgun.org]:587 mg:key\n",
            "policy": "[smtp.eu.mailgun.org]:587 secure match=nexthop\n[mail.internal]:25 none\n"
            "[legacy.example.com] verify\n",
            "transport": "internal.example.com smtp:[mail.internal]:25\n"
            ".internal.example.com relay:[mail.internal]:25\n"
            "legacy.test smtp:[legacy.example.com]\n",
        },
        {"sasl_passwd": "hash", "transport": "cdb"},
        recipients=("a@internal.example.com", "a@x.internal.example.com", "a@legacy.test",
                    "a@cust.test"),
    ),
    Shape(
        "patterns",
        _SENDGRID + _SASL + "sender_dependent_relayhost_maps = pcre:{dir}/senders\n"
        "transport_maps = regexp:{dir}/transport.re\n",
        {
            "sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n"
            "[smtp.postmarkapp.com]:587 tok:tok\n",
            "senders": "/^ceo@a\\.example\\.com$/ DUNNO\n"
            "/@(a|b)\\.example\\.com$/ [smtp.postmarkapp.com]:587\n",
            "transport.re": "/@spam\\.test$/ error:5.7.1 no mail there\n",
        },
        senders=("x@a.example.com", "ceo@a.example.com", "y@b.example.com", "z@c.example.com"),
        recipients=("a@spam.test", "a@cust.test"),
    ),
    Shape(
        "aliases-and-virtual",
        _SENDGRID + _SASL + "mydestination = $myhostname, localhost\n"
        "alias_maps = hash:{dir}/aliases\nvirtual_alias_maps = lmdb:{dir}/virtual\n"
        "recipient_canonical_maps = texthash:{dir}/recipients\n",
        {
            "sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n",
            "virtual": "old@example.com new@example.com\n@gone.example.com ops@example.com\n",
            "recipients": "typo@exampel.com right@example.com\n",
            "aliases": "postmaster: root\nroot: ops@example.com\n",
        },
        {"sasl_passwd": "hash", "virtual": "lmdb", "aliases": "hash"},
        recipients=("root@shop1.example.com", "postmaster@localhost", "old@example.com",
                    "x@gone.example.com", "typo@exampel.com", "www-data@shop1.example.com"),
    ),
    Shape(
        "fallback-and-limits",
        "relayhost = [smtp.office365.com]:submission\n"
        "smtp_fallback_relay = [smtp.mailjet.com]:587\n"
        "smtp_tls_security_level = encrypt\nsmtp_sasl_auth_enable = yes\n"
        "smtp_sasl_security_options = noanonymous\n"
        "smtp_sasl_password_maps = proxy:static:{shop@example.com:one for all}\n"
        "smtp_destination_concurrency_limit = 2\nsmtp_destination_rate_delay = 2s\n"
        "minimal_backoff_time = 60s\nmaximal_backoff_time = 20m\nmaximal_queue_lifetime = 2\n",
    ),
    Shape(
        "exceptions",
        _SENDGRID + _SASL + "smtp_sender_dependent_authentication = yes\n"
        "sender_dependent_relayhost_maps = btree:{dir}/relayhost_map\n"
        "transport_maps = texthash:{dir}/transport\n",
        {
            "sasl_passwd": "[smtp.sendgrid.net]:587 apikey:SG.k\n"
            "boss@example.com b:b-pass\n@example.com a:a-pass\n",
            "relayhost_map": "boss@example.com [smtp.resend.com]:587\n"
            "@example.com [smtp.mailgun.org]:587\nnobody@example.com DUNNO\n",
            "transport": "vip@cust.test :[vip.relay.test]:26\n.cust.test :[sub.relay.test]:27\n"
            "deep.sub.cust.test :\n",
        },
        {"sasl_passwd": "hash", "relayhost_map": "btree"},
        senders=("boss@example.com", "x@example.com", "nobody@example.com", "y@other.test", ""),
        recipients=("vip@cust.test", "x@cust.test", "x@a.cust.test", "x@deep.sub.cust.test",
                    "x@y.deep.sub.cust.test", "x@z.test"),
    ),
)  # fmt: skip
