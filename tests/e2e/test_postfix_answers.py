"""What the table of sameness says of a Postfix is what a real one does: who gets each mail."""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relaygw_postfix.main_cf import read_configuration
from relaygw_postfix.maps import Tables
from relaygw_postfix.resolve import Fate, Resolver
from relaygw_postfix.rewriting import Rewriting, is_end
from tests.fakes.scripted_provider import ThreadedProvider
from tests.real_postfix import PATIENCE_S, PostfixInstance
from tests.rights import needs

pytestmark = needs("root")
_MAIN = """myhostname = gw.example.com
mydomain = example.com
mydestination = gw.example.com
relayhost = [127.0.0.1]:{provider}
recipient_delimiter = +
append_dot_mydomain = yes
local_recipient_maps =
luser_relay = stray@d.test
mail_spool_directory = {base}/no-such-directory
alias_maps = hash:{base}/conf/aliases
relocated_maps = inline:{{ {{moved@cust.test=new@cust.test}} }}
relay_domains = relayed.test
relay_recipient_maps = inline:{{ {{known@relayed.test=x}} }}
virtual_alias_domains = aliased.test
virtual_alias_maps = inline:{{ {{one@cust.test=two@cust.test, three@cust.test}},
    {{ping@cust.test=pong@cust.test}}, {{pong@cust.test=ping@cust.test}},
    {{known@aliased.test=four@cust.test}}, {{kept@cust.test=kept@cust.test, five@cust.test}} }}
recipient_canonical_maps = inline:{{ {{typo@cust.test=right@cust.test}},
    {{round@cust.test=about@cust.test}}, {{about@cust.test=over@cust.test}},
    {{over@cust.test=round@cust.test}} }}
sender_canonical_maps = inline:{{ {{seen@shop.test=hidden@shop.test}} }}
sender_canonical_classes = header_sender
sender_bcc_maps = inline:{{ {{copied@shop.test=archive@d.test}} }}
smtp_generic_maps = inline:{{ {{www@gw.example.com=shop@shop.test}} }}
smtpd_sender_restrictions = check_sender_access inline:{{ {{bad@shop.test=REJECT}},
    {{held@shop.test=HOLD}}, {{dropped@shop.test=DISCARD}} }}
smtpd_recipient_restrictions = warn_if_reject check_recipient_access inline:{{warned.test=REJECT}},
    check_recipient_access inline:{{ {{no@=REJECT}}, {{class.test=permit_mynetworks}},
    {{maybe.test=DEFER_IF_REJECT}}, {{sub.ok.test=DUNNO}}, {{ok.test=REJECT}},
    {{elsewhere.test=REDIRECT other@d.test}}, {{bcc.test=BCC third@d.test}},
    {{noted.test=PREPEND X-Noted: yes}} }},
    reject_non_fqdn_recipient, permit_mynetworks, reject
"""
_ALIASES = """list: :include:{members}
several: six@cust.test, seven@cust.test, "|/bin/true a, b"
again: again, eight@cust.test
chain: several
loop: pool
pool: loop
"""
_SHOP = "a@shop.test"
_MAILS = [
    *((_SHOP, to) for to in (
        "b@cust.test", "b@host", "list@gw.example.com", "several+x@gw.example.com",
        "again@gw.example.com", "chain@gw.example.com", "nobody-here@gw.example.com",
        "nobody@gw.example.com", "nobody+x@gw.example.com",
        "moved@cust.test", "known@relayed.test", "unknown@relayed.test", "one+tag@cust.test",
        "ping@cust.test", "known@aliased.test", "unknown@aliased.test", "kept@cust.test",
        "typo+x@cust.test", "round@cust.test", "loop@gw.example.com", "no+x@cust.test",
        "x@warned.test", "x@class.test", "x@maybe.test",
        "x@sub.ok.test", "x@ok.test", "x@deep.ok.test", "x@elsewhere.test", "x@bcc.test",
        "x@noted.test",
    )),
    *((f"{name}@shop.test", "b@cust.test")
      for name in ("seen", "copied", "bad", "held", "dropped")),
    ("www", "b@cust.test"), ("", "b@cust.test"),
]  # fmt: skip
Seen = tuple[str, frozenset[str]]


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as provider:
        yield provider


def send_all(port: int) -> None:
    for number, (sender, recipient) in enumerate(_MAILS):
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test") as client:
            try:
                client.sendmail(sender, [recipient], f"Subject: no {number}\r\n\r\nhello\r\n")
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError):
                continue


def wait_until_done(postfix: PostfixInstance) -> None:
    """Wait until nothing moves any more: what is left was put off, or is held."""
    deadline_s = time.monotonic() + PATIENCE_S
    queues = [postfix.queue / name for name in ("maildrop", "incoming", "active")]
    while any(path.is_file() for one in queues for path in one.rglob("*")):
        assert time.monotonic() < deadline_s, postfix.log()
        time.sleep(0.05)


def seen_by(provider: ThreadedProvider) -> dict[int, Seen]:
    """Return the sender and all recipients of each mail, by its number."""
    found: dict[int, Seen] = {}
    for one in provider.messages:
        match = re.search(rb"^Subject: no (\d+)", one.content, re.M)
        if match is not None and b"Subject: Undelivered" not in one.content:
            number = int(match[1])
            _, before = found.get(number, ("", frozenset()))
            found[number] = one.sender, before | {*one.recipients}
    return found


def told_of(conf: Path, mails: Sequence[tuple[str, str]]) -> dict[int, Seen]:
    found: dict[int, Seen] = {}
    configuration = read_configuration(conf)
    configuration.is_of_this_host = True  # its users are those of this Postfix
    rewriting = Rewriting(Resolver(configuration, Tables(configuration)))
    for number, (sender, recipient) in enumerate(mails):
        answer = rewriting.answer(sender, recipient)
        reached = [one for one in answer.others if not is_end(one)]
        reached += [answer.recipient] if answer.delivery.fate is Fate.SEND else []
        reached += [text.split()[-2] for text in answer.added if "a copy" in text]
        if answer.delivery.fate is Fate.REDIRECT:
            reached = [answer.delivery.reason]
        if reached:
            found[number] = answer.sender, frozenset(reached)
    return found


def compare(postfix: PostfixInstance, provider: ThreadedProvider) -> None:
    """Send all mail, and compare who got it with what is told."""
    provider.messages.clear()
    postfix.start()
    send_all(postfix.port)
    wait_until_done(postfix)
    postfix.stop()
    really, told = seen_by(provider), told_of(postfix.conf, _MAILS)
    different = {
        _MAILS[number]: (told.get(number), really.get(number))
        for number in range(len(_MAILS))
        if told.get(number) != really.get(number)
    }
    log = "\n".join(re.findall("warning.*|.*reject.*|.*status=.*", postfix.log()))
    assert different == {}, log
    assert len(really) > 20


def test_who_gets_each_mail(provider: ThreadedProvider) -> None:
    postfix = PostfixInstance(_MAIN.format(base="{base}", provider=provider.port))
    members = postfix.base / "members"
    members.write_text("# our people\nnine@cust.test\nten@cust.test, eleven@cust.test\n")
    postfix.add_table("aliases", _ALIASES.format(members=members))
    try:
        compare(postfix, provider)
        postfix.set(receive_override_options="no_address_mappings", append_dot_mydomain="no")
        compare(postfix, provider)
    finally:
        postfix.__exit__()
