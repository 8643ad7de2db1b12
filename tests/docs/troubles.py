"""What messages mean and what to do, where their own text does not say it: the rows of
render_troubleshooting.py.

Each stands by a text of the code, by the name of a constant or by a part that only it has.
"""

from __future__ import annotations

Row = tuple[str, str]
_CLIENT = "the client breaks the protocol"
_REPAIR = "a defect of the client, or no mail client at all: see who it is (`client=` in the log)"

SMTP: dict[str, Row] = {
    "TIMEOUT": (
        "the client said nothing for too long",
        "a slow or stuck client; it connects again by itself",
    ),
    "STOPPING": (
        "the gateway stops or restarts",
        "nothing, the client tries again; PHP does not: let it use the sendmail command",
    ),
    "TOO_MANY_CONNECTIONS": (
        "`max_connections`, or `max_connections_per_client`, of the listener is reached",
        "let the client close what it opens; else raise the key, or put its network into `allow`, "
        "which is exempt from the second one",
    ),
    "TOO_MANY_ERRORS": ("20 errors in a session", "see the replies before this one"),
    "TOO_MANY_COMMANDS": ("a client that talks and sends nothing", _REPAIR),
    "TOO_FAST": (
        "`rate_per_client` of the listener is reached",
        "nothing, a mail server tries again; raise the key if this much is right",
    ),
    "LOGIN_BUSY": (
        "ten failed logins within ten minutes locked this address for ten minutes, or too many "
        "passwords are being verified",
        "correct the password in the client, wait; the log names user and address: "
        "`authentication failed`",
    ),
    "NO_TLS_NOW": (
        "the certificate cannot be used any more",
        "the log says why; `relaygw check`",
    ),
    "TOO_MANY_LOGINS": ("five failed logins in a session", "correct user and password"),
    "TROUBLE": (
        "the queue could not take the message; nothing was accepted",
        "the log has the reason: the database is away, or a file of the queue. `relaygw db check`",
    ),
    "NO_SPACE": (
        "less than `queue.min_free` of the volume is free",
        "make room: `df -h`; what is queued goes on being sent and frees space",
    ),
    "TOO_MANY_RECIPIENTS": (
        "more than `max_recipients` of the listener in one message",
        "send in parts (mail servers do so by themselves), or raise the key",
    ),
    "NOT_SMTP": (
        "a browser or a health check talks to the SMTP port",
        "health checks ask `/healthz` or `/readyz` of `web.bind`, or connect and send QUIT",
    ),
    "BAD_SYNTAX": (_CLIENT, _REPAIR),
    "UNKNOWN_COMMAND": (
        "no such command here; a PROXY header of a balancer that is not listed looks so, too",
        "list the balancer in `proxy_protocol`, if there is one",
    ),
    "LINE_TOO_LONG": ("a command of more than 2,048 bytes", _REPAIR),
    "BARE_LF": (
        "the client ends lines as files do",
        "by hand use `nc -C`; in a program write `\\r\\n`",
    ),
    "BAD_ARGUMENT": ("a command with wrong words behind it", _REPAIR),
    "BAD_PARAMETER": ("a parameter of MAIL or RCPT has a value that is none", _REPAIR),
    "UNKNOWN_PARAMETER": ("a parameter of an extension that EHLO does not offer", _REPAIR),
    "BAD_ADDRESS": (
        "an address that breaks RFC 5321: empty, nothing or nonsense behind `@`, spaces, a missing "
        "`>`, a hyphen at the beginning (5.1.7: the sender's); 553 5.6.7: not ASCII and no "
        "SMTPUTF8",
        "correct it in the application; the log shows it as it came",
    ),
    "NOT_IMPLEMENTED": (
        "AUTH without `users`, STARTTLS without a certificate, or a command of another age",
        "turn off login and encryption in the client, or configure them: `users`, "
        "`listeners[].tls`",
    ),
    "HELO_FIRST": (_CLIENT, _REPAIR),
    "MAIL_FIRST": (
        "RCPT or DATA without a MAIL that was taken",
        "see the reply to MAIL before it: that is the trouble",
    ),
    "NESTED_MAIL": (_CLIENT, _REPAIR),
    "TLS_ALREADY": ("STARTTLS within TLS", "set the client to implicit TLS, or to STARTTLS"),
    "LOGIN_ALREADY": (_CLIENT, _REPAIR),
    "LOGIN_IN_MAIL": (_CLIENT, _REPAIR),
    "NO_VALID_RECIPIENTS": (
        "every RCPT was refused",
        "see the replies to RCPT before it: they are the trouble",
    ),
    "UNSYNCHRONISED": (
        "commands were sent in one go where an answer has to come first (STARTTLS, DATA)",
        _REPAIR,
    ),
    "NOT_AUTHORISED": (
        "a command that is for trusted peers only (XCLIENT and the like)",
        "who connects through a balancer is told by `proxy_protocol`",
    ),
    "TOO_BIG": (
        "more than `max_message_size` of the listener",
        "raise it, if your provider takes that much; most take 20 to 40 MB",
    ),
    "TOO_MANY_HOPS": (
        "the message has been through here, or elsewhere, again and again",
        "see that no provider hands back to this gateway; `relaygw queue explain`",
    ),
    "AUTH_LINE_TOO_LONG": (_CLIENT, _REPAIR),
    "AUTH_NOT_BASE64": (_CLIENT, _REPAIR),
    "AUTH_CANCELLED": ("the client gave up its login", "see its own log"),
    "AUTH_UNKNOWN": (
        "the client wants another way to log in than PLAIN and LOGIN",
        "set it to PLAIN or LOGIN",
    ),
    "AUTH_FAILED": (
        "unknown user or wrong password: both look alike on purpose",
        "compare with `users`; a new hash by `relaygw users hash`, then reload",
    ),
    "AUTH_NEEDS_TLS": (
        "a password would go over the network in clear",
        "set the client to STARTTLS, and `listeners[].tls` to a certificate",
    ),
    "LOGIN_REQUIRED": (
        "the listener has `auth: required`",
        "give the client user and password, or write `auth: optional` with its network in `allow`",
    ),
    "TLS_REQUIRED": (
        "the listener takes a login over TLS only",
        "set the client to STARTTLS",
    ),
    "SENDER_DENIED": (
        "the user may not send as this sender (`users[].senders`)",
        "add the sender there, or correct it in the application",
    ),
    "RELAY_DENIED": (
        "the client is in no network of `allow` of this listener and did not log in",
        "add its network to `allow`, or give it a user. In a container the client's address is "
        "that of the bridge: `client=` in the log",
    ),
    "RECIPIENT_REFUSED": (
        "the recipient is on `recipients.block`, with `blocked: reject`",
        "take it off the list, or write `blocked: drop`",
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
        "the application sent to nobody: look at its field To",
    ),
    "control characters in the full name": ("a line break in `-F`", _DEFECT),
    "bad … address": (
        "what stands there is no address; as many applications as sent garbage to Postfix do",
        "correct the address where the application has it",
    ),
    "bad sender address": ("`-f` names no address, or several", _DEFECT),
    "-bv needs an address": ("`-bv` alone", "`sendmail -bv customer@example.com`"),
    "this mode takes no addresses": ("addresses behind `-bp` or `-q`", _DEFECT),
    "stdin is closed": ("the caller closed its standard input", "cron jobs: do not write `<&-`"),
    "cannot run …": (
        "the program `relaygw` that `mailq`, `-q` and `-bv` need is not where it was installed",
        "`relaygw install-sendmail` again",
    ),
    "-b… is the work of": ("`-bd` and `-bl` are daemons", "the daemon is `relaygw serve`"),
    "that mode of -b": ("an unknown `-b`", "modes: `-bm -bs -bp -bv -bi`"),
    "-q with an interval": ("`-q15m` is a daemon", "the daemon is `relaygw serve`"),
    "-qR and -qS": ("selecting by site", "`relaygw queue flush --recipient @SITE`"),
    "-N takes": ("a word that `-N` does not have", _DEFECT),
    "option -… needs a value": ("an option is the last word", _DEFECT),
    "-R takes": ("a word that `-R` does not have", _DEFECT),
    "-V takes": ("an envelope id that is too long or not ASCII", _DEFECT),
    "message is over": (
        "larger than the command ever takes",
        "make it smaller; no provider takes so much",
    ),
    "cannot read the message": ("reading standard input failed", "see what the caller feeds it"),
    "cannot write the list": ("the reader of `mailq` is gone, or a full disk", "make room"),
    "… field is not clean": (
        "a field of addresses has something that is none",
        "nothing was lost; correct the field in the application",
    ),
    "the gateway does not answer in": ("`mailq` found no running gateway", ""),
    "the list ends early": ("`mailq` was cut", ""),
    "cannot leave the message in …: …; create it": ("there is no maildrop", ""),
    "cannot leave the message in …: …; make room": ("the volume or a quota is full", ""),
    "cannot leave the message in …: …; send the message": ("a signal ended it before the end", ""),
    "cannot leave the message in …: …; this user may not pass": (
        "PHP's user is kept out of the maildrop by a directory above it, such as a home directory",
        "",
    ),
    "cannot leave the message in …: …; let this user write": (
        "the maildrop has another owner or mode, or the user is not in `maildrop.group`; under "
        "systemd's `ProtectSystem=strict` the unit of FPM needs `ReadWritePaths=` for it",
        "",
    ),
    "no queue of the name": ("`postsuper -d ALL NAME` names a queue that is none", ""),
    "-… is not supported; ": ("an option of `postqueue` or `postsuper` without a match here", ""),
    "too many recipients": (
        "more than fit into 256 KiB",
        "send in parts, or by SMTP with `max_recipients`",
    ),
    "internal error, nothing was sent": (
        "a defect of relaygw; exit code 75, so that callers who can will try again",
        "report it with the whole line",
    ),
}
"""By how the texts of relaygw/sendmail/ begin; where nothing is to do the text itself says it."""

WITHOUT_REMEDY: dict[str, str] = {
    "nothing released: …": "look again what is captured, then give the number that it names",
    "the front refused the …": "look the reply up above",
    "what listens on … is not relaygw": "another mail server has the port: stop it, or change "
    "`bind`",
    "… … is not an address: …": "write `LOCALPART@DOMAIN`",
    "the log of the queue cannot be read": "run it as relaygw's user; is a volume missing?",
    "this user may not write there": "run it as relaygw's user, or name another `queue.url`",
    "synchronous is …": "take `?synchronous=` out of `queue.url`: mail would not be safe",
    "the database has no queue and is not empty": "as the message says",
    "queue.password: …": "the reference of the password: see [secrets.md](secrets.md)",
}
"""What to do about texts of commands, the store and the roles that name no remedy themselves."""

_PAIRS = "the addresses of relaygw.socket and of `listeners` differ"
START: list[tuple[str, str, str]] = [
    (
        "roles/sockets.py",
        "cannot listen on",
        "`Address already in use`: Postfix on 25, Mailpit, MailHog or DDEV on 1025 and 8025 "
        "([how to find it](coming-from-mailpit.md#the-ports-are-taken)), or another relaygw; "
        "`Permission denied`: a port below 1024 without the right to it; `Cannot assign "
        "requested address`: this machine has no such address",
    ),
    ("roles/sockets.py", "listeners do not name", _PAIRS),
    ("roles/sockets.py", "relaygw.socket does not hand over", _PAIRS),
    ("roles/sockets.py", "write one ListenStream= for each", ""),
    ("settings/listener.py", "send through", ""),
    ("settings/listener.py", "believes", ""),
    ("settings/listener.py", "there are no users", ""),
    ("settings/listener.py", "passwords are not taken over a network", ""),
    ("settings/listener.py", "is no argon2 hash", ""),
    ("settings/secrets.py", "is not a secret reference", "a password stands in the file itself"),
    ("settings/secrets.py", "everyone on this machine may read", ""),
    ("settings/secrets.py", "who could replace it", ""),
    ("settings/problems.py", "is no key here; the keys are", "a key that no section has"),
    ("settings/problems.py", "is not in this version yet", "of a later version"),
    ("settings/model.py", "is not the URL of a SQLite file", ""),
    ("settings/model.py", "holds a password; take it out", ""),
    ("store/log_check.py", "the database of the queue is", "see [a damaged queue]"),
    ("store/log_check.py", "it alone; put it back beside", "see [a damaged queue]"),
    ("store/log_check.py", "was removed or replaced while relaygw ran", "see [a damaged queue]"),
    ("store/database.py", "relaygw db check tells more", "see [a damaged queue]"),
    (
        "supervisor.py",
        "the queue could not be prepared",
        "the database is away, read only or damaged: the line above says which",
    ),
]
"""Module, a part of the text, and what it means where the text does not say it."""
