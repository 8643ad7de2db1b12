"""Bounce mails and complaints in the forms of those who write them.

Each maker takes the mail that came back (its header) and the recipient. Written after RFC 3464 and
5965, and after what Postfix, Exchange Online, Gmail, qmail and old Exchange send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HOSTNAME = "gw.shop.test"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail that we sent."""

    to: str = "bob@cust.test"
    message_id: str = "<order-1@shop.test>"
    queue_id: str = "0F4B2Q3K1ZP"
    mark: str | None = "m4rk-0123456789abcdef"

    @property
    def header(self) -> str:
        marked = f"X-Relaygw-Mark: {self.mark}\n" if self.mark else ""
        return (
            "Received: from app1 (unknown [192.0.2.9])\n"
            f"\tby {HOSTNAME} (relaygw) with ESMTP id {self.queue_id}\n"
            f"\tfor <{self.to}>;\n"
            "\tMon, 23 Nov 2026 10:00:00 +0000\n"
            "From: Shop <shop@shop.test>\n"
            f"To: Bob <{self.to}>\n"
            "Subject: Your order\n"
            f"Message-ID: {self.message_id}\n"
            f"{marked}"
        )


def report(
    mail: Mail,
    fields: str,
    *,
    head: str = "Reporting-MTA: dns; mx.cust.test\n",
    third: str = "message/rfc822",
    header: str = "",
    status_header: str = "",
) -> bytes:
    """Return a multipart/report as RFC 3464 has it."""
    return (
        "From: Mail Delivery System <MAILER-DAEMON@mx.cust.test>\n"
        "To: bounces@shop.test\n"
        "Subject: Undelivered Mail Returned to Sender\n"
        "Date: Mon, 23 Nov 2026 10:05:00 +0000\n"
        "Auto-Submitted: auto-replied\n"
        f"{header}"
        "MIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=delivery-status;\n"
        '\tboundary="b1/mx.cust.test"\n'
        "\n"
        "This is a MIME-encapsulated message.\n\n"
        "--b1/mx.cust.test\n"
        "Content-Description: Notification\n"
        "Content-Type: text/plain; charset=us-ascii\n\n"
        "I'm sorry to have to inform you.\n\n"
        "--b1/mx.cust.test\n"
        "Content-Description: Delivery report\n"
        f"Content-Type: message/delivery-status\n{status_header}\n"
        f"{head}\n{fields}\n"
        "--b1/mx.cust.test\n"
        "Content-Description: Undelivered Message\n"
        f"Content-Type: {third}\n\n"
        f"{mail.header}\nDear Bob\n\n"
        "--b1/mx.cust.test--\n"
    ).encode()


def status(
    mail: Mail,
    action: str = "failed",
    code: str = "5.1.1",
    said: str = "550 5.1.1 <bob@cust.test>: user unknown",
    **more: str,
) -> str:
    """Return the fields of one recipient."""
    lines = [
        f"Final-Recipient: rfc822; {mail.to}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in more.items()),
        f"Action: {action}",
        f"Status: {code}",
        f"Diagnostic-Code: smtp; {said}",
    ]
    return "\n".join(lines) + "\n"


def postfix(mail: Mail) -> bytes:
    head = (
        "Reporting-MTA: dns; mx.cust.test\n"
        "X-Postfix-Queue-ID: 4F1B23C04D\n"
        "X-Postfix-Sender: rfc822; bounces@shop.test\n"
        "Arrival-Date: Mon, 23 Nov 2026 10:00:01 +0000 (UTC)\n"
    )
    fields = status(mail, Original_Recipient=f"rfc822;{mail.to}", Remote_MTA="dns; in.cust.test")
    return report(mail, fields, head=head)


def exchange_online(mail: Mail) -> bytes:
    """Localised HTML, the reason as `RESOLVER.…`, the id of the mail in In-Reply-To."""
    said = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"
    return report(
        mail,
        f"Final-Recipient: rfc822;{mail.to}\nAction: failed\nStatus: 5.1.10\n"
        f"Diagnostic-Code: smtp;{said}\n",
        head="Reporting-MTA: dns;AM0PR01MB0001.eurprd01.prod.outlook.com\n"
        "Received-From-MTA: dns;gw.shop.test\nArrival-Date: Mon, 23 Nov 2026 10:00:01 +0000\n",
        header=f"In-Reply-To: {mail.message_id}\nReferences: {mail.message_id}\n"
        "X-MS-Exchange-Message-Is-Ndr:\nContent-Language: de-DE\n",
        third="text/rfc822-headers",
    )


def gmail(mail: Mail) -> bytes:
    return report(
        mail,
        f"Final-Recipient: rfc822; {mail.to}\nAction: failed\nStatus: 5.1.1\n"
        "Remote-MTA: dns; gmail-smtp-in.l.google.com. (192.0.2.27, the server for the domain.)\n"
        "Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not\n"
        " exist. Please try 550 5.1.1 https://support.google.com/mail/?p=NoSuchUser\n"
        "Last-Attempt-Date: Mon, 23 Nov 2026 02:05:00 -0800 (PST)\n",
        head="Reporting-MTA: dns; googlemail.com\n",
        header=f"X-Failed-Recipients: {mail.to}\nIn-Reply-To: {mail.message_id}\n",
    )


def opensmtpd(mail: Mail) -> bytes:
    return report(mail, status(mail, "error (permanent)", "5.0.0", "550 5.1.1 no such user"))


def qmail(mail: Mail) -> bytes:
    return (
        "From: MAILER-DAEMON@mx.cust.test\nTo: bounces@shop.test\nSubject: failure notice\n"
        "Date: 23 Nov 2026 10:05:00 -0000\n\n"
        "Hi. This is the qmail-send program at mx.cust.test.\n"
        "I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        "This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
        f"<{mail.to}>:\n"
        "Sorry, no mailbox here by that name. (#5.1.1)\n\n"
        "--- Below this line is a copy of the message.\n\n"
        "Return-Path: <bounces@shop.test>\n"
        f"{mail.header}\nDear Bob\n"
    ).encode()


def old_exchange(mail: Mail) -> bytes:
    return (
        "From: System Administrator <postmaster@cust.test>\nTo: bounces@shop.test\n"
        "Subject: Undeliverable: Your order\n\n"
        "Your message\n\n  To:      Bob\n  Subject: Your order\n"
        "  Sent:    Mon, 23 Nov 2026 10:00:00 +0000\n\n"
        "did not reach the following recipient(s):\n\n"
        f"SMTP={mail.to}; on Mon, 23 Nov 2026 10:05:00 +0000\n"
        "    The recipient name is not recognized\n"
        "\tMSEXCH:IMS:Cust:MX:MX1 0 (000C05A6) Unknown Recipient\n\n"
        f"{mail.header}\n"
    ).encode()


def exim(mail: Mail) -> bytes:
    return (
        "From: Mail Delivery System <Mailer-Daemon@mx.cust.test>\nTo: bounces@shop.test\n"
        f"Subject: Mail delivery failed: returning message to sender\n"
        f"X-Failed-Recipients: {mail.to}\n\n"
        "This message was created automatically by mail delivery software.\n\n"
        "A message that you sent could not be delivered to one or more of its\n"
        "recipients. This is a permanent error. The following address(es) failed:\n\n"
        f"  {mail.to}\n"
        "    SMTP error from remote mail server after RCPT TO:\n"
        "    550 5.1.1 user unknown\n\n"
        "------ This is a copy of the message, including all the headers. ------\n\n"
        f"{mail.header}\nDear Bob\n"
    ).encode()


FORMS: dict[str, Callable[[Mail], bytes]] = {
    "Postfix": postfix,
    "Exchange Online": exchange_online,
    "Gmail": gmail,
    "OpenSMTPD": opensmtpd,
    "qmail": qmail,
    "Exim": exim,
}
"""Those that say 5.1.x: the address does not work."""


def complaint(
    mail: Mail,
    kind: str = "abuse",
    *,
    rcpt: tuple[str, ...] | None = None,
    third: str = "message/rfc822",
) -> bytes:
    """Return a complaint as RFC 5965 has it; `rcpt` is whom it names, nobody for ()."""
    named = "".join(f"Original-Rcpt-To: {one}\n" for one in ((mail.to,) if rcpt is None else rcpt))
    return (
        "From: <abusedesk@isp.test>\nTo: bounces@shop.test\nSubject: FW: Your order\n"
        "Date: Mon, 23 Nov 2026 10:05:00 +0000\nMIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=feedback-report;\n"
        '\tboundary="part1_13d.2e68ed54_boundary"\n\n'
        "--part1_13d.2e68ed54_boundary\n"
        'Content-Type: text/plain; charset="US-ASCII"\n\n'
        "This is an email abuse report for an email message.\n\n"
        "--part1_13d.2e68ed54_boundary\n"
        "Content-Type: message/feedback-report\n\n"
        f"Feedback-Type: {kind}\nUser-Agent: SomeGenerator/1.0\nVersion: 1\n"
        f"Original-Mail-From: <bounces@shop.test>\n{named}"
        "Arrival-Date: Mon, 23 Nov 2026 10:00:00 +0000\nSource-IP: 192.0.2.1\n\n"
        "--part1_13d.2e68ed54_boundary\n"
        f"Content-Type: {third}\nContent-Disposition: inline\n\n"
        f"{mail.header}\nDear Bob\n\n"
        "--part1_13d.2e68ed54_boundary--\n"
    ).encode()
