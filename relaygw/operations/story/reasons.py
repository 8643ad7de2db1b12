"""Why a delivery is held, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.policy.hold_reasons import (
    REASON_IN_DOUBT,
    REASON_MODE,
    REASON_POISON,
    REASON_RECOVERED,
    is_in_8_bit,
    is_of_configuration,
    is_of_header,
    parked_for,
)
from relaygw.policy.story import Advice

_IN_DOUBT = (REASON_IN_DOUBT, "in doubt with")
_OPERATOR = "operator: "


def held_words(reason: str) -> str:
    """Return why a delivery is held, as the end of a sentence."""
    if reason.startswith(_IN_DOUBT):
        return "a provider may have taken it already, nobody knows; it is not tried again by itself"
    if reason == REASON_MODE:
        return "the mode or the allow list of the time of sending does not permit its recipients"
    if reason == REASON_POISON:
        return "its worker died or failed with it three times, so it is kept from the others"
    if reason == REASON_RECOVERED:
        return "the queue was recovered after damage, and this may have been sent already"
    parked = parked_for(reason)
    if parked is not None:
        return f"{' and '.join(sorted(parked[0]))} refused to send for {parked[1]}"
    if reason.startswith(_OPERATOR):
        return f"an operator holds it ({reason.removeprefix(_OPERATOR)})"
    return reason or "no reason is written down"


def held_advice(reason: str, queue_id: str, message_id: str, provider: str | None) -> list[Advice]:
    """Return what to do about a held delivery."""
    release = f"relaygw queue release --id {queue_id}"
    if reason.startswith(_IN_DOUBT):
        where = f"the log of {provider}" if provider else "the provider's log"
        return [
            Advice(
                f"Look into {where} for {message_id or queue_id}. If it was not taken:", release
            ),
            Advice("If it was:", f"relaygw queue delete --id {queue_id}"),
        ]
    if reason == REASON_MODE:
        return [
            Advice(
                "Set mode and recipients.allow as they should be, reload, then let it go:", release
            )
        ]
    if reason == REASON_POISON:
        return [
            Advice(
                f"Look into relaygw's own log for {queue_id}. If a worker died while sending it, "
                "the provider may have it: ask there before you let it try again:",
                release,
            )
        ]
    if reason == REASON_RECOVERED:
        return _advice_on_recovered(queue_id, message_id, release)
    return list(_advice_on_configuration(reason)) or [Advice("Let it go:", release)]


def _advice_on_recovered(queue_id: str, message_id: str, release: str) -> list[Advice]:
    return [
        Advice(
            f"Look into relaygw's mail log for {queue_id}, or into the provider's for "
            f"{message_id or queue_id}. If it was not sent:",
            release,
        ),
        Advice("If it was:", f"relaygw queue delete --id {queue_id}"),
    ]


def _advice_on_configuration(reason: str) -> Iterator[Advice]:
    parked = parked_for(reason)
    if parked is not None:
        providers, domain = parked
        for name in sorted(providers):
            yield Advice(
                f"Have {domain} verified as a sender at {name}. A probe finds out by itself; now:",
                f"relaygw provider release {name}",
            )
    elif is_of_header(reason):
        yield Advice(
            "A provider may send to whom the header names. Have the program that writes it leave "
            "the address out (of a header without end: make it shorter) and delete this mail; or "
            "take the address off recipients.block and reload: it is looked at again then."
        )
    elif is_in_8_bit(reason):
        yield Advice(
            "Give the route a provider with 8BITMIME and reload: it is looked at again then. Or "
            "have the program that writes it write ASCII."
        )
    elif is_of_configuration(reason):
        yield Advice(
            "Correct senders, daily_quota or the route in the configuration and reload: it is "
            "looked at again then."
        )
