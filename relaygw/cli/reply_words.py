"""What the meaning of a reply brings for the mail, in words for operators."""

from __future__ import annotations

from relaygw.mail.outcome import Limit, Meaning, Scope, Verdict

_MAIL = {
    (Verdict.DELIVERED, Scope.MESSAGE): "is delivered; the provider is responsible for it now",
    (Verdict.RETRY, Scope.RECIPIENT): "stays in the queue for this recipient and is tried again",
    (Verdict.RETRY, Scope.MESSAGE): "stays in the queue and is tried again",
    (Verdict.RETRY, Scope.CREDENTIAL): "stays in the queue; the login is tried again",
    (Verdict.RETRY, Scope.PROVIDER): "stays in the queue; the provider is tried again",
    (Verdict.HOLD, Scope.SENDER_DOMAIN): "stays in the queue with all mail of this sender's "
    "domain, no attempt is counted; other mail goes on, and a probe finds when it works again",
    (Verdict.BOUNCE, Scope.RECIPIENT): "bounces for this recipient; others are not touched",
    (Verdict.BOUNCE, Scope.MESSAGE): "bounces for all recipients of this transaction",
}
_SLOWER = {Limit.RATE: "sends slower", Limit.CONNECTIONS: "opens fewer connections"}
_USUAL_WAIT = {
    Verdict.RETRY: "the usual one, as the section retry says",
    Verdict.HOLD: "the usual one between two probes",
    Verdict.THROTTLE: "the usual one, when nothing gets through any more",
}


def mail_words(meaning: Meaning) -> str:
    """Return what happens to the mail, as the end of a sentence about it."""
    if meaning.verdict is Verdict.THROTTLE and meaning.limit is not None:
        slower = _SLOWER[meaning.limit]
        return f"stays in the queue, no attempt is counted; relaygw {slower} at this provider"
    if meaning.verdict is Verdict.HOLD and meaning.scope is not Scope.SENDER_DOMAIN:
        return (
            "stays in the queue, no attempt is counted; all mail for this provider waits, and "
            "one message at a time probes whether it works again"
        )
    return _MAIL[meaning.verdict, meaning.scope]


def wait_words(meaning: Meaning) -> str:
    """Return the ladder of waits in words, empty where nothing waits."""
    from relaygw.settings.units import format_duration

    if not meaning.wait_s:
        return _USUAL_WAIT.get(meaning.verdict, "")
    *first, last = map(format_duration, meaning.wait_s)
    return ", ".join([*first, f"{last} again and again" if first else f"{last} each time"])
