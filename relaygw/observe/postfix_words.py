"""Parts of a line in Postfix's grammar.

Programs that read such logs look for their patterns anywhere in a line. What came from outside is
therefore not only escaped: it cannot look like a field of ours either, so that a subject or a
reply makes no mail that was not there.
"""

from __future__ import annotations

from relaygw.mail.envelope import Source
from relaygw.mail.outcome import AttemptDelays
from relaygw.observe.escaping import cut, escape


def script_of(source: Source) -> str:
    """Return what a local program told of itself, with a space in front."""
    script = f" script={quoted(source.script)}" if source.script else ""
    return script + (f" cwd={quoted(source.cwd)}" if source.cwd else "")


def origin_of(source: Source) -> str:
    """Return in words who handed a message in: `10.0.0.5 user=shop`, `uid=33 script=60:x.php`."""
    client, uid, user = source.client, source.uid, source.user
    if client and uid is None and user is None:  # nearly always
        return client
    parts = [source.host or client or ""]
    if uid is not None:
        parts.append(f"uid={uid}")
    if user is not None:
        parts.append(f"user={user}")
    if source.script is not None:
        parts.append(f"script={source.script}")
    return " ".join(filter(None, parts))


def shown_address(address: str) -> str:
    """Return an address that ends at the next `>` and is one word, quoted or not."""
    shown = escape(address)
    if " " in shown or ">" in shown:
        shown = shown.replace(" ", "\\x20").replace(">", "\\x3e")
    return shown


def recipient_of(address: str, original: str | None) -> str:
    """Return the fields of a recipient: the address, and the one that was given instead."""
    shown = f"to=<{shown_address(address)}>"
    return f"{shown}, orig_to=<{shown_address(original)}>" if original else shown


def free_text(text: str) -> str:
    """Return text from outside, escaped, without anything that readers take for a field."""
    shown = text if text.isprintable() else escape(text)
    for seen, instead in _FORGERIES:
        if seen in shown:
            shown = shown.replace(seen, instead)
    return cut(shown)


def quoted(text: str) -> str:
    """Return text from outside in quotes, which end where they seem to."""
    shown = free_text(text)
    return '"' + (shown.replace('"', '\\"') if '"' in shown else shown) + '"'


_FORGERIES = (
    ("=<", "=\\x3c"),  # to=<a@b>, relay=
    ("client=", "client\\x3d"),
    ("forwarded as ", "forwarded\\x20as "),  # pflogsumm: not delivered
)


def shown_delays(delays: AttemptDelays) -> str:
    """Return Postfix's delays=a/b/c/d."""
    intake, queue = shown_seconds(delays.intake_s), shown_seconds(delays.queue_s)
    connect, transmit = shown_seconds(delays.connect_s), shown_seconds(delays.transmit_s)
    return f"delays={intake}/{queue}/{connect}/{transmit}"


def shown_seconds(value: float) -> str:
    """Format as Postfix does: two significant digits below ten, else whole seconds."""
    if value <= 0:
        return "0"
    return f"{value:.2g}" if value < 10 else str(round(value))
