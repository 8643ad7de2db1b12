"""Prints docs/troubleshooting.md: `python -m tests.docs.render_troubleshooting`.

Messages are read from the code and from relaygw/upstream/replies.yaml; what they mean and what to
do stands in troubles.py, where the messages do not say it themselves.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from relaygw.inbound import replies
from relaygw.mail.outcome import Meaning, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import STAGES, Provider
from relaygw.upstream.classifier import GENERIC, Classifier
from tests.docs.error_texts import called, modules, the_text
from tests.docs.render_replies import TITLES
from tests.docs.troubles import SENDMAIL, SMTP, START, WITHOUT_REMEDY
from tests.docs.troubles_running import ALERTS, LOG, PROVIDERS

ERRORS = (
    "CommandFailed",
    "StoreUnavailable",
    "QueueDamaged",
    "SchemaMismatch",
    "UnfitServer",
    "MaildropUnusable",
    "SettingsError",
    "RelaygwError",
    "NotAQueue",
    "PostfixRuns",
    "Mistake",
)
ROOMS = (
    "cli", "operations/guard.py", "store", "settings", "roles", "supervisor.py",
    "inbound/drop_directory.py", "relaygw_postfix/cli", "relaygw_postfix/queue_directory.py",
)  # fmt: skip
_SPOOL = (
    "create it, or start",
    "free some space there",
    "send the message again",
    "this user may not enter",
    "let this user write there",
    "the machine cannot do it now",
)
_DAMAGED = "[a damaged queue](operating.md#a-damaged-queue)"
_LEAST_LETTERS = 8  # of a message that can be found by what it says
_REPLY = re.compile(r"(?:[45]\d\d|221|\{code\}) \S+ .*Error.*|[45]\d\d .*")

INTRODUCTION = """\
# Troubleshooting by message text

Printed from the error texts in the code and from the catalogue of replies by
`python -m tests.docs.render_troubleshooting > docs/troubleshooting.md`; a test compares. Search
this page for part of the text you see, without names, addresses and numbers: `…` stands for
them.

Three commands answer most questions before you look here:

```sh
relaygw status                     # what is wrong now, with the remedy
relaygw check                      # what is wrong with the configuration; --online asks the providers
relaygw queue list --state all     # what became of mail; then: relaygw queue explain ID
```

| what you see | look at |
|---|---|
| the application got 250, the customer got nothing | `relaygw queue explain ID`: it waits, is held, bounced, or was *captured*: mode sandbox, or staging and not on `recipients.allow` |
| `mail()` returns true, but `relaygw queue list --state all` does not show the mail | `php -i \\| grep sendmail_path` as the user of the shop: another mailer's command; `relaygw status` shows what is in the maildrop |
| all mail goes to one provider | `relaygw check --sender A --recipient B` shows which route it takes and why |
| mail is late | `relaygw status`: what waits, and which provider is slow, held or at its limit; `relaygw queue shape --by reason`: how much waits for what, and for how long |
| the page at port 8025 asks for a login, or says 404 | [who sees the web pages](security.md#who-sees-the-web-pages) |
"""  # noqa: E501


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _shown(text: str) -> str:
    return f"`{_cell(text).replace('`', chr(39))}`"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _split(text: str) -> tuple[str, str]:
    """Return what is searched for of an error, and the remedy behind it, "" without one."""
    what, _, remedy = text.partition("; ")
    return what if len(re.sub(r"\W", "", what)) > _LEAST_LETTERS else text, remedy


# --- the gateway as a server --------------------------------------------------------------------


def refusals() -> dict[str, str]:
    """Return the refusals of the front by the names of their constants."""
    texts = {name: text for name, text in vars(replies).items() if isinstance(text, str)}
    return {name: text for name, text in texts.items() if name.isupper() and _REPLY.match(text)}


def _smtp() -> Iterator[tuple[str, ...]]:
    address = {"code": "501", "status": "5.1.3"}
    filled = {
        name: re.sub(r"\{(\w+)\}", lambda found: address.get(found[1], "…"), text)
        for name, text in refusals().items()
    }
    for name, text in sorted(filled.items(), key=lambda pair: (pair[1], pair[0])):
        yield _shown(text), *map(_cell, SMTP[name])


# --- the sendmail command -----------------------------------------------------------------------


@functools.cache
def sendmail_texts() -> list[str]:
    """Return what the command may say, each once."""
    found = [text for one in modules("sendmail") for text in called(one, ("Failure", "warn"))]
    spool = "sendmail/spool.py"
    left = the_text(spool, "cannot leave the message in").rpartition("…")[0]
    found += [left + the_text(spool, remedy) for remedy in _SPOOL]
    return list(dict.fromkeys(found))


def _sendmail() -> Iterator[tuple[str, ...]]:
    for text in sendmail_texts():
        rows = (row for part, row in SENDMAIL.items() if text.startswith(part))
        means, remedy = next(rows, ("", ""))  # without one a test fails and says where
        yield _shown(text), _cell(means), _cell(remedy or "see the message itself")


# --- starting, commands, the log, alerts --------------------------------------------------------


def _start() -> Iterator[tuple[str, ...]]:
    for module, part, means in START:
        what, remedy = _split(the_text(module, part))
        means = means.replace("[a damaged queue]", _DAMAGED)
        yield (
            _shown(what),
            _cell(" ".join(filter(None, (means, remedy.strip("…; ") and f"→ {remedy}")))),
        )


@functools.cache
def command_texts() -> list[str]:
    """Return the errors of commands, the store and the settings that say something themselves."""
    found = (text for one in modules(*ROOMS) for text in called(one, ERRORS))
    return [text for text in dict.fromkeys(found) if len(re.sub(r"\W", "", text)) > 10]


def _commands() -> Iterator[tuple[str, ...]]:
    rows = {}
    for text in sorted(command_texts(), key=lambda text: text.strip("…:, ").lower()):
        what, remedy = _split(text)
        known = next((do for part, do in WITHOUT_REMEDY.items() if part in text), "")
        rows.setdefault(_shown(what), _cell(known or remedy))
    yield from rows.items()


def _log() -> Iterator[tuple[str, ...]]:
    for module, part, means, do in LOG:
        yield _shown(the_text(module, part)), _cell(means), _cell(do)


def _alerts() -> Iterator[tuple[str, ...]]:
    for rule, (module, part) in ALERTS.items():
        yield _shown(the_text(module, part)), f"`{rule}`"


# --- providers ----------------------------------------------------------------------------------

_HAPPENS = {
    Verdict.RETRY: "tried again",
    Verdict.THROTTLE: "sent more slowly",
    Verdict.HOLD: "held, probed",
    Verdict.BOUNCE: "bounces",
}


def meaning_of(preset: str, stage: str, reply: str) -> Meaning:
    """Return what a reply means when a provider of a preset gives it."""
    provider = Provider(host="localhost", preset=None if preset == GENERIC else preset)
    return Classifier(provider).meaning(STAGES[stage], SmtpReply(int(reply[:3]), (reply[4:],)))


def _providers() -> Iterator[tuple[str, ...]]:
    for preset, stage, reply in PROVIDERS:
        who = "any" if preset == GENERIC else TITLES[preset]
        said = meaning_of(preset, stage, reply)
        yield (
            who,
            _shown(reply),
            _HAPPENS[said.verdict],
            _cell(said.explanation),
            _cell(said.remedy or "nothing"),
        )


SECTIONS = (
    (
        "What the gateway answers to a client",
        "Replies to SMTP, also by `sendmail -bs`. 4xx means that a mail server tries again by"
        " itself; PHP and most shops\n"
        "do not. Each is counted in `relaygw_smtp_replies_total`.",
        ("reply", "means", "do"),
        _smtp,
    ),
    (
        "What the sendmail command says",
        "On standard error, after `sendmail: `. PHP shows it in the FPM log, cron mails it. Exit "
        "code 64: the call is\n"
        "wrong; 66: no message; 69: never; 75: not now. PHP's `mail()` returns false for each"
        " of them.",
        ("message", "means", "do"),
        _sendmail,
    ),
    (
        "relaygw does not start",
        "Errors of the configuration have the form `FILE:LINE: KEY: VALUE what is wrong; what"
        " to write`: all of them at\n"
        "once, a line each, also by `relaygw check`. Behind → stands what the message itself says.",
        ("message", "means, do"),
        _start,
    ),
    (
        "What commands say",
        "One line on standard error; [exit codes](commands.md#everywhere). Their remedy follows "
        "the semicolon.",
        ("message", "do"),
        _commands,
    ),
    (
        "Lines of the log",
        "After `relaygw/DAEMON[PID]: `. Lines about mail itself follow Postfix's grammar: "
        "[operating.md](operating.md#logs).",
        ("line", "means", "do"),
        _log,
    ),
    (
        "Alerts",
        "Each notice has its remedy; [operating.md](operating.md#alerts) shows for each rule when "
        "it fires and what to do.",
        ("notice", "rule"),
        _alerts,
    ),
    (
        "What providers say",
        "As in the log after `status=deferred (`, in `relaygw queue explain ID` "
        "and on the dashboard. These are\n"
        "examples; [replies.md](replies.md) has all rows, and `relaygw classify PROVIDER "
        "'REPLY'` explains any reply.",
        ("provider", "reply", "its mail is", "means", "do"),
        _providers,
    ),
)


def render() -> str:
    """Return the page."""
    lines = INTRODUCTION.splitlines()
    for title, words, heads, rows in SECTIONS:
        lines += ["", f"## {title}", "", *words.splitlines(), "", *_table(heads, rows())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
