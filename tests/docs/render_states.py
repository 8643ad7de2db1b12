"""Prints docs/states.md from the code: `python -m tests.docs.render_states > docs/states.md`."""

from __future__ import annotations

from relaygw.mail.hold import HoldCode
from relaygw.mail.outcome import Scope
from relaygw.mail.state import TRANSITIONS, DeliveryState, RecipientState
from relaygw.policy.untended import CONTENT
from relaygw.store.holds import UNREACHABLE

DELIVERY = {
    DeliveryState.INCOMING: "accepted, never tried",
    DeliveryState.ACTIVE: "leased by a delivery worker",
    DeliveryState.DEFERRED: "waits for its next attempt",
    DeliveryState.HELD: "waits for an operator or a probe, no timer",
    DeliveryState.FINISHED: "every recipient has its final state",
    DeliveryState.DELETED: "in the trash, for seven days",
}
RECIPIENT = {
    RecipientState.PENDING: "still to be delivered",
    RecipientState.DELIVERED: "the provider answered 2xx after the final dot",
    RecipientState.BOUNCED: "refused for good",
    RecipientState.EXPIRED: "not delivered within `retry.lifetime`, or ended by an operator",
    RecipientState.CAPTURED: "kept for the sandbox, never sent; a release is another recipient",
    RecipientState.BLOCKED: "on the block list, not allowed or [suppressed](suppression.md); "
    "dropped",
    RecipientState.CANCELLED: "deleted by an operator",
}
OPEN_ENDS: dict[DeliveryState | str, tuple[str, str, str]] = {
    DeliveryState.INCOMING: (
        "`incoming`",
        "a worker sends it within a second, or as soon as a connection is free",
        "`queue_age`, `queue_growth`, `no_delivery`",
    ),
    DeliveryState.ACTIVE: (
        "`active`",
        "with the outcome of its attempt; queued again within 20 s when its worker dies, and "
        "within 5 s when its worker is not registered at all",
        "`stuck`, when it lasts longer than its provider's timeouts allow",
    ),
    DeliveryState.DEFERRED: (
        "`deferred`",
        "at its due time, or when a probe finds its provider again; expires after `retry.lifetime`",
        "`queue_age`, `no_delivery`",
    ),
    "deferred in doubt": (
        "`deferred`, in doubt",
        "the provider that may have it is asked again after 5 and 30 minutes, then it is held; "
        "within seconds where it knows a retry by its key; an event of it ends the doubt",
        "`in_doubt`, at once",
    ),
    "other_machine": (
        "all mail, on a machine that is not the queue's "
        "[home](operating.md#a-copy-of-a-production-host)",
        "it does not: `relaygw db adopt`, or another mode, lets it go",
        "`held`",
    ),
    "route_gone": (
        "`incoming` or `deferred`, its route is gone",
        "it takes the current route within 5 s, once all workers run the same settings; mail in "
        "doubt does not",
        "`route_gone`; the log; `relaygw check`; `relaygw queue retry` refuses it",
    ),
    DeliveryState.HELD: ("`held`, for any reason", "by its reason, see below", "`held`"),
    HoldCode.MODE: (
        "`held`: mode",
        "checked again when a worker starts, also at a reload: due if the mode now permits it",
        "`held`",
    ),
    HoldCode.POISON: ("`held`: poison", "it does not", "`held`"),
    HoldCode.IN_DOUBT: (
        "`held`: in_doubt, in doubt with a provider",
        "when an event of the provider shows that it has the mail, else it does not",
        "`held`, `in_doubt`",
    ),
    HoldCode.SENDER_REFUSED: (
        "`held`: its sender is refused",
        "a probe ends the hold of the sender's domain, and all its mail is due; checked again "
        "when a worker starts",
        "`provider_down` of the hold; `held`, if there is no such hold any more",
    ),
    HoldCode.NO_SENDER: (
        "`held`: no provider may send as its sender",
        "checked again when a worker starts",
        "`held`",
    ),
    HoldCode.OVER_QUOTA: (
        "`held`: more recipients than a day's quota",
        "checked again when a worker starts",
        "`held`",
    ),
    CONTENT: (
        "`held`: its content or header",
        "checked again when a worker starts",
        "`held`",
    ),
    HoldCode.GUARD: (
        "`held`: by the [guard](guard.md#guard)",
        "it does not: `relaygw guard release` ends it",
        "`held`",
    ),
    HoldCode.STORM: ("`held`: a storm of the same mail", "it does not", "`held`"),
    HoldCode.CONTENT_CHECK: ("`held`: by the content check", "it does not", "`held`"),
    HoldCode.OPERATOR: (
        "`held`: operator",
        "it does not: an operator has to release it",
        "`held`, once it is older than `alert_rules.queue_age`",
    ),
    HoldCode.RECOVERED: ("`held`: recovered from a damaged queue", "it does not", "`held`"),
    HoldCode.RESTORED: ("`held`: restored from a backup", "it does not", "`held`"),
    HoldCode.OTHER: ("`held`: another reason", "it does not", "`held`"),
    Scope.PROVIDER: (
        "a provider is held",
        "a probe, by one message",
        "`provider_down`",
    ),
    Scope.CREDENTIAL: (
        "a key is refused",
        "a probe, by a connection; at once with a new key",
        "`auth_failed`",
    ),
    Scope.SENDER_DOMAIN: (
        "a sender's domain is refused",
        "a probe, by one message of that domain",
        "`provider_down`",
    ),
    UNREACHABLE: ("a provider cannot be reached", "tried at least every 30 s", "`provider_down`"),
    "operator's hold": ("an operator holds a provider", "it does not", "`provider_down`"),
    "file": (
        "a file in the maildrop",
        "the front takes it within a second",
        "`maildrop_stuck`, when it is older than a minute",
    ),
    "file aside": (
        "a file set aside",
        "it is checked again within ten minutes",
        "`maildrop_stuck`",
    ),
    "instance": (
        "an instance died without signing off",
        "when one of its name and role is back; mail in its maildrop waits there",
        "`instance_lost`, by the others, for a day",
    ),
    "hung": (
        "a process hangs, and what it has in hand",
        "when it goes on; it is killed and restarted after 135 s",
        "`role_hung`",
    ),
    "clock": ("a clock was set", "waiting mail is due by the current time", "`clock_step`"),
    "queue": ("the queue is unreachable", "retried automatically", "`front_refusing`"),
    DeliveryState.FINISHED: ("`finished`", "deleted after `queue.retention`", "nothing waits"),
    DeliveryState.DELETED: ("`deleted`", "deleted for good after seven days", "nothing waits"),
}
"""What waits, how that ends by itself, and which rule of alerts tells when it does not."""


def render() -> str:
    """Return the page."""
    lines = [
        "# States",
        "",
        "Printed from `relaygw/mail/state.py`, which is the only authority, and from",
        "`tests/docs/render_states.py`; a test compares.",
        "",
        "A message has a delivery for each route it takes, a delivery has recipients.",
        "",
        "## Delivery",
        "",
        "| state | meaning | may become |",
        "|---|---|---|",
    ]
    for state in DeliveryState:
        targets = ", ".join(sorted(TRANSITIONS[state])) or "nothing: final"
        lines.append(f"| `{state}` | {DELIVERY[state]} | {targets} |")
    lines += ["", "## Recipient", "", "| state | meaning |", "|---|---|"]
    lines += [f"| `{state}` | {RECIPIENT[state]} |" for state in RecipientState]
    lines += [
        "",
        "## What waits, and which alert reports it",
        "",
        "Rules are those of [alerts](operating.md#alerts), which also name the remedy. Mail that "
        "waits",
        "for an operator is also in `relaygw status`, and is counted in `waiting_untended`.",
        "",
        "| what | how it ends automatically | which alert reports it otherwise |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {ends} | {told} |" for what, ends, told in OPEN_ENDS.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
