"""Every reply of the front: code, enhanced status (RFC 3463), generic text; the log has reasons."""

from __future__ import annotations

MAX_COMMAND_BYTES = 2048
MAX_ERRORS = 20  # as Postfix's smtpd_hard_error_limit
NOT_OFFERED = frozenset({b"EXPN", b"TURN", b"ETRN", b"SAML", b"SEND", b"SOML", b"BDAT"})


class Refusal(Exception):
    """A command is answered with this reply and counts as an error of the client."""


EXTENSIONS = (
    "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {limit}\r\n{more}"
    "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8"
)
OK = "250 2.0.0 Ok"
QUEUED = "250 2.0.0 Ok: queued as "
OK_SENDER = "250 2.1.0 Ok"
OK_RECIPIENT = "250 2.1.5 Ok"
BYE = "221 2.0.0 Bye"
START_DATA = "354 End data with <CR><LF>.<CR><LF>"
VRFY = "252 2.0.0 Cannot verify, but will take mail for it"
HELP = "214 2.0.0 Commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP QUIT VRFY HELP"
READY_FOR_TLS = "220 2.0.0 Ready to start TLS"
LOGGED_IN = "235 2.7.0 Authentication successful"
SEND_INITIAL = "334 "
SEND_USER = "334 VXNlcm5hbWU6"
SEND_PASSWORD = "334 UGFzc3dvcmQ6"

TIMEOUT = "421 4.4.2 Error: timeout exceeded"
STOPPING = "421 4.3.2 Service is shutting down, try again later"
TOO_MANY_CONNECTIONS = "421 4.7.0 Error: too many connections from {client}"
TOO_MANY_ERRORS = "421 4.7.0 Error: too many errors"
TOO_MANY_COMMANDS = "421 4.7.0 Error: too many commands without mail"
TOO_FAST = "450 4.7.1 Error: too much mail from {client}"
LOGIN_BUSY = "454 4.7.0 Temporary authentication failure, try again later"
NO_TLS_NOW = "454 4.7.0 TLS is not available, try again later"
TOO_MANY_LOGINS = "421 4.7.0 Error: too many failed logins"
TROUBLE = "451 4.3.0 Error: temporary trouble, try again later"
NO_SPACE = "452 4.3.1 Insufficient system storage"
TOO_MANY_RECIPIENTS = "452 4.5.3 Error: too many recipients"

NOT_SMTP = "221 2.7.0 Error: this is an SMTP server, not {protocol}"
BAD_SYNTAX = "500 5.5.2 Error: bad syntax"
UNKNOWN_COMMAND = "500 5.5.2 Error: command not recognized"
LINE_TOO_LONG = "500 5.5.2 Error: line too long"
BARE_LF = "501 5.5.2 Error: commands end with <CR><LF>, not with a bare <LF>"
BAD_ARGUMENT = "501 5.5.4 Syntax: {usage}"
BAD_PARAMETER = "501 5.5.4 Error: bad value of {name}"
UNKNOWN_PARAMETER = "555 5.5.4 Error: parameter {name} is not supported"
BAD_ADDRESS = "{code} {status} Error: bad address syntax"
NOT_IMPLEMENTED = "502 5.5.1 Error: command not implemented"
HELO_FIRST = "503 5.5.1 Error: send EHLO first"
MAIL_FIRST = "503 5.5.1 Error: need MAIL command"
NESTED_MAIL = "503 5.5.1 Error: nested MAIL command"
TLS_ALREADY = "503 5.5.1 Error: TLS is active already"
LOGIN_ALREADY = "503 5.5.1 Error: already authenticated"
LOGIN_IN_MAIL = "503 5.5.1 Error: AUTH not permitted during mail"
NO_VALID_RECIPIENTS = "554 5.5.1 Error: no valid recipients"
UNSYNCHRONISED = "554 5.5.0 Error: SMTP protocol synchronization"
NOT_AUTHORISED = "550 5.7.0 Error: not authorised"
TOO_BIG = "552 5.3.4 Error: message too big, at most {limit} bytes"
HEADER_TOO_LONG = "552 5.3.4 Error: message header too long, at most {limit} bytes"
NOT_READABLE = "554 5.6.0 Error: message content cannot be processed"
TOO_MANY_HOPS = "554 5.4.0 Error: too many hops"
AUTH_LINE_TOO_LONG = "500 5.5.6 Error: authentication exchange line is too long"
AUTH_NOT_BASE64 = "501 5.5.2 Error: cannot decode the response"
AUTH_CANCELLED = "501 5.7.0 Authentication cancelled"
AUTH_UNKNOWN = "504 5.5.4 Error: mechanism is not supported"
AUTH_FAILED = "535 5.7.8 Error: authentication failed"
AUTH_NEEDS_TLS = "538 5.7.11 Error: encryption is required for authentication"
LOGIN_REQUIRED = "530 5.7.0 Authentication required"
TLS_REQUIRED = "530 5.7.0 Must issue a STARTTLS command first"
SENDER_DENIED = "553 5.7.1 Error: not allowed to send as this sender"
RELAY_DENIED = "554 5.7.1 Error: relay access denied"
RECIPIENT_REFUSED = "550 5.7.1 Error: recipient refused"
