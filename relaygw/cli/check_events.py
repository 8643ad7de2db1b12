"""What `relaygw check` says of events of providers: where they are taken, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.cli.check_secrets import unreadable
from relaygw.settings.model import Settings
from relaygw.settings.presets import presets


def events_words(settings: Settings) -> str | None:
    """Return what the listener for events serves, None without one."""
    names = [name for name, one in settings.providers.items() if one.events is not None]
    if settings.events.bind is None:
        return None
    return f"http://{settings.events.bind}/events/ for {', '.join(names)}"


def events_problems(settings: Settings) -> Iterator[str]:
    """Yield why a listener that may be public could never believe a provider; reads secrets."""
    if settings.events.bind is None or settings.events.bind.is_loopback:
        return
    yield from _unusable_secrets(settings)
    for name, provider in settings.providers.items():
        if provider.events is not None:
            yield from unreadable(f"providers.{name}.events.secret", provider.events.secret)


def _unusable_secrets(settings: Settings) -> Iterator[str]:
    from relaygw.feedback.receiving import settings_problems

    for name, problem in settings_problems(settings).items():
        yield f"providers.{name}.events.secret: {problem}"


def events_doubts(settings: Settings) -> Iterator[str]:
    """Yield why events may not come, or may not be believed; reads secrets."""
    if settings.events.bind is None or settings.events.bind.is_loopback:
        yield from _unusable_secrets(settings)  # else they are problems
    for name, provider in settings.providers.items():
        if provider.events is None:
            continue
        mark = presets()[provider.preset or ""].mark
        header = mark.needs_header if mark is not None else None
        has_header = any(one.lower() == (header or "").lower() for one in provider.headers)
        if header is not None and not has_header:
            yield (
                f"providers.{name}.events: {provider.preset} reports only mail with {header}; add "
                f"headers: {{{header}: NAME}}, unless the shop or the account sets it"
            )
        if settings.events.bind is None and not settings.queue.is_postgres:
            yield (
                f"providers.{name}.events: nothing listens for them; set events.bind, e.g. "
                "127.0.0.1:8026"
            )
