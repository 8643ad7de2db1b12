"""Results, as people ask for them and see them: the words of `--result`, `is:` and lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from relaygw.mail.state import RESULTS, RecipientState
from relaygw.mail.verdict import FAILED, PASSING, Kind

_S = RecipientState


class Asked(NamedTuple):
    """Recipients in one of these states, or of whom one of these is the last word."""

    states: frozenset[RecipientState] = frozenset()
    kinds: frozenset[Kind] = frozenset()

    def finds(self, state: RecipientState, verdict: Kind | None) -> bool:
        """True for such a recipient."""
        return state in self.states or verdict in self.kinds


NOTHING = Asked()
BOUNCED, REFUSED, RETURNED = "bounced", "refused", "returned"
ARRIVED, COMPLAINED, UNSUBSCRIBED = "arrived", "complained", "unsubscribed"
ASKED: dict[str, Asked] = {
    **{
        recipient_state.value: Asked(states=frozenset({recipient_state}))
        for recipient_state in RESULTS
    },
    BOUNCED: Asked(frozenset({_S.BOUNCED}), FAILED),
    REFUSED: Asked(states=frozenset({_S.BOUNCED})),  # by the provider itself
    RETURNED: Asked(kinds=FAILED),  # the provider took it, and could not deliver it
    # who complains or unsubscribes has got it
    ARRIVED: Asked(kinds=frozenset({Kind.DELIVERED, Kind.UNSUBSCRIBED, Kind.COMPLAINED})),
    COMPLAINED: Asked(kinds=frozenset({Kind.COMPLAINED})),
    UNSUBSCRIBED: Asked(kinds=frozenset({Kind.UNSUBSCRIBED})),
}
"""What each word stands for, in the order in which help names them."""


AFTERWARDS = (RETURNED, COMPLAINED, UNSUBSCRIBED, ARRIVED)
"""Words for what only events tell."""


_SHOWN = {
    **dict.fromkeys(FAILED, RETURNED),
    Kind.COMPLAINED: COMPLAINED,
    Kind.UNSUBSCRIBED: UNSUBSCRIBED,
}
SHOWN = (
    *(_S.DELIVERED.value, _S.BOUNCED.value, RETURNED, _S.EXPIRED.value, _S.BLOCKED.value),
    *(COMPLAINED, UNSUBSCRIBED, _S.CAPTURED.value, _S.CANCELLED.value),
)
"""The words that `shown_result` returns, in the order of lists."""


WORST_FIRST = (
    *(_S.BOUNCED.value, RETURNED, _S.EXPIRED.value, _S.BLOCKED.value, COMPLAINED, UNSUBSCRIBED),
    *(_S.CANCELLED.value, _S.CAPTURED.value, _S.DELIVERED.value),
)
"""The same, as a message with several is seen."""


def shown_result(state: RecipientState, verdict: Kind | None) -> str:
    """Return the result of a recipient in a word: the last word on it."""
    if state is _S.DELIVERED and verdict in _SHOWN:
        return _SHOWN[verdict]
    return state.value


def is_news(kind: Kind, before: Kind | None) -> bool:
    """Return whether a new last word says something else of what became of a recipient."""
    return kind not in PASSING and (before is None or _of(kind) != _of(before))


def _of(kind: Kind) -> str:
    return _SHOWN.get(kind, kind.value)


def asked_for(words: Iterable[str]) -> Asked:
    """Return the states and verdicts of several words together."""
    found = [ASKED[word] for word in words]
    return Asked(
        frozenset[RecipientState]().union(*(outcome.states for outcome in found)),
        frozenset[Kind]().union(*(outcome.kinds for outcome in found)),
    )
