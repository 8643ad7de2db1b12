"""Prints docs/replies.md: `python -m tests.docs.render_replies > docs/replies.md`.

The tables come from relaygw/upstream/replies.yaml, the words around them stand here.
"""

from __future__ import annotations

from relaygw.settings.provider import ReplyRow
from relaygw.settings.section import format_duration
from relaygw.upstream.classifier import GENERIC, catalogue

INTRODUCTION = """\
# Replies of providers

Printed from `relaygw/upstream/replies.yaml` by `python -m tests.docs.render_replies`; a test compares.

The class of a reply can mislead: Mailgun's 421 may mean "account disabled", SendGrid's 451 "no
credits left", Mailtrap's 535 "too many connections", a 550 from Gmail "try again tomorrow". So
each reply is looked up: in the provider's own rows of the configuration, in those of its preset,
in the generic ones. The first matching row decides; a reply that no row matches means another try.

Mail bounces only when the recipient or the message is at fault. A refusal of this server, the
account, the login or the sender never bounces mail, not even at RCPT: the mail waits or is held,
and so it is for a 5xx that no row matches. Mail that waits for hours raises an alert
(`queue_age`) long before its lifetime ends.

`relaygw classify PROVIDER 'REPLY'` shows what a reply means here.

## Verdicts

| verdict | what happens |
|---|---|
| delivered | 2xx after the final dot, and nothing else; not for a recipient of whom a row knows that the 2xx to RCPT meant "taken, and delivered to nobody" |
| retry | the mail waits and is tried again, for `retry.lifetime` at most |
| throttle | the provider is sent less: fewer messages (limit rate) or connections (limit connections); no attempt is counted |
| hold | sending stops, the mail stays in the queue, the log names the remedy once, and one message at a time is sent as a probe; no attempt is counted, and the time does not count against `retry.lifetime` |
| bounce | refused permanently; only a 5xx from MAIL on, or such a 2xx to RCPT |
| doubt | the connection was lost after the final dot ([decision 5](decisions/0005-doubt.md)), or the provider says that it has an earlier try: with a wait it is asked again, else the mail is held |

## Scopes

| scope | whom it concerns |
|---|---|
| recipient | this recipient of the message |
| message | all recipients of this transaction |
| sender domain | mail of this sender's domain; other mail goes on |
| credential | the login, so all mail for the provider |
| provider | all mail for the provider |

A wait is a ladder: `5s, 30s, 20m` is 5 seconds, then 30, then 20 minutes each time. For
retry it is the wait before the next attempt instead of the default, for hold that before the
next probe, for throttle that before the next message when nothing is accepted any more: 55 seconds
at most, whatever a row says, as a provider that is [paused](providers.md#when-a-provider-is-down) is tried at least once a minute.

## When everybody is refused with the same words

No list covers every reply. So a provider is also held when it refuses 20 messages in a row, to
at least 20 recipients, with the same words; addresses, names, ids and numbers are ignored. Of
temporary refusals only the first of each message counts, and the 20 recipients have to be of at
least 3 domains, since one recipient's server may ask all mail to come later. The 20th message and those after it stay in the queue, also after a restart, until one
message is accepted or the hold is ended (`relaygw provider release NAME`). The hold shows the words
and the remedy. Any accepted message restarts the count. If the replies are right and 20
addresses in a row are wrong, delete their mail before you end the hold.

A recipient refused at RCPT, in a transaction where another one was accepted, waits alone,
whatever the reply: client, login and sender were good enough for the other one. A refusal of one
recipient after the content of a transaction with several bounces none of them, because it does
not say which.

## Own rows

A provider's own rows come before all others, in the form of the built-in ones
([configuration.md](configuration.md) has every key):

```yaml
mode: production
providers:
  orders:
    host: smtp.example.net
    username: shop
    password: "env:ORDERS_KEY"
    replies:
      # our provider says 550 when we are too fast
      - code: "550"
        text: 'slow down|burst limit'
        verdict: throttle
        limit: rate
        wait: [10s, 1m, 10m]
        explanation: More than 50 messages in ten seconds.
        remedy: Set rate of this provider to 5/s.
      # and so when somebody changed the sender to a domain that it does not know
      - stages: [mail, content]
        status: '5\\.7\\.(1|60)'
        text: 'unknown sender domain'
        verdict: hold
        scope: sender domain
        remedy: Ask the provider's support to add the domain.
routes:
  - {name: default, providers: [orders]}
```

- All conditions of a row must match; at least one of `code`, `status` and `text` is needed.
  `code` and `status` match the whole value, `text` any part; all are regular expressions,
  ignoring case.
- The text joins all lines with single spaces, the status is that of the first line. Addresses
  and anything between `<` and `>` are removed first: a customer's input must not match.
- Rows are for refusals. A code that could be below 400 is an error: a 2xx after the final dot is
  delivered, whatever it says, and a 2xx or 3xx elsewhere is left to relaygw. Only `stages: [rcpt]` with
  `bounce` and a text or status may have a code 252 to 299: some services take a recipient so of whom they know
  that they deliver nothing, as Oracle's 254.
- `bounce` is for a 5xx from MAIL on. Before MAIL it is an error, and without `stages` such a
  row applies only from MAIL on: a refusal of the session says nothing about a message.
- Without `scope`: retry and bounce concern the recipient at stage rcpt, else the message; before
  MAIL, and for throttle, the provider; hold the credential at stage auth, else the provider.
- Without `limit` a throttle is for the rate, before MAIL for connections.

Test a row before you rely on it: `relaygw classify orders '550 burst limit reached'`.

## What is built in
"""  # noqa: E501

TITLES = {
    "sendgrid": "SendGrid",
    "mailgun": "Mailgun",
    "ses": "Amazon SES",
    "gmail": "Gmail and Google Workspace relay",
    "microsoft365": "Microsoft 365",
    "postmark": "Postmark",
    "sparkpost": "SparkPost",
    "mandrill": "Mandrill",
    "brevo": "Brevo",
    "mailjet": "Mailjet",
    "smtp2go": "SMTP2GO",
    "resend": "Resend",
    "mailtrap": "Mailtrap",
    "zeptomail": "ZeptoMail",
    "zoho": "Zoho Mail",
    "cloudflare": "Cloudflare Email Service",
    "scaleway": "Scaleway Transactional Email",
    "azure": "Azure Communication Services",
    "mailersend": "MailerSend",
    "infobip": "Infobip",
    "oci": "Oracle Cloud Email Delivery",
    GENERIC: "Generic: after those of the preset, for every provider",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _condition(row: ReplyRow) -> str:
    parts = [f"`{_cell(part)}`" for part in (row.code, row.status, row.text) if part]
    at = f" at {', '.join(row.stages)}" if row.stages else ""
    return " ".join(parts) + at


def _verdict(row: ReplyRow) -> str:
    more = [part for part in (row.scope, row.limit) if part]
    wait = ", ".join(map(format_duration, row.wait))
    return row.verdict + "".join(f", {part}" for part in more) + (f"; {wait}" if wait else "")


def _table(rows: tuple[ReplyRow, ...]) -> list[str]:
    lines = ["| reply | verdict | meaning and remedy | source |", "|---|---|---|---|"]
    for row in rows:
        words = " ".join(filter(None, (row.explanation, row.remedy)))
        lines.append(f"| {_condition(row)} | {_verdict(row)} | {_cell(words)} | {row.source} |")
    return lines


def render() -> str:
    """Return the page."""
    lines = INTRODUCTION.splitlines()
    for section, title in TITLES.items():
        lines += ["", f"### {title}", "", *_table(catalogue()[section])]
    lines += [
        "",
        "Mandrill, Postmark, ZeptoMail and Cloudflare refuse some mail only after they have",
        "accepted it; no reply shows that, so check their logs, too.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
