"""Prints docs/states.md from the code: `python -m tests.docs.render_states > docs/states.md`."""

from __future__ import annotations

from relaygw.mail.state import TRANSITIONS, DeliveryState, RecipientState

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
    RecipientState.BLOCKED: "on the block list or not allowed, dropped",
    RecipientState.CANCELLED: "deleted by an operator",
}


def render() -> str:
    """Return the page."""
    lines = [
        "# States",
        "",
        "Printed from `relaygw/mail/state.py`, which is the only authority; a test compares.",
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
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
