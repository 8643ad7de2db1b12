"""What messages mean and what to do, where their own text does not say it: the rows of
render_troubleshooting.py.

Each stands by a text of the code, by the name of a constant or by a part that only it has.
"""

from __future__ import annotations

Row = tuple[str, str]
_CLIENT = "the client breaks the protocol"
_REPAIR = (
    "a defect in the client, or not a mail client at all: find out who it is (`client=` in the log)"
)

SMTP: dict[str, Row] = {
    "TIMEOUT": (
        "the client was silent for too long",
        "a slow or stuck client; it connects again by itself",
    ),
    "STOPPING": (
        "the gateway stops or restarts",
        "nothing, the client tries again; PHP does not: configure the sendmail command there",
    ),
    "TOO_MANY_CONNECTIONS": (
        "`max_connections`, or `max_connections_per_client`, of the listener is reached",
        "make the client close its connections; otherwise raise the key, or add its network to "
        "`allow`, which is exempt from the second one",
    ),
    "TOO_MANY_ERRORS": ("20 errors in a session", "see the replies before this one"),
    "TOO_MANY_COMMANDS": ("a client that issues commands and sends no mail", _REPAIR),
    "TOO_FAST": (
        "`rate_per_client` of the listener is reached",
        "nothing, a mail server tries again; raise the key if this rate is intended",
    ),
    "LOGIN_BUSY": (
        "ten failed logins within ten minutes locked this address for ten minutes, or too many "
        "passwords are being verified",
        "correct the password in the client, then wait; the log names user and address: "
        "`authentication failed`",
    ),
    "NO_TLS_NOW": (
        "the certificate can no longer be used",
        "the log shows why; run `relaygw check`",
    ),
    "TOO_MANY_LOGINS": ("five failed logins in a session", "correct user and password"),
    "TROUBLE": (
        "the queue could not take the message; nothing was accepted",
        "the log has the reason: the database is unreachable, or a queue file is missing; run "
        "`relaygw db check`",
    ),
    "NO_SPACE": (
        "less than `queue.min_free` of the volume is free, or a mail of over 1 MiB would leave "
        "less than 64 MiB",
        "free some space: `df -h`; queued mail is still sent, which frees space",
    ),
    "TOO_MANY_RECIPIENTS": (
        "more than `max_recipients` of the listener in one message",
        "send in parts (mail servers do so automatically), or raise the key",
    ),
    "NOT_SMTP": (
        "a browser or a health check connects to the SMTP port",
        "point health checks at `/healthz` or `/readyz` of `web.bind`, or let them connect and "
        "send QUIT",
    ),
    "BAD_SYNTAX": (_CLIENT, _REPAIR),
    "UNKNOWN_COMMAND": (
        "not a command of this server; the PROXY header of a balancer that is not listed causes "
        "this, too",
        "list the balancer in `proxy_protocol`, if there is one",
    ),
    "LINE_TOO_LONG": ("a command of more than 2,048 bytes", _REPAIR),
    "BARE_LF": (
        "the client ends lines with a bare LF",
        "by hand, use `nc -C`; in a program, write `\\r\\n`",
    ),
    "BAD_ARGUMENT": ("a command with a wrong argument", _REPAIR),
    "BAD_PARAMETER": ("a parameter of MAIL or RCPT has an invalid value", _REPAIR),
    "UNKNOWN_PARAMETER": ("a parameter of an extension that EHLO does not offer", _REPAIR),
    "BAD_ADDRESS": (
        "an address that breaks RFC 5321: empty, an invalid domain, spaces, a missing `>`, a "
        "hyphen at the beginning (5.1.7: the sender's); 553 5.6.7: not ASCII, without SMTPUTF8",
        "correct it in the application; the log shows it as received",
    ),
    "NOT_IMPLEMENTED": (
        "AUTH without `users`, STARTTLS without a certificate, or an obsolete command",
        "turn off login and encryption in the client, or configure them: `users`, "
        "`listeners[].tls`",
    ),
    "HELO_FIRST": (_CLIENT, _REPAIR),
    "MAIL_FIRST": (
        "RCPT or DATA without an accepted MAIL",
        "see the reply to MAIL before it: that is the cause",
    ),
    "NESTED_MAIL": (_CLIENT, _REPAIR),
    "TLS_ALREADY": ("STARTTLS within TLS", "set the client to implicit TLS, or to STARTTLS"),
    "LOGIN_ALREADY": (_CLIENT, _REPAIR),
    "LOGIN_IN_MAIL": (_CLIENT, _REPAIR),
    "NO_VALID_RECIPIENTS": (
        "every RCPT was refused",
        "see the replies to RCPT before it: they are the cause",
    ),
    "UNSYNCHRONISED": (
        "the client did not wait for a reply that it has to wait for (STARTTLS, DATA)",
        _REPAIR,
    ),
    "NOT_AUTHORISED": (
        "a command that is for trusted peers only (XCLIENT and the like)",
        "for clients behind a balancer use `proxy_protocol`",
    ),
    "TOO_BIG": (
        "more than `max_message_size` of the listener",
        "raise it, if your provider accepts that much; most accept 20 to 40 MB",
    ),
    "HEADER_TOO_LONG": (
        "a header of more than `max_header_size` of the listener",
        "ordinary mail has some KiB: look for the field that grows in the application; up to 4MiB "
        "can be allowed",
    ),
    "TOO_MANY_HOPS": (
        "the message is in a mail loop",
        "make sure that no provider sends mail back to this gateway, `relaygw check --online`; see "
        "`relaygw queue explain`",
    ),
    "NOT_READABLE": (
        "the front ended three times while it read this message, so it does not read it again",
        "the log names it by size and CRC, and has the reason for each end: report it; what the "
        "client sends differently is accepted",
    ),
    "AUTH_LINE_TOO_LONG": (_CLIENT, _REPAIR),
    "AUTH_NOT_BASE64": (_CLIENT, _REPAIR),
    "AUTH_CANCELLED": ("the client cancelled its login", "see its own log"),
    "AUTH_UNKNOWN": (
        "the client wants an AUTH mechanism other than PLAIN and LOGIN",
        "set it to PLAIN or LOGIN",
    ),
    "AUTH_FAILED": (
        "unknown user or wrong password; the reply is the same on purpose",
        "compare with `users`; make a new hash with `relaygw users hash`, then reload",
    ),
    "AUTH_NEEDS_TLS": (
        "the password would cross the network in clear text",
        "set the client to STARTTLS, and `listeners[].tls` to a certificate",
    ),
    "LOGIN_REQUIRED": (
        "the listener has `auth: required`",
        "configure user and password in the client, or write `auth: optional` with its network in "
        "`allow`",
    ),
    "TLS_REQUIRED": (
        "the listener accepts logins only over TLS",
        "set the client to STARTTLS",
    ),
    "SENDER_DENIED": (
        "the user may not send as this sender (`users[].senders`)",
        "add the sender there, or correct it in the application",
    ),
    "RELAY_DENIED": (
        "the client is not in a network on `allow` of this listener and did not log in",
        "add its network to `allow`, or give it a user. In a container the client's address is "
        "that of the bridge: `client=` in the log",
    ),
    "RECIPIENT_REFUSED": (
        "the recipient is on `recipients.block`, with `blocked: reject`",
        "remove it from the list, or write `blocked: drop`",
    ),
}
"""By constants of relaygw/inbound/replies.py."""

_DEFECT = "correct the application's call"
SENDMAIL: dict[str, Row] = {
    "Recipient addresses must be specified": (
        "no address on the command line and no `-t`",
        'php.ini: `sendmail_path = "/usr/sbin/sendmail -t -i"`',
    ),
    "No recipient addresses found in message header": (
        "`-t`, and neither To, Cc nor Bcc has an address",
        "the application named no recipient: check its field To",
    ),
    "control characters in the full name": ("a line break in `-F`", _DEFECT),
    "bad … address": (
        "the word is not an address; Postfix often ignored such garbage",
        "correct the address in the application",
    ),
    "bad sender address": ("`-f` names no address, or several", _DEFECT),
    "-bv needs an address": ("`-bv` alone", "`sendmail -bv customer@example.com`"),
    "this mode takes no addresses": ("addresses after `-bp` or `-q`", _DEFECT),
    "stdin is closed": ("the caller closed its standard input", "cron jobs: do not write `<&-`"),
    "cannot run …": (
        "the program `relaygw` that `mailq`, `-q` and `-bv` need is no longer where it was "
        "installed",
        "run `relaygw install-sendmail` again",
    ),
    "-b… is done by": ("`-bd` and `-bl` are daemons", "the daemon is `relaygw serve`"),
    "that mode of -b": ("an unknown `-b`", "modes: `-bm -bs -bp -bv -bi`"),
    "-q with an interval": ("`-q15m` is a daemon", "the daemon is `relaygw serve`"),
    "-qR and -qS": ("selecting by site", "`relaygw queue flush --recipient @SITE`"),
    "-N takes": ("an unknown value of `-N`; the mail is taken without it", _DEFECT),
    "option -… needs a value": ("an option is the last word", _DEFECT),
    "-R takes": ("an unknown value of `-R`; the mail is taken without it", _DEFECT),
    "-V takes": (
        "an envelope id that is too long or not ASCII; the mail is taken without it",
        _DEFECT,
    ),
    "its header is over": (
        "a header longer than any listener accepts",
        "look for the field that grows in the application",
    ),
    "message is over": (
        "larger than the command accepts",
        "make it smaller; no provider accepts that much",
    ),
    "cannot read the message": (
        "reading standard input failed",
        "check what the caller pipes into it",
    ),
    "cannot read from stdin": (
        "with `-bs` reading the dialogue failed",
        "check what the caller has for its standard input",
    ),
    "not all mail of the session": (
        "with `-bs` mail was refused, with this reply, or the session was cut within a message",
        "correct what the reply names and hand that mail over again; the rest was taken",
    ),
    "cannot write the list": (
        "the reader of `mailq` is gone, or the disk is full",
        "free some space",
    ),
    "… field is not clean": (
        "an address field holds something that is not an address",
        "nothing was lost; correct the field in the application",
    ),
    "the gateway does not answer in": ("`mailq`, `-q` or `-bv` found no running gateway", ""),
    "no answer: the gateway is busy": ("`-q` or `-bv` of a local user got no whole answer", ""),
    "the list is incomplete": ("the output of `mailq` was cut off", ""),
    "cannot leave the message in …: …; create it": ("there is no maildrop", ""),
    "cannot leave the message in …: …; free some space": ("the volume or a quota is full", ""),
    "cannot leave the message in …: …; send the message": ("a signal ended it before the end", ""),
    "cannot leave the message in …: …; this user may not enter": (
        "PHP's user cannot reach the maildrop because of a directory above it, such as a home "
        "directory",
        "",
    ),
    "cannot leave the message in …: …; let this user write": (
        "the maildrop has another owner or mode, or the user is not in `maildrop.group`; under "
        "systemd's `ProtectSystem=strict` the unit of FPM needs `ReadWritePaths=` for it",
        "",
    ),
    "cannot leave the message in …: …; the machine cannot": (
        "a failing disk, or no descriptors or memory left; nothing was left in the maildrop",
        "",
    ),
    "no queue of the name": ("`postsuper -d ALL NAME` names an unknown queue", ""),
    "-… is not supported; ": (
        "an option of `postqueue` or `postsuper` that has no equivalent here",
        "",
    ),
    "too many recipients": (
        "more than fit into 256 KiB",
        "send in parts, or by SMTP with `max_recipients`",
    ),
    "internal error, nothing was sent": (
        "a defect in relaygw; exit code 75, so that callers try again if they can",
        "report it with the whole line",
    ),
}
"""By how the texts of relaygw/sendmail/ begin; where nothing is to do the text itself says it."""

WITHOUT_REMEDY: dict[str, str] = {
    "nothing released: …": "check what is captured, then give the number in the message",
    "the front refused the …": "look up the reply above",
    "the server on … is not relaygw": "another mail server has the port: stop it, or change `bind`",
    "… … is not an address: …": "write `LOCALPART@DOMAIN`",
    "the log of the queue cannot be read": "run it as relaygw's user; is a volume missing?",
    "this user may not write there": "run it as relaygw's user, or name another `queue.url`",
    "synchronous is …": "remove `?synchronous=` from `queue.url`: mail would not be safe",
    "the database has no queue and is not empty": "see the message itself",
    "LISTEN_FDS: descriptor": "systemd sets it, start relaygw without it",
    "queue.password: …": "the password reference: see [secrets.md](secrets.md)",
}
"""What to do about texts of commands, the store and the roles that name no remedy themselves."""

_PAIRS = "the addresses of relaygw.socket and of `listeners` differ"
START: list[tuple[str, str, str]] = [
    (
        "roles/sockets.py",
        "cannot listen on",
        "`Address already in use`: Postfix on 25, Mailpit, MailHog or DDEV on 1025 and 8025 ([how "
        "to find it](coming-from-mailpit.md#the-ports-are-taken)), or another relaygw; "
        "`Permission denied`: a port below 1024 without the privilege; `Cannot assign requested "
        "address`: this machine has no such address",
    ),
    ("roles/sockets.py", "listeners do not name", _PAIRS),
    ("roles/sockets.py", "relaygw.socket does not pass", _PAIRS),
    ("roles/sockets.py", "write one ListenStream= for each", ""),
    ("settings/listeners.py", "send through", ""),
    ("settings/listeners.py", "to name the client: an open relay", ""),
    ("settings/listeners.py", "there are no users", ""),
    ("settings/listeners.py", "passwords are not accepted over a network", ""),
    ("settings/listeners.py", "is not an argon2 hash", ""),
    ("settings/secrets.py", "is not a secret reference", "a password is in the file itself"),
    ("settings/secrets.py", "everyone on this machine may read", ""),
    ("settings/secrets.py", "who could replace it", ""),
    ("settings/problems.py", "is not a key here; the keys are", "a key that is in no section"),
    ("settings/model.py", "is not the URL of a SQLite file", ""),
    ("settings/model.py", "holds a password; remove it", ""),
    ("store/log_check.py", "the database of the queue is", "see [a damaged queue]"),
    ("store/log_check.py", "only in that log; put it back beside", "see [a damaged queue]"),
    ("store/log_check.py", "was removed or replaced while relaygw ran", "see [a damaged queue]"),
    ("store/database.py", "relaygw db check shows more", "see [a damaged queue]"),
    (
        "supervisor.py",
        "the queue could not be prepared",
        "the database is unreachable, read-only or damaged: the line above shows which",
    ),
]
"""Module, a part of the text, and what it means where the text does not say it."""
