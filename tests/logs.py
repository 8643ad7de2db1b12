"""A mail log into memory, for tests that look at what was logged."""

from __future__ import annotations

import io
from collections.abc import Sequence

from relaygw.observe.maillog import Channel, Form, MailLog
from relaygw.observe.outlets import bare, in_a_file
from relaygw.observe.postfix_form import PostfixForm
from relaygw.observe.redaction import Redaction


class TextOutlet:
    """Appends to a text in memory; when that is closed, nothing can be written any more."""

    def __init__(self, output: io.StringIO) -> None:
        self._output = output

    def send(self, records: Sequence[bytes]) -> int:
        if self._output.closed:
            raise OSError("closed")
        self._output.write(b"".join(records).decode())
        return sum(map(len, records))

    def wait(self, timeout_s: float) -> None:
        raise AssertionError("memory is never full")

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


def text_log(
    output: io.StringIO, *, form: Form | None = None, redact: Sequence[str] = ()
) -> MailLog:
    """Return a log that writes lines to `output`, in Postfix's grammar unless `form` is given."""
    return MailLog(
        Channel(
            TextOutlet(output),
            loss=lambda count, why: f"{count} lost: {why}\n".encode(),
            tell=print,
        ),
        form or PostfixForm(with_subject=True),
        in_a_file(hostname="gw.example.com", name="relaygw") if form is None else bare,
        redaction=Redaction(redact),
    )
