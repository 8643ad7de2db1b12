"""Prints docs/states.md from the code: `python -m tests.docs.render_states > docs/states.md`."""

from __future__ import annotations

from collections.abc import Iterator
from pkgutil import resolve_name

from relaygw.mail.hold import SEVERAL, HoldCode
from relaygw.mail.outcome import Scope
from relaygw.mail.state import TRANSITIONS, DeliveryState, RecipientState
from relaygw.mail.words import span
from relaygw.policy.untended import CONTENT, longest_in_hand_s
from relaygw.settings.model import Retry
from relaygw.settings.provider import Provider, Timeouts
from relaygw.store.holds import PAUSED, UNREACHABLE
from relaygw.upstream.classifier import catalogue

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
    HoldCode.STANDING: (
        "`held`: by a [standing hold](operating.md#holding-mail)",
        "at the hold's end: `relaygw hold end`, or its time",
        "`relaygw status` at once; `held`, once it is older than `alert_rules.queue_age` and its "
        "hold has no end",
    ),
    SEVERAL: (
        "`held`: several causes",
        "when the last of them has ended; `relaygw queue release` ends all but standing holds",
        "`held`",
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
    PAUSED: (
        "a provider is paused, for its pace or its connections",
        "one message tries it at least once a minute; the next provider of its routes is used",
        "`provider_paused`, when transactional mail waits behind it for two minutes",
    ),
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


_SHOWN = "`status`, `provider list`, explain, pages, `provider_next_probe_timestamp_seconds`"
_DUE = "explain, with when it is due"
_BY_HAND = "`relaygw provider release`"
ALL_STEPS = "policy.untended.longest_in_hand_s"
"""A sum: a provider may take nearly the time limit for each step."""
WAITS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "a provider is paused: it takes nothing, for its pace or its connections",
        "delivery.gate.THROTTLE_LADDER_S delivery.gate.PAUSE_LONGEST_S",
        f"one message of one worker tries it; {_BY_HAND}, `relaygw queue retry`",
        f"{_SHOWN}, `provider_held` with cause `paused`",
        "`provider_paused`",
    ),
    (
        "mail that was refused for the pace",
        "delivery.gate.PAUSE_LONGEST_S+5",
        f"at its due time; {_BY_HAND}, `relaygw queue retry`",
        _DUE,
        "`provider_paused`",
    ),
    (
        "a provider cannot be reached",
        "delivery.gate.UNREACHABLE_LADDER_S store.holds.PROBE_LONGEST_S",
        f"a connection without mail tries it; {_BY_HAND}, `relaygw queue retry`",
        f"{_SHOWN}, `provider_up`",
        "`provider_down`",
    ),
    (
        "mail that only a provider in trouble may take, or that is over the rest of a quota",
        "delivery.scheduler._PUT_OFF_S delivery.shares.QUOTA_SLICE_S",
        f"when that provider is back; {_BY_HAND}, `relaygw queue retry`",
        _DUE,
        "those of the provider",
    ),
    (
        "a provider is held: its account, a quota, a key, the same words to everybody",
        "delivery.holds.PROBE_LADDER_S delivery.learning._HOLD_WAIT_S "
        "delivery.holds._QUOTA_LOOK_S upstream.credentials._LOOK_BY_COMMAND_EACH_S replies.hold",
        f"a probe ([decision 11](decisions/0011-failover.md)); {_BY_HAND}",
        f"{_SHOWN}, `provider_held`",
        "`provider_down`, `auth_failed`",
    ),
    (
        "a provider refuses the domain of a sender, or of From",
        "delivery.holds.PROBE_LADDER_S replies.hold",
        f"one message of that domain; {_BY_HAND}",
        "`status`, `provider list`, explain, pages, `provider_held`",
        "`provider_down`",
    ),
    (
        "a provider refuses mail for somebody who is not its sender, as Amazon's sandbox does",
        "delivery.learning.SOMEBODY_ELSE_S",
        "it is tried again; `relaygw queue retry`",
        _DUE,
        "`queue_age`",
    ),
    (
        "mail waits for its turn at a rate, configured or learned",
        "",
        "its turn",
        "`status`, `provider list`, explain, pages, `provider_behind_seconds`",
        "`queue_age`, `queue_growth`",
    ),
    (
        "a provider that refused connections gets one more",
        "policy.pacing._CONNECTION_EVERY_S",
        "time; mail goes over those that it has",
        "`status`, `provider list`, explain, pages",
        "none: no mail waits for it",
    ),
    (
        "a recipient or a message was deferred",
        "settings.Retry.max replies.retry",
        "it is tried again; `relaygw queue retry`",
        _DUE,
        "`queue_age`",
    ),
    (
        "mail is in doubt with a provider",
        "policy.retry.DOUBT_LADDER_S policy.retry.KEYED_LADDER_S",
        "it is asked again ([decision 5](decisions/0005-doubt.md), "
        "[20](decisions/0020-keys-and-events-end-doubts.md)); `relaygw queue retry --force`",
        f"`status`, `provider list`, pages, `provider_in_doubt`; {_DUE}",
        "`in_doubt`",
    ),
    (
        "a provider does not answer what was begun",
        f"{ALL_STEPS} "
        "settings.Timeouts.connect settings.Timeouts.command settings.Timeouts.final_reply "
        "upstream.session._CHAIN_PATIENCE_S upstream.credentials._LIMIT_S",
        "the time limit of a step ends the attempt; then it counts as not reached, or mail is in "
        "doubt",
        "`status`, `provider list`, explain, pages, each with the latest end; "
        "`provider_in_hand_seconds`",
        "`provider_paused`, `provider_down`, `stuck`",
    ),
    (
        "a worker died with mail in hand",
        "delivery.waits.LEASE_S delivery.waits.Waits.lease_s store.instances.STALE_AFTER_S",
        "another one takes over, at once on the same machine",
        "`status`; explain, with when; `instances`",
        "`instance_lost`, `no_delivery`",
    ),
    (
        "a lease that nobody works on: the answer of the database to a claim was lost",
        "delivery.waits.Waits.unknown_leases_s",
        "it is queued again",
        "explain, as in hand; `queue_recipients` with state `active`",
        "`stuck`",
    ),
    (
        "the database failed in an attempt that had sent nothing",
        "delivery.waits.Waits.store_ladder_s store.postgres.ANSWER_S",
        "it is tried again; `relaygw queue retry`",
        f"the log; {_DUE}",
        "`front_refusing`",
    ),
    (
        "a worker failed with a message",
        "delivery.outcome._POISON_WAIT_S",
        "it is tried again, then held as `poison`; `relaygw queue retry`",
        f"the log; {_DUE}",
        "`held`",
    ),
    (
        "mail whose route is gone, and that could not take the current one",
        "delivery.reconciler._LEFT_S",
        "it takes the current route",
        "`status`, explain, pages, `waiting_untended`",
        "`route_gone`",
    ),
    (
        "mail whose due time is far ahead, as the clock was set back",
        "delivery.worker.UNSURE_S",
        "it is due by the current time",
        f"the log; {_DUE}",
        "`clock_step`",
    ),
    (
        "a notice to a sender could not be made",
        "delivery.notices._LADDER_S",
        "it is made again",
        "the log, `notices_total`",
        "none: its mail waits for nothing",
    ),
)
"""Each wait of the worker that is longer than ten seconds: the constants that say how long."""
NO_WAITS = {
    "how long something is kept, counted or told of": "delivery.janitor.TRASH_S "
    "delivery.janitor.ORPHANS_S delivery.janitor.WATCHED_S delivery.worker._NEWS_S "
    "policy.rhythm.LEARNT_MS policy.rhythm.LEAST_MS policy.silence.ENDED_MS "
    "policy.silence._OFTEN_MS policy.rhythm.LOOK_MS policy.rhythm._REGULAR_MS "
    "policy.storms.SAME_ID_MS policy.lost_gateways.LOST_MS "
    "store.limits._SLICE_MS store.limits._KEPT_MS store.notices.GATHER_MS store.repeats.ONCE_MS "
    "store.repeats._FORGET_ONCE_MS store.repeats._STRAYS_MS store.rhythms._RARE_KEPT_MS "
    "store.sources.KEPT_MS store.sources._RARE_MS store.watch.HISTORY_SLICE_MS "
    "upstream.credentials._USUAL_LIFE_S upstream.client_assertion._LIFE_S",
    "how often something is written or told": "delivery.learning._SENDER_AGAIN_MS "
    "upstream.mark._TELL_EACH_S store.word_index.LOOK_EACH_S",
    "no time, or the end of all": "delivery.worker._WAITS_AT_ONCE "
    "store.find.MOST_WAITING store.leases._ALWAYS_MS store.outbox._LATEST_MS",
    "at a start or a stop": "delivery.waits.Waits.drain_s store.queue_lock.PATIENCE_S",
    "a least time of trying, before mail expires": "policy.retry.LEAST_TRYING_S",
    "a least time, before something is told": "policy.untended.ROLLING_S",
    "a bound, for clocks that were set back": "store.limits._FARTHEST_S",
    "a limit of the database server, for a client of it that hangs": (
        "store.postgres.IDLE_IN_TRANSACTION_S"
    ),
    "who runs the rules of alerts, when a worker died": "store.watch.DUTY_MS",
}
"""Constants that look like such a wait and are none, by the reason."""


def seconds(value: object, *, per_s: int = 1) -> list[float]:
    """Return the numbers in a constant."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value / per_s]
    inner = value.values() if isinstance(value, dict) else value
    is_several = isinstance(value, dict | tuple | list | set | frozenset)
    return [one for it in inner for one in seconds(it, per_s=per_s)] if is_several else []  # type: ignore[attr-defined]


def _of_constant(name: str) -> list[float]:
    """Return the seconds of a constant, of a field of the settings, or of rows of replies.yaml."""
    if name == ALL_STEPS:
        return [longest_in_hand_s(Provider(host="mx.test"), 1)]
    place, _, field = name.partition("+")[0].rpartition(".")
    more_s = float(name.partition("+")[2] or 0)
    if place == "replies":
        rows = [row for section in catalogue().values() for row in section]
        return [wait_s for row in rows if row.verdict == field for wait_s in row.wait]
    if place.startswith("settings."):
        section = {"Retry": Retry, "Timeouts": Timeouts}[place.removeprefix("settings.")]
        return [section.model_fields[field].default]
    found = seconds(getattr(resolve_name(f"relaygw.{place}"), field))
    return [one + more_s for one in found]


def _waits() -> Iterator[str]:
    for what, names, ends, shown, told in WAITS:
        found_s = [one for name in names.split() for one in _of_constant(name)]
        longest = span(int(max(found_s) * 1000)) if found_s else "by the rate"
        yield f"| {what} | {longest} | {ends} | {shown} | {told} |"


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
    lines += [
        "",
        "## Waits longer than ten seconds",
        "",
        "Of the delivery worker, with what ends each one, and where it shows until when it lasts:",
        "explain is `relaygw queue explain` and the page of a message; metrics begin with",
        "`relaygw_`. How long is from the code; settings and rows of",
        "[replies](replies.md) of your own can be longer, but for a pause. A test finds each",
        "constant of such a length in the code, and fails where it is not in this table.",
        "",
        "| what | longest | what ends it | where it shows | alert |",
        "|---|---|---|---|---|",
        *_waits(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
