"""What is seen while it runs: lines of the log, alerts, replies of providers; see troubles.py.

Each stands by a module and a part of its text that only it has.
"""

from __future__ import annotations

LOG: list[tuple[str, str, str, str]] = [
    (
        "delivery/holds.py",
        "is down (",
        "three failed connections in a row",
        "`relaygw check --online` tests it step by step; it is retried automatically",
    ),
    (
        "delivery/holds.py",
        "no mail is lost",
        "a provider refused key, account or a sender's domain, or is paused: its mail waits",
        "the remedy is in the line; a probe ends it automatically, `relaygw provider release NAME` "
        "ends it now",
    ),
    (
        "delivery/learning.py",
        "its rate is now adapted",
        "the provider asked to slow down",
        "nothing; set `rate` to what it allows",
    ),
    (
        "delivery/learning.py",
        "their number is now adapted",
        'the provider said "too many connections"',
        "nothing; set `max_connections` lower",
    ),
    (
        "delivery/janitor.py",
        "the message may be sent more than once",
        "a worker died just after the final dot",
        "ask the provider whether it has the message",
    ),
    (
        "delivery/worker.py",
        "the clock of the queue was",
        "the clock was set",
        "use NTP",
    ),
    (
        "upstream/pool.py",
        "does not handle chained transactions",
        "this provider loses step where an envelope follows a content",
        "set `chain_transactions: false`",
    ),
    ("inbound/connection.py", "timeout in", "a client stalled", "check that client"),
    ("inbound/connection.py", "too many connections from", "421 4.7.0 above", "see there"),
    (
        "inbound/login.py",
        "authentication failed",
        "a wrong password or user; an unknown user name is hidden, because it may be a password",
        "correct it in the client; if strangers cause many of them, close the port to them",
    ),
    (
        "inbound/listeners.py",
        "sessions were closed",
        "a client did not end within the time of a stop",
        "nothing: it got no 250 and sends again",
    ),
    (
        "inbound/session.py",
        "not trusted",
        "a client states who submitted the mail, and is not trusted to",
        "as in the line",
    ),
    (
        "inbound/tls.py",
        "error: listener",
        "a renewed certificate cannot be used",
        "fix the file; the old one stays in use until then",
    ),
    (
        "inbound/maildrop.py",
        "local mail stays in the maildrop",
        "the queue cannot be written",
        "see 451 4.3.0 above; nothing is lost",
    ),
    (
        "inbound/drop_directory.py",
        "left in place",
        "a file in the maildrop that is not mail, or is damaged",
        "`relaygw status` names it; fix or remove it",
    ),
    (
        "roles/process.py",
        "has the hostname",
        "two gateways of one queue have the same name",
        "set `hostname` in each",
    ),
    (
        "roles/process.py",
        "heartbeat failed",
        "the database does not answer",
        "it is retried; check the database",
    ),
    (
        "store/capacity.py",
        "PostgreSQL grants",
        "fewer than a busy gateway uses; it works, and mail may wait",
        "the statement at the end of the line, or `max_connections`",
    ),
    (
        "roles/delivery.py",
        "the worker waits",
        "the delivery worker cannot connect to PostgreSQL; mail waits",
        "it is retried every two seconds; the reason is in the line",
    ),
    (
        "supervisor.py",
        "reload refused",
        "the new configuration is wrong",
        "`relaygw check`, then reload again",
    ),
    (
        "supervisor.py",
        "restarting it in",
        "a process died; no mail is lost",
        "out of memory? `journalctl -k`; else report it with the lines before",
    ),
    (
        "roles/children.py",
        "has hung for",
        "a process does nothing, although it runs: stopped by hand, by a debugger, by a disk that "
        "hangs",
        "nothing: it is killed and restarted when it has hung for 135 s, and `role_hung` tells of "
        "it; if it comes again, look at what the log has before it",
    ),
    (
        "supervisor.py",
        "every message is captured",
        "mode sandbox: nothing is ever sent",
        "correct on a developer's machine",
    ),
    (
        "observe/metrics.py",
        "metrics are not written",
        "no space in the state directory",
        "free some space; what was counted meanwhile is written then",
    ),
    (
        "alerting/notifier.py",
        "alert not sent to",
        "a channel of `alerts` does not answer",
        "`relaygw alerts test`",
    ),
]
"""Module, a part of the line, what it means, what to do."""

ALERTS: dict[str, tuple[str, str]] = {
    "provider_down": ("alerting/rules.py", "cannot be reached: …"),
    "provider_paused": ("alerting/rules.py", "which is paused: "),
    "auth_failed": ("alerting/rules.py", "refuses the login"),
    "no_delivery": ("alerting/rules.py", "none was delivered for"),
    "front_refusing": ("alerting/rules.py", "mail is refused: "),
    "queue_age": ("alerting/rules.py", "waits for more than"),
    "queue_growth": ("alerting/rules.py", "more than half an hour ago"),
    "bounce_rate": ("alerting/rules.py", "in the last hour bounced"),
    "sender_complaints": ("alerting/rules.py", "reported it as "),
    "suppression": ("alerting/rules.py", "addresses were suppressed in the last hour"),
    "volume_anomaly": ("alerting/rules.py", "the busiest hour of the last"),
    "storm": ("policy/storms.py", "the same mail came"),
    "source_new": ("alerting/guard_words.py", " messages of "),
    "source_volume": ("alerting/guard_words.py", "usual is less than"),
    "guard_learning": ("alerting/guard_words.py", "is learning who sends here"),
    "silence": ("alerting/silence.py", "longest usual pause at this time"),
    "quota_near": ("alerting/rules.py", "of its daily quota"),
    "in_doubt": ("alerting/rules.py", "after the final dot"),
    "held": ("policy/untended.py", "mail is held since"),
    "route_gone": ("policy/untended.py", "which is not in the configuration"),
    "stuck": ("policy/untended.py", "for longer than an attempt lasts"),
    "instance_lost": ("policy/lost_gateways.py", "its last heartbeat was at"),
    "role_hung": ("alerting/gateway_rules.py", "has hung since "),
    "reload_refused": ("alerting/gateway_rules.py", "refused its last reload"),
    "disk_low": ("alerting/rules.py", "of the volume of"),
    "certificate_expiring": ("alerting/rules.py", "the certificate of"),
    "maildrop_stuck": ("observe/maildrop.py", "files in the maildrop"),
    "clock_step": ("alerting/rules.py", "the clock of the queue was"),
    "webhook_failing": ("policy/receivers.py", "has failed for more than a day"),
    "config_changed": ("alerting/gateway_rules.py", "changed by a "),
    "login_failures": ("alerting/gateway_rules.py", "failed within an hour, from "),
    "api_stranger": ("alerting/gateway_rules.py", "never used with before"),
    "login_ends": ("policy/endings.py", "logs in by password: "),
}
"""Where the summary of each rule stands."""

PROVIDERS: list[tuple[str, str, str]] = [
    (
        "sendgrid",
        "auth",
        "535 Authentication failed: The provided authorization grant is invalid, expired, or "
        "revoked",
    ),
    ("sendgrid", "content", "550 The from address does not match a verified Sender Identity."),
    ("sendgrid", "mail", "451 Authentication failed: Maximum credits exceeded"),
    ("mailgun", "auth", "535 5.7.8 Authentication failed"),
    (
        "ses",
        "content",
        "554 Message rejected: Email address is not verified. The following identities failed"
        " the check in region US-EAST-1: shop@example.com",
    ),
    ("ses", "content", "454 Throttling failure: Maximum sending rate exceeded."),
    ("ses", "content", "454 Throttling failure: Daily message quota exceeded."),
    ("ses", "auth", "535 Authentication Credentials Invalid"),
    (
        "gmail",
        "auth",
        "535 5.7.8 Username and Password not accepted. For more information, go to "
        "https://support.google.com/mail/?p=BadCredentials",
    ),
    ("gmail", "rcpt", "550 5.4.5 Daily user sending limit exceeded."),
    ("gmail", "greeting", "421 4.7.0 Try again later, closing connection."),
    (
        "microsoft365",
        "auth",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for "
        "the Tenant.",
    ),
    (
        "microsoft365",
        "content",
        "554 5.2.252 SendAsDenied; shop@example.com not allowed to send as other@example.com",
    ),
    ("microsoft365", "auth", "432 4.3.2 Concurrent connections limit exceeded."),
    ("brevo", "auth", "535 5.7.8 Authentication failed"),
    ("generic", "rcpt", "554 5.7.1 Relay access denied"),
    ("generic", "rcpt", "550 5.1.1 User unknown"),
    ("generic", "rcpt", "552 5.2.2 Mailbox full"),
    ("generic", "rcpt", "450 4.7.1 Greylisted, try again in a few minutes"),
    ("generic", "content", "552 5.3.4 Message size exceeds fixed limit"),
    ("generic", "content", "550 5.7.1 Message rejected as spam"),
    (
        "generic",
        "greeting",
        "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org",
    ),
    ("generic", "content", "550 5.7.26 This mail is unauthenticated: SPF and DKIM did not pass"),
]
"""Preset, stage and reply, as seen in a log or by `relaygw queue explain`."""
