"""What a maillog tells of deliveries: from whom, to whom, by which host, with what result."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_FROM = re.compile(r"/qmgr\[\d+\]: ([0-9A-Za-z]+): from=<([^>]*)>")
_TO = re.compile(
    r"/(\w[\w-]*)\[\d+\]: ([0-9A-Za-z]+): to=<([^>]*)>,(?: orig_to=<([^>]*)>,)? relay=([^,]*),"
    r".*?\bstatus=([a-z-]+)"
)
_MAX_KNOWN = 100_000  # messages whose sender is remembered


@dataclass(frozen=True, slots=True)
class Logged:
    """One recipient's delivery, as a line of the log has it."""

    queue_id: str
    sender: str | None  # None: its line is not in the log
    recipient: str
    original: str | None  # before rewriting
    daemon: str
    relay: str  # host[address]:port, local, none
    status: str  # sent, deferred, bounced


def read_maillog(lines: Iterable[str]) -> Iterator[Logged]:
    """Yield the deliveries that a log of Postfix tells of; other lines are passed over."""
    senders: OrderedDict[str, str] = OrderedDict()
    for line in lines:
        found = _FROM.search(line)
        if found is not None:
            senders[found[1]] = found[2]
            if len(senders) > _MAX_KNOWN:
                senders.popitem(last=False)
            continue
        found = _TO.search(line)
        if found is not None:
            daemon, queue_id, recipient, original, relay, status = found.groups()
            yield Logged(
                queue_id, senders.get(queue_id), recipient, original, daemon, relay, status
            )
