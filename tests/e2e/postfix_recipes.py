"""Configurations of Postfix as people publish them, each with mail that tells it from others.

`{main}`, `{other}` and `{third}` are next hops, `{implicit}` is one with TLS from the start,
`{dir}` is the directory of main.cf. What relaygw cannot do for some mail is said here by hand, as a
pattern of `SENDER > RECIPIENT`: for all other mail the import has to find the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

USERS = {"apikey": "SG.key", "mailbox@shop.example": "app password", "AKIASHOP": "ses+key/=",
         "promo@shop.example": "promo-key", "other": "other-key"}  # fmt: skip
_BASE = """myhostname = web1.shop.example
myorigin = $myhostname
mydestination = $myhostname, localhost
inet_interfaces = loopback-only
relayhost = {main}
"""
_SASL = """smtp_sasl_auth_enable = yes
smtp_sasl_security_options = noanonymous
smtp_sasl_tls_security_options = noanonymous
smtp_tls_security_level = encrypt
smtp_sasl_password_maps = hash:{dir}/sasl_passwd
"""
_PASSWORDS = {"sasl_passwd": "{main} mailbox@shop.example:app password\n"}
_WWW, _SHOP, _NEWS = "www-data@web1.shop.example", "shop@shop.example", "news@promo.example"
_SENDERS = (_WWW, _SHOP, "stranger@else.example", "")
_RECIPIENTS = ("customer@cust.example", "other@mail.example", "Third.Person@cust.example")
_NOBODY_HERE = "mail that stays on the host: relaygw has no mailboxes, both send nothing"


@dataclass(frozen=True)
class Recipe:
    """One configuration and its mail: each of `senders` to each of `recipients`."""

    name: str
    main: str
    files: Mapping[str, str] = field(default_factory=dict)  # texts, as they are
    indexed: Mapping[str, str] = field(default_factory=dict)  # with the index that postmap makes
    master: str = ""  # lines to add
    senders: tuple[str, ...] = _SENDERS
    recipients: tuple[str, ...] = _RECIPIENTS
    unlike: tuple[str, ...] = ()  # what relaygw cannot do
    is_old: bool = False  # without compatibility_level
    base: str = _BASE
    kind: str = ""  # of those that are in every run: what it stands for

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield its mail."""
        return ((sender, to) for sender in self.senders for to in self.recipients)

    def can_be_same(self, sender: str, recipient: str) -> bool:
        """Return whether relaygw could do the same with a mail."""
        mail = f"{sender} > {recipient}"
        return not any(re.search(one, mail) for one in self.unlike)


RECIPES = (
    # --- a mailbox at a provider ------------------------------------------------------------
    Recipe(
        "office365-static",
        _SASL + "sender_canonical_maps = static:mailbox@shop.example\n",
        indexed=_PASSWORDS,
        kind="every sender, one for all",
    ),
    Recipe(
        "office365-regexp",
        _SASL + "sender_canonical_classes = envelope_sender, header_sender\n"
        "sender_canonical_maps = regexp:{dir}/sender_canonical\n"
        "smtp_header_checks = regexp:{dir}/header_check\n",
        files={
            "sender_canonical": "/.+/    mailbox@shop.example\n",
            "header_check": "/^From:.*/ REPLACE From: mailbox@shop.example\n",
        },
        indexed=_PASSWORDS,
        kind="every sender, by a pattern",
    ),
    Recipe(
        "office365-header-only",
        _SASL + "smtp_header_checks = regexp:{dir}/header_check\n",
        files={"header_check": "/^From:.*/ REPLACE From: mailbox@shop.example\n"},
        indexed=_PASSWORDS,
        unlike=(".",),  # a header of its own
        kind="a header of its own",
    ),
    Recipe(
        "office365-mailboxes",
        _SASL + "smtp_sender_dependent_authentication = yes\n"
        "sender_dependent_relayhost_maps = hash:{dir}/relayhosts\n",
        indexed={
            "sasl_passwd": f"{_SHOP} mailbox@shop.example:app password\n"
            f"{_NEWS} promo@shop.example:promo-key\n{{main}} apikey:SG.key\n",
            "relayhosts": f"{_SHOP} {{main}}\n{_NEWS} {{main}}\n",
        },
        senders=(_SHOP, _NEWS, _WWW, ""),
    ),
    Recipe(
        "office365-envelope-only",
        _SASL + "sender_canonical_classes = envelope_sender\n"
        "sender_canonical_maps = static:mailbox@shop.example\n",
        indexed=_PASSWORDS,
    ),
    Recipe(
        "gmail-generic",
        _SASL + "smtp_generic_maps = hash:{dir}/generic\n",
        indexed=_PASSWORDS | {
            "generic": f"{_WWW} shop@gmail.example\nroot@web1.shop.example ops@gmail.example\n"
            "@web1.shop.example mailbox@gmail.example\n",
        },
        senders=(_WWW, "root@web1.shop.example", "cron@web1.shop.example", _SHOP, ""),
    ),
    Recipe(
        "gmail-465",
        "relayhost = {implicit}\nsmtp_tls_wrappermode = yes\n"
        "smtp_tls_CAfile = {dir}/ca.pem\n" + _SASL,
        indexed={"sasl_passwd": "{implicit} mailbox@shop.example:app password\n"},
        kind="TLS from the start",
    ),
    Recipe(
        "gmail-exception",
        _SASL + "sender_canonical_maps = regexp:{dir}/sender_canonical\n",
        files={"sender_canonical": "/^shop@shop\\.example$/ shop@shop.example\n"
                                   "/@/ mailbox@shop.example\n"},
        indexed=_PASSWORDS,
        kind="every sender but some",
    ),
    # --- services ---------------------------------------------------------------------------
    Recipe(
        "sendgrid",
        _SASL + "header_size_limit = 4096000\nsmtp_tls_note_starttls_offer = yes\n",
        indexed={"sasl_passwd": "{main} apikey:SG.key\n"},
    ),
    Recipe(
        "ses-two-accounts",
        _SASL + "sender_dependent_relayhost_maps = hash:{dir}/relayhosts\n"
        "smtp_sender_dependent_authentication = yes\n",
        indexed={
            "sasl_passwd": "@promo.example AKIASHOP:ses+key/=\n{main} apikey:SG.key\n",
            "relayhosts": "@promo.example {other}\n",
        },
        senders=(_NEWS, _SHOP, "News@PROMO.example", ""),
    ),
    Recipe(
        "mailgun-domains",
        "sender_dependent_default_transport_maps = hash:{dir}/transports\n",
        indexed={
            "transports": "@promo.example promo:\nshop@shop.example shop:\n<> nobody:\n",
            "passwd_promo": "{other} promo@shop.example:promo-key\n",
            "passwd_shop": "{main} apikey:SG.key\n",
        },
        master="promo unix - - n - - smtp -o smtp_sasl_auth_enable=yes\n"
        "  -o smtp_sasl_password_maps=hash:{dir}/passwd_promo -o smtp_tls_security_level=encrypt\n"
        "  -o smtp_sasl_security_options=noanonymous -o syslog_name=postfix-promo\n"
        "shop unix - - n - 2 smtp -o smtp_sasl_auth_enable=yes\n"
        "  -o smtp_sasl_password_maps=hash:{dir}/passwd_shop -o smtp_tls_security_level=encrypt\n"
        "  -o smtp_sasl_security_options=noanonymous\n"
        "nobody unix - - n - - smtp\n",
        senders=(_NEWS, _SHOP, _WWW, ""),
        kind="accounts of senders",
    ),
    Recipe(
        "brevo-addresses",
        _SASL + "sender_dependent_relayhost_maps = hash:{dir}/relayhosts\n",
        indexed={
            "sasl_passwd": "{main} apikey:SG.key\n{other} other:other-key\n",
            "relayhosts": "boss@shop.example {other}\n@promo.example {third}\n"
            "plain@promo.example DUNNO\n",
        },
        senders=("boss@shop.example", _SHOP, _NEWS, "plain@promo.example", ""),
    ),
    Recipe(
        "password-for-all-and-fallback",
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
        "smtp_sasl_password_maps = static:apikey:SG.key\nsmtp_tls_security_level = may\n"
        "smtp_fallback_relay = {other}\n",
    ),
    Recipe(
        "client-certificate",
        "smtp_tls_security_level = encrypt\nsmtp_tls_cert_file = {dir}/client.pem\n"
        "smtp_tls_key_file = {dir}/client.pem\nsmtp_tls_CAfile = {dir}/ca.pem\n",
        unlike=(),
        kind="a client certificate",
    ),
    # --- the way of the recipient -----------------------------------------------------------
    Recipe(
        "transport-hash",
        _SASL + "transport_maps = hash:{dir}/transport\n",
        indexed=_PASSWORDS | {
            "transport": "inner.example smtp:{other}\n.inner.example smtp:{third}\n"
            "vip@cust.example relay:{third}\nspam.example error:no mail there\n"
            "gone.example discard:\n",
        },
        senders=(_SHOP, ""),
        recipients=("a@inner.example", "a@sub.inner.example", "vip@cust.example", "a@cust.example",
                    "a@spam.example", "a@gone.example"),
        kind="ways of recipients",
    ),
    Recipe(
        "transport-regexp",
        _SASL + "transport_maps = regexp:{dir}/transport\n",
        files={"transport": "/@(a|b)\\.inner\\.example$/ smtp:{other}\n"
                            "/^vip@cust\\.example$/ smtp:{third}\n/@spam\\.example$/ error:no\n"},
        indexed=_PASSWORDS,
        senders=(_SHOP, ""),
        recipients=("x@a.inner.example", "x@b.inner.example", "x@c.inner.example",
                    "vip@cust.example", "x@cust.example", "x@spam.example"),
    ),
    Recipe(
        "transport-pcre-one-address",
        "transport_maps = pcre:{dir}/transport\ndefault_transport = error:no other mail\n",
        files={"transport": "/^vip@cust\\.example$/ smtp:{other}\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("vip@cust.example", "x@cust.example", "vip@else.example"),
        kind="a pattern's only address",
    ),
    Recipe(
        "transport-pcre-by-mx",
        "transport_maps = pcre:{dir}/transport\n",
        files={"transport": "/^vip@cust\\.example$/ smtp:{other}\n/[0-9]{4}@cust\\.example$/ "
                            "smtp:{third}\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("vip@cust.example", "x1234@cust.example", "x@cust.example", "x@else.example"),
        unlike=("x1234@cust",),  # digits are no list of addresses
    ),
    Recipe(
        "staging-by-transport",
        "transport_maps = inline:{ {agency.example=:}, {*=discard:staging} }\n",
        senders=(_SHOP, _WWW, ""),
        recipients=("dev@agency.example", "customer@cust.example", "qa@agency.example"),
        kind="only listed recipients",
    ),
    Recipe(
        "dev-catch-all",
        "virtual_alias_maps = regexp:{dir}/virtual\nvirtual_alias_domains =\nmydestination =\n",
        files={"virtual": "/.*/ dev@agency.example\n"},
        kind="every recipient",
    ),
    Recipe(
        "dev-catch-all-of-domains",  # they are virtual alias domains, too: Postfix returns it all
        "virtual_alias_maps = regexp:{dir}/virtual\nmydestination =\n",
        files={"virtual": "/.*/ dev@agency.example\n"},
        kind="every recipient and domain",
    ),
    Recipe(
        "relocated",
        "relocated_maps = hash:{dir}/relocated\n",
        indexed={"relocated": "old@cust.example new@cust.example\n@left.example elsewhere\n"},
        senders=(_SHOP, ""),
        recipients=("old@cust.example", "x@left.example", "x@cust.example"),
    ),
    # --- aliases ----------------------------------------------------------------------------
    Recipe(
        "virtual-aliases",
        "virtual_alias_domains = shop.example\nvirtual_alias_maps = hash:{dir}/virtual\n",
        indexed={
            "virtual": "info@shop.example owner@agency.example\n"
            "team@shop.example one@agency.example, two@agency.example\n"
            "@old.example @new.example\nsales@shop.example team@shop.example\n",
        },
        senders=(_SHOP, "customer@cust.example", ""),
        recipients=("info@shop.example", "team@shop.example", "sales@shop.example",
                    "kim@old.example", "x@cust.example", "unknown@shop.example"),
        kind="aliases to several, domain to domain",
    ),
    Recipe(
        "virtual-catch-all",
        "virtual_alias_maps = hash:{dir}/virtual\n",
        indexed={"virtual": "info@shop.example info@shop.example\n"
                            "@shop.example all@agency.example\n"
                            "abuse@shop.example ops@agency.example, all@agency.example\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("info@shop.example", "any@shop.example", "abuse@shop.example",
                    "x@cust.example"),
    ),
    Recipe(
        "local-aliases",
        "alias_maps = hash:{dir}/aliases\n",
        indexed={
            "aliases": "root: ops@agency.example\npostmaster: root\n"
            "team: one@agency.example, two@agency.example\nlist: root, three@agency.example\n"
            "trash: /dev/null\n",
        },
        senders=(_SHOP, _WWW, ""),
        recipients=("root@web1.shop.example", "postmaster@localhost", "team@web1.shop.example",
                    "list@web1.shop.example", "trash@web1.shop.example", "x@cust.example"),
        kind="aliases of the host",
    ),
    Recipe(
        "extensions",
        "recipient_delimiter = +\nvirtual_alias_maps = hash:{dir}/virtual\n"
        "transport_maps = hash:{dir}/transport\n",
        indexed={
            "virtual": "info@shop.example owner@agency.example\n"
            "info+x@shop.example special@agency.example\n@old.example @new.example\n",
            "transport": "vip@cust.example smtp:{other}\n",
        },
        senders=(_SHOP, ""),
        recipients=("info@shop.example", "info+x@shop.example", "info+tag@shop.example",
                    "kim+t@old.example", "vip@cust.example", "vip+tag@cust.example"),
        unlike=(r"vip\+tag",),  # a route is looked up with the extension
        kind="extensions",
    ),
    Recipe(
        "recipient-canonical",
        "recipient_canonical_maps = hash:{dir}/recipients\n",
        indexed={"recipients": "typo@cust.example right@cust.example\n@old.example @new.example\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("typo@cust.example", "right@cust.example", "kim@old.example", "x@cust.example"),
        kind="the header's recipients",
    ),
    Recipe(
        "canonical-domain",
        "canonical_maps = hash:{dir}/canonical\n",
        indexed={"canonical": "@web1.shop.example @shop.example\n"
                              "root@web1.shop.example ops@shop.example\n"},
        senders=(_WWW, "root@web1.shop.example", _SHOP, ""),
        recipients=("x@cust.example", "kim@web1.shop.example", "y@cust.example"),
        kind="domain to domain of senders",
    ),
    Recipe(
        "masquerade",
        "masquerade_domains = shop.example\nmasquerade_exceptions = root\n",
        senders=(_WWW, "root@web1.shop.example", "x@db1.shop.example", _SHOP, ""),
        recipients=("x@cust.example", "y@else.example", "z@cust.example"),
        unlike=("^x@db1",),  # hosts that the file does not name
        kind="masquerading",
    ),
    Recipe(
        "masquerade-classes",
        "masquerade_domains = shop.example\n"
        "masquerade_classes = envelope_sender, header_sender\n",
        senders=(_WWW, "root@web1.shop.example", _SHOP, ""),
    ),
    Recipe(
        "generic-regexp",
        "smtp_generic_maps = regexp:{dir}/generic\n",
        files={"generic": "/^(.*)@web1\\.shop\\.example$/ $1@shop.example\n"},
        senders=(_WWW, "root@web1.shop.example", _SHOP, ""),
    ),
    Recipe(
        "generic-local-part",  # Magento's usual one, with a mailbox that sends as itself alone
        _SASL + "smtp_generic_maps = regexp:{dir}/generic\n",
        files={"generic": "/^www-data@.*$/ mailbox@shop.example\n"},
        indexed=_PASSWORDS,
        senders=(_WWW, "www-data@localhost", "www-data@else.example", _SHOP, ""),
        recipients=("x@cust.example", "www-data@cust.example", _WWW),
        kind="a local part at any domain",
    ),
    Recipe(
        "generic-lists",
        "smtp_generic_maps = hash:{dir}/generic\nmydestination =\n",
        indexed={"generic": "@web1.shop.example @shop.example\n"
                            f"{_WWW} shop@shop.example\n"},
        senders=(_WWW, "root@web1.shop.example", _SHOP, ""),
    ),
    # --- several at once --------------------------------------------------------------------
    Recipe(
        "exceptions-and-static",
        _SASL + "sender_canonical_maps = hash:{dir}/senders, static:mailbox@shop.example\n",
        indexed=_PASSWORDS | {"senders": f"{_SHOP} {_SHOP}\n@promo.example @new.example\n"},
        senders=(_SHOP, _NEWS, _WWW, ""),
    ),
    Recipe(
        "canonical-then-generic",
        "sender_canonical_maps = hash:{dir}/senders\nsmtp_generic_maps = hash:{dir}/generic\n",
        indexed={"senders": f"{_WWW} root@web1.shop.example\n",
                 "generic": "root@web1.shop.example ops@shop.example\n"
                            "@cust.example @new.example\n"},
        senders=(_WWW, "root@web1.shop.example", _SHOP, ""),
    ),
    Recipe(
        "aliases-and-header-maps",
        "virtual_alias_maps = hash:{dir}/virtual\nrecipient_canonical_maps = hash:{dir}/typos\n",
        indexed={"virtual": "info@shop.example owner@agency.example\n"
                            "sales@shop.example info@shop.example\n",
                 "typos": "typo@cust.example right@cust.example\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("info@shop.example", "sales@shop.example", "typo@cust.example",
                    "x@cust.example"),
        unlike=("> typo@",),  # the header's recipients, of some rules only
    ),
    Recipe(
        "alias-with-a-way-of-its-own",
        _SASL + "virtual_alias_maps = hash:{dir}/virtual\ntransport_maps = hash:{dir}/transport\n"
        "always_bcc = archive@agency.example\n",
        indexed=_PASSWORDS | {
            "virtual": "team@shop.example one@inner.example, two@agency.example, x@gone.example\n",
            "transport": "inner.example smtp:{other}\ngone.example discard:\n",
        },
        senders=(_SHOP, _WWW, ""),
        recipients=("team@shop.example", "one@inner.example", "archive@agency.example",
                    "x@gone.example"),
    ),
    Recipe(
        "staging-with-an-archive",
        "transport_maps = inline:{ {agency.example=:}, {*=discard:staging} }\n"
        "always_bcc = archive@agency.example\n",
        senders=(_SHOP, _WWW, ""),
        recipients=("dev@agency.example", "customer@cust.example", "archive@agency.example"),
    ),
    Recipe(
        "reader-with-exceptions",
        "virtual_alias_maps = regexp:{dir}/virtual\nvirtual_alias_domains =\nmydestination =\n"
        "transport_maps = hash:{dir}/transport\n",
        files={"virtual": "/^qa@agency\\.example$/ qa@agency.example\n"
                          "/^old@cust\\.example$/ new@cust.example\n/./ dev@agency.example\n"},
        indexed={"transport": "agency.example smtp:{other}\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("customer@cust.example", "qa@agency.example", "old@cust.example",
                    "dev@agency.example"),
    ),
    Recipe(
        "header-as-it-is",
        "local_header_rewrite_clients =\nsender_canonical_maps = hash:{dir}/senders\n"
        "masquerade_domains = shop.example\n",
        indexed={"senders": "root@web1.shop.example ops@shop.example\n"},
        senders=(_WWW, "www-data", "root@web1.shop.example", _SHOP, ""),
        recipients=(*_RECIPIENTS, "reader"),
        kind="a header that stays",
    ),
    Recipe(
        "without-a-domain",
        "append_dot_mydomain = yes\nmydestination =\nalias_maps = hash:{dir}/aliases\n"
        "sender_canonical_maps = hash:{dir}/senders\n",
        indexed={"aliases": "root: ops@shop.example\n",
                 "senders": "known known@shop.example\n"},
        senders=("www-data", "known", "shop@sales", _SHOP, ""),
        recipients=("x@cust.example", "root", "reader"),
        unlike=("^(www-data|known|shop@sales) ", "> (root|reader)$"),  # of the header
        kind="addresses without a domain",
    ),
    Recipe(
        "extensions-of-aliases",
        "recipient_delimiter = +\nalias_maps = hash:{dir}/aliases\n"
        "sender_canonical_maps = hash:{dir}/senders\n",
        indexed={"aliases": "root: ops@agency.example\nroot+x: x@agency.example\n",
                 "senders": f"{_SHOP} sales@shop.example\n"},
        senders=(_SHOP, "shop+tag@shop.example", ""),
        recipients=("root@web1.shop.example", "root+x@web1.shop.example",
                    "root+tag@web1.shop.example", "x@cust.example"),
        unlike=(r"> root\+tag",),  # aliases(5) drop the extension
    ),
    # --- copies, refusals, checks -----------------------------------------------------------
    Recipe(
        "always-bcc",
        _SASL + "always_bcc = archive@shop.example\n",
        indexed=_PASSWORDS,
        kind="a copy of all",
    ),
    Recipe(
        "sender-bcc",
        "sender_bcc_maps = hash:{dir}/bcc\n",
        indexed={"bcc": "shop@shop.example archive@agency.example\n"},
        unlike=("^shop@",),  # a copy for one sender only
    ),
    Recipe(
        "recipient-bcc",
        "recipient_bcc_maps = hash:{dir}/bcc\n",
        indexed={"bcc": "other@mail.example archive@agency.example\n"},
        unlike=("> other@",),
    ),
    Recipe(
        "refused-senders",
        "smtpd_sender_restrictions = check_sender_access hash:{dir}/senders\n",
        indexed={"senders": "old@shop.example REJECT\nspam.example REJECT no mail of this domain\n"
                            "shop.example OK\n"},
        senders=("old@shop.example", "x@spam.example", _SHOP, _WWW, ""),
        unlike=("^old@", "^x@spam"),
        kind="refused senders",
    ),
    Recipe(
        "allowed-senders",
        "smtpd_sender_restrictions = check_sender_access hash:{dir}/senders, reject\n",
        indexed={"senders": "shop.example OK\n<> OK\n"},
        senders=(_SHOP, "x@else.example", _NEWS, ""),
        unlike=("^x@else", "^news@"),
    ),
    Recipe(
        "blocked-recipients",
        "smtpd_recipient_restrictions = check_recipient_access hash:{dir}/recipients,\n"
        "    permit_mynetworks, reject_unauth_destination\n",
        indexed={"recipients": "spam.example REJECT\nabuse@cust.example 550 no\n"},
        senders=(_SHOP, _WWW, ""),
        recipients=("a@spam.example", "abuse@cust.example", "x@cust.example", "x@else.example"),
    ),
    Recipe(
        "header-checks",
        "header_checks = regexp:{dir}/checks\nsmtp_header_checks = regexp:{dir}/smtp_checks\n",
        files={"checks": "/^Received:/ IGNORE\n/^X-Originating-IP:/ IGNORE\n/^Subject:/ INFO\n",
               "smtp_checks": "/^User-Agent:/ IGNORE\n"},
    ),
    Recipe(
        "header-checks-refuse",
        "header_checks = regexp:{dir}/checks\n",
        files={"checks": "/^Subject: no [0-4]$/ REJECT\n"},
        unlike=(".",),  # decided by the content
    ),
    # --- hosts ------------------------------------------------------------------------------
    Recipe(
        "null-client",
        "myorigin = shop.example\nmydestination =\n"
        "local_transport = error:local delivery is disabled\n",
        recipients=(*_RECIPIENTS, "root@web1.shop.example"),
    ),
    Recipe(
        "debian-satellite",
        "smtpd_banner = $myhostname ESMTP\nbiff = no\nappend_dot_mydomain = no\n"
        "readme_directory = no\nsmtpd_relay_restrictions = permit_mynetworks "
        "permit_sasl_authenticated\n    defer_unauth_destination\nmyorigin = /etc/mailname\n"
        "mydestination = $myhostname, web1, localhost.localdomain, localhost\n"
        "mailbox_size_limit = 0\nrecipient_delimiter = +\nalias_maps = hash:{dir}/aliases\n"
        "myorigin = shop.example\n",
        indexed={"aliases": "postmaster: root\nroot: ops@shop.example\n"},
        recipients=("customer@cust.example", "root@web1.shop.example", "root@localhost"),
    ),
    Recipe("old-without-restrictions", _SASL, indexed=_PASSWORDS, is_old=True, unlike=(".",),
           kind="a Postfix that takes no mail"),
    Recipe(
        "old-with-restrictions",
        _SASL + "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\n",
        indexed=_PASSWORDS,
        is_old=True,
    ),
    Recipe(
        "new-without-restrictions",
        _SASL + "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks\n",
        indexed=_PASSWORDS,
        unlike=(".",),
    ),
)  # fmt: skip
