"""Where a message came from: what we saw of it, and what another relaygw says.

The word of another one (X-Relaygw-Source) is taken from clients in `trust_source` of their
listener only, and taken out of the content whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import Source
from relaygw.mail.source_header import parse_source, rename_late
from relaygw.policy.admission import is_trusted, parse_client
from relaygw.settings.listener import Listener
from relaygw.settings.units import Network


class TrustedSources:
    """The networks of each listener whose word on the source of mail is taken."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._networks: dict[str, tuple[Network, ...]] = {}
        for listener in listeners:
            name, networks = str(listener.bind), listener.trust_source
            # two listeners on "any port" have one name: nobody is trusted unless both do
            if self._networks.setdefault(name, networks) != networks:
                self._networks[name] = ()

    def judge(self, seen: Source, facts: HeaderFacts, *, is_whole: bool) -> tuple[Source, bool]:
        """Return the source to record, and whether what the header told of it was not believed.

        The client, its HELO and the listener stay as seen. `is_whole` False: the header goes on
        behind what `facts` is of, so that a field may have been cut.
        """
        if seen.uid is not None and facts.script is not None:
            seen = replace(seen, script=facts.script)
        if facts.source is None:
            return seen, False
        told = parse_source(facts.source) if is_whole and self._is_trusted(seen) else None
        if told is None:
            return seen, True
        return (
            replace(
                seen,
                host=told.host,
                uid=told.uid,
                user=told.user if told.user is not None else seen.user,
                script=told.script,
            ),
            False,
        )

    def _is_trusted(self, seen: Source) -> bool:
        networks = self._networks.get(seen.listener or "", ())
        return bool(networks and seen.client) and is_trusted(
            parse_client(seen.client or ""), networks
        )


def without_late_fields(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `chunks` with X-Relaygw-Source renamed up to the end of the header.

    For a header that is longer than a chunk: the sizes stay, since they are counted already.
    """
    held = next(chunks, b"")
    for chunk in chunks:
        joined = held + chunk  # a field may begin in one and end in the other
        end = joined.find(b"\r\n\r\n")
        block = joined if end < 0 else joined[: end + 2]
        joined = rename_late(block) + joined[len(block) :]
        yield joined[: len(held)]
        held = joined[len(held) :]
        if end >= 0:
            break
    yield held
    yield from chunks
