"""What the settings of a provider ask of every mail that it gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relaygw.mail.envelope import Source
from relaygw.mail.source_header import source_line
from relaygw.settings.provider import Provider
from relaygw.upstream.added_fields import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is put in front of a mail, and how large it may be."""

    hostname: str = ""  # of this gateway
    sends_source: bool = False
    fields: tuple[Field, ...] = ()  # added where the mail has none of that name
    max_size_bytes: int | None = None

    def source_of(self, source: Source) -> bytes:
        """Return the field that tells a provider, itself a relaygw, where a mail came from.

        The first relaygw on the way is named as the host; what another one told of stays its
        word, and its client, which only that one knew, is left out.
        """
        if not self.sends_source:
            return b""
        if source.host is not None:
            return source_line(replace(source, client=None))
        return source_line(replace(source, host=self.hostname))


NO_TERMS = Terms()


def terms_of(provider: Provider, *, hostname: str) -> Terms:
    """Return the terms of one provider."""
    return Terms(
        hostname=hostname,
        sends_source=provider.send_source,
        fields=tuple(provider.headers.items()),
        max_size_bytes=provider.max_message_size,
    )
