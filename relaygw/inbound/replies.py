"""Every reply of the front, once: code, enhanced status (RFC 3463), generic text.

The reason of a trouble goes to the log, never to the client.
"""

from __future__ import annotations

OK = "250 2.0.0 Ok"
OK_SENDER = "250 2.1.0 Ok"
OK_RECIPIENT = "250 2.1.5 Ok"
BYE = "221 2.0.0 Bye"
START_DATA = "354 End data with <CR><LF>.<CR><LF>"
VRFY = "252 2.0.0 Cannot verify, but will take mail for it"
HELP = "214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP"

TIMEOUT = "421 4.4.2 Error: timeout exceeded"
STOPPING = "421 4.3.2 Service is shutting down, try again later"
TOO_MANY_CONNECTIONS = "421 4.7.0 Error: too many connections from {client}"
TOO_MANY_ERRORS = "421 4.7.0 Error: too many errors"
TOO_MANY_COMMANDS = "421 4.7.0 Error: too many commands without mail"
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
BAD_SEQUENCE = "503 5.5.1 Error: {expected}"
NO_VALID_RECIPIENTS = "554 5.5.1 Error: no valid recipients"
UNSYNCHRONISED = "554 5.5.0 Error: SMTP protocol synchronization"
NOT_AUTHORISED = "550 5.7.0 Error: not authorised"
TOO_BIG = "552 5.3.4 Error: message too big, at most {limit} bytes"
TOO_MANY_HOPS = "554 5.4.0 Error: too many hops"
RELAY_DENIED = "554 5.7.1 Error: relay access denied"
RECIPIENT_REFUSED = "550 5.7.1 Error: recipient refused"
