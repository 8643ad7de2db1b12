"""What clients say: lines of commands, right and wrong, and how each has to be answered."""

from __future__ import annotations

import base64
import random
from typing import NamedTuple

from bench.fuzzing.profiles import LIMIT_BYTES, PASSWORD, USER

JUNK = ("NOOP", "RSET", "VRFY", "HELO", "EHLO", "HELP")


class Label(NamedTuple):
    """What a line is. `codes` are of the state that it may stand in."""

    verb: str  # "" is answered with `codes` in every state
    codes: tuple[int, ...]
    address: str = ""
    is_utf8: bool = False  # MAIL: it declares SMTPUTF8; RCPT: its address needs it
    closes: bool = False


SENDERS = (b"s@ok.test", b"", b'"odd name"@ok.test', b"s@[127.0.0.1]", b"a.b+c@sub.ok.test")
RECIPIENTS = (b"r@rd.test", b"R2@rd.test", b'"a b"@rd.test', b"x%y@rd.test", b"z@[IPv6:::1]")
UTF8 = ("jö@rd.test".encode(), "用户@例子.test".encode())
BAD_PATHS = (
    b"r@rd.test", b"<r@rd.test", b"<r@rd.test,x@o.test>", b"<@h.test:r@rd.test>", b"<-oX@rd.test>",
    b"<r\0@rd.test>", b"<r\x7f@rd.test>", b"<r\r@rd.test>", b"<r@rd.test><x@o.test>",
    b"<r@@rd.test>",
    b"<r\xff@rd.test>", b"<r@" + b"l" * 64 + b".test>", b"<" + b"r" * 1100 + b"@rd.test>",
    b'<"r@rd.test>', b"<r@[1.2.3]>", b"<=?utf-8?q?a=0d?=@rd.test>", b"<r..s@rd.test>", b"<r@>", b"",
)  # fmt: skip
MAIL_RIGHT = (
    b"SIZE=0", b"SIZE=%d" % LIMIT_BYTES, b"size=007", b"BODY=7BIT", b"BODY=8BITMIME",
    b"body=8bitmime",
    b"RET=FULL", b"ret=hdrs", b"ENVID=QQ314159", b"ENVID=a+3Db", b"AUTH=<>", b"SMTPUTF8",
)  # fmt: skip
MAIL_WRONG = (
    (b"SIZE=-1", 501), (b"SIZE=abc", 501), (b"SIZE", 501), (b"SIZE=%d" % (LIMIT_BYTES + 1), 552),
    (b"SIZE=" + b"9" * 26, 552), (b"BODY=FOO", 501), (b"BODY=BINARYMIME", 555),
    (b"SMTPUTF8=1", 501), (b"RET=NOPE", 501), (b"RET", 501), (b"ENVID=+zz", 501), (b"ENVID=", 501),
    (b"ENVID=" + b"e" * 101, 501), (b"NOTIFY=NEVER", 555), (b"FOO=BAR", 555), (b"=", 555),
    (b"AUTH", 555), (b"SIZE=1\0", 501), (b"BODY=7BIT\xff", 501),
    (b"RET=FULL\rBODY=7BIT", 501), (b"SIZE=0\x0bRET=FULL", 501),
)  # fmt: skip
RCPT_RIGHT = (
    b"NOTIFY=NEVER", b"NOTIFY=SUCCESS,FAILURE", b"notify=delay", b"ORCPT=rfc822;a@b.test",
    b"ORCPT=utf-8;a+2Bb@b.test",
)  # fmt: skip
RCPT_WRONG = (
    (b"NOTIFY=NEVER,SUCCESS", 501), (b"NOTIFY=", 501), (b"NOTIFY=FOO", 501), (b"ORCPT=x", 501),
    (b"ORCPT=rfc822;a+zz", 501), (b"ORCPT=;a", 501), (b"ORCPT=rfc822;caf\xc3\xa9", 501),
    (b"ORCPT=rfc822;" + b"o" * 500, 501), (b"FOO=1", 555), (b"SIZE=1", 555), (b"\0", 555),
    (b"NOTIFY=NEVER\x0cORCPT=rfc822;a", 501), (b"NOTIFY=NEVER\r", 501),
)  # fmt: skip

LABELS: dict[bytes, Label] = {
    b"HELO c.test": Label("HELO", (250,)),
    b"EHLO c.test": Label("EHLO", (250,)),
    b"ehlo [127.0.0.1]": Label("EHLO", (250,)),
    b"EHLO": Label("EHLO", (501,)),
    b"EHLO a b": Label("EHLO", (501,)),
    b"HELO \xc3\xa9": Label("HELO", (501,)),
    b"EHLO a\x01b": Label("EHLO", (501,)),
    b"EHLO " + b"h" * 256: Label("EHLO", (501,)),
    b"NOOP": Label("NOOP", (250,)),
    b"noop \xff\0 text": Label("NOOP", (250,)),
    b"NOOP " + b"x" * 2043: Label("NOOP", (250,)),
    b"NOOP " + b"x" * 2044: Label("", (500,)),
    b"RSET": Label("RSET", (250,)),
    b"VRFY root": Label("VRFY", (252,)),
    b"HELP": Label("HELP", (214,)),
    b"QUIT": Label("QUIT", (221,), closes=True),
    b"DATA": Label("DATA", (354,)),
    b"data ": Label("DATA", (354,)),
    b"DATA x": Label("", (501,)),
    b"STARTTLS": Label("", (502,)),
    b"STARTTLS x": Label("", (501,)),
    b"XCLIENT ADDR=127.0.0.1": Label("", (550,)),
    b"XFORWARD NAME=x": Label("", (550,)),
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25": Label("", (500,)),
    b"GET / HTTP/1.1": Label("", (221,), closes=True),
    b"POST /x": Label("", (221,), closes=True),
    b"EXPN list": Label("", (502,)),
    b"ETRN x": Label("", (502,)),
    b"TURN": Label("", (502,)),
    b"BDAT 10 LAST": Label("", (502,), closes=True),
    b"BDAT 0": Label("", (502,), closes=True),
    b"BDAT 99999999999999999999": Label("", (502,), closes=True),
    b"BDAT": Label("", (502,), closes=True),
    b"": Label("", (500,)),
    b" NOOP": Label("", (500,)),
    b"\0": Label("", (500,)),
    bytes(range(128, 256)): Label("", (500,)),
    b"FOO bar": Label("", (500,)),
    b"NOOP\rMAIL FROM:<evil@x.test>": Label("", (500,)),
    b"RSET\r": Label("", (500,)),
    b"QUIT\0": Label("", (500,)),
    b"DATA\t": Label("", (500,)),
    b"MAIL": Label("MAIL", (501,)),
    b"MAIL TO:<s@ok.test>": Label("MAIL", (501,)),
    b"RCPT": Label("RCPT", (501,)),
    b"RCPT TO:<>": Label("RCPT", (501,)),
    b"MAIL FROM:<evil@x.test>": Label("MAIL", (250,), "evil@x.test"),
    b"RCPT TO:<r@rd.test>": Label("RCPT", (250,), "r@rd.test"),
}  # fmt: skip
_WITH_ANYTHING = {
    b"NOOP": 250, b"RSET": 250, b"VRFY": 252, b"HELP": 214, b"QUIT": 221, b"BDAT": 502,
}  # fmt: skip
_FOREIGN = (b"GET", b"POST")
_WITH_STATE = (b"MAIL", b"RCPT", b"HELO", b"EHLO")
_THAT_CLOSE = (b"QUIT", b"BDAT")
_ANY_ERROR = tuple(range(500, 560))


def label_of(line: bytes, labels: dict[bytes, Label]) -> Label:
    """Return what a line is; what nobody meant as a command is an error."""
    label = labels.get(line)
    if label is None:
        verb = line.partition(b" ")[0].upper()
        if verb in _FOREIGN or line.endswith((b"HTTP/1.0", b"HTTP/1.1")):
            return Label("", (221,), closes=True)  # a browser's, however long, a bare CR in it too
        if len(line) > 2048:
            return Label("", _ANY_ERROR)
        if verb not in _WITH_ANYTHING:
            return Label(verb.decode() if verb in _WITH_STATE else "", _ANY_ERROR)
        # whatever stands behind it, a bare CR too
        label = Label(verb.decode(), (_WITH_ANYTHING[verb],), closes=verb in _THAT_CLOSE)
    return label


_FIXED = tuple(line for line, label in LABELS.items() if not label.closes)
_CLOSING = tuple(line for line, label in LABELS.items() if label.closes)


def command(chance: random.Random) -> bytes:
    """Return some line; few of them end the session."""
    return chance.choice(_CLOSING if chance.random() < 0.04 else _FIXED)


def mail(chance: random.Random, labels: dict[bytes, Label], *, wrong: float = 0.2) -> bytes:
    """Return a MAIL, noted in `labels`."""
    right = chance.sample(MAIL_RIGHT, chance.choice((0, 0, 0, 1, 1, 2, 3)))
    words = _once(right)
    codes: tuple[int, ...] = (250,)
    address = chance.choice(SENDERS if chance.random() < 0.9 else UTF8)
    is_utf8 = b"SMTPUTF8" in words
    path = b"<" + address + b">"
    if not address.isascii() and not is_utf8:
        codes = (553,)
    if chance.random() < wrong:
        if chance.random() < 0.4:
            path, codes = chance.choice(BAD_PATHS), (501, 552, 553)
        else:
            word, code = chance.choice(MAIL_WRONG)
            words.insert(chance.randrange(len(words) + 1), word)
            codes = (code, 501, *codes[codes == (250,) :])
    verb = chance.choice((b"MAIL FROM:", b"MAIL FROM:", b"mail from: ", b"MAIL From:"))
    line = b" ".join([verb + path, *words])
    labels[line] = Label("MAIL", codes, address.decode(), is_utf8)
    return line


def rcpt(chance: random.Random, labels: dict[bytes, Label], *, wrong: float = 0.2) -> bytes:
    """Return an RCPT, noted in `labels`."""
    words = _once(chance.sample(RCPT_RIGHT, chance.choice((0, 0, 0, 1, 2))))
    codes: tuple[int, ...] = (250,)
    address = chance.choice(RECIPIENTS if chance.random() < 0.9 else UTF8)
    path = b"<" + address + b">"
    if chance.random() < wrong:
        if chance.random() < 0.5:
            path, codes = chance.choice(BAD_PATHS), (501, 553)
        else:
            word, code = chance.choice(RCPT_WRONG)
            words.insert(chance.randrange(len(words) + 1), word)
            codes = (code, 501)
    line = b" ".join([chance.choice((b"RCPT TO:", b"rcpt to: ")) + path, *words])
    labels[line] = Label("RCPT", codes, address.decode(), not address.isascii())
    return line


def _once(words: list[bytes]) -> list[bytes]:
    """Return each keyword once: a second one is an error."""
    found: dict[bytes, bytes] = {}
    for word in words:
        found.setdefault(word.partition(b"=")[0].upper(), word)
    return list(found.values())


def _encoded(text: bytes) -> bytes:
    return base64.b64encode(text)


_USER, _PASSWORD = USER.encode(), PASSWORD.encode()
PLAIN = (
    b"\0%b\0%b" % (_USER, _PASSWORD),
    b"%b\0%b\0%b" % (_USER, _USER, _PASSWORD),
    b"other\0%b\0%b" % (_USER, _PASSWORD),
    b"\0%b\0wrong" % _USER,
    b"\0nobody\0" + _PASSWORD,
    b"\0\0",
    b"no nul",
    b"a\0b\0c\0d",
    b"\0\xff\xfe\0\x80",
)
_ODD = (b"*", b"", b"=", b"****", b"AAA", b"\xff\xfe", b"=" * 9, b"QUIT", b"A" * 12292)
_MECHANISMS = (b"CRAM-MD5", b"", b"XOAUTH2 abc", b"\xff", b"PLAIN\0", b"LOGIN  ")


def auth(chance: random.Random) -> list[bytes]:
    """Return the lines of an exchange that may be odd, wrong, or given up."""
    kind = chance.randrange(4)
    if kind == 0:
        return [b"AUTH " + chance.choice(_MECHANISMS)]
    if kind == 1:
        return [b"AUTH PLAIN " + _answer(chance, chance.choice(PLAIN))]
    if kind == 2:
        return [b"auth plain", _answer(chance, chance.choice(PLAIN))]
    name = _answer(chance, chance.choice((_USER, _USER, b"nobody", b"\xff")))
    password = _answer(chance, chance.choice((_PASSWORD, _PASSWORD, b"wrong", b"")))
    if chance.random() < 0.5:
        return [b"AUTH LOGIN", name, password]
    return [b"AUTH LOGIN " + name, password]


def _answer(chance: random.Random, text: bytes) -> bytes:
    return chance.choice(_ODD) if chance.random() < 0.2 else _encoded(text)
