"""What a front counts and looks at, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from relaygw.inbound.content_check import ContentLook
from relaygw.inbound.guard import GuardCheck
from relaygw.inbound.screen import Check, Screen
from relaygw.inbound.sources import MailClasses
from relaygw.inbound.storms import StormCheck
from relaygw.mail.finding import Kind, words_of
from relaygw.observe.observer import FrontObserver
from relaygw.settings.guard import counts_sources
from relaygw.settings.model import Settings
from relaygw.store.store import Store


def mail_classes(settings: Settings) -> MailClasses | None:
    """Return what knows the classes of mail; None where nothing asks for them."""
    return MailClasses() if counts_sources(settings) else None


def screen(settings: Settings, store: Store, observer: FrontObserver) -> Screen | None:
    """Return the checks that are on, in order; None without any."""
    checks = [*_checks(settings, store, observer)]
    if not checks:
        return None
    return Screen(checks, told=lambda line: observer.log.note("cleanup", line))


def _checks(settings: Settings, store: Store, observer: FrontObserver) -> Iterator[Check]:
    if counts_sources(settings):
        yield GuardCheck(store)
    if settings.storms.action != "off":
        told = partial(observer.log.note, "cleanup")
        yield StormCheck(settings.storms, store, told=told, counted=observer.repeated)
    if settings.content_check.is_on:
        yield ContentLook(settings.content_check, partial(_tell_found, observer))


def _tell_found(
    observer: FrontObserver, queue_id: str, found: Mapping[Kind, int], is_held: bool
) -> None:
    what = f"content check: found {words_of(found)}{'; held' if is_held else ''}"
    observer.log.note("cleanup", f"{queue_id}: warning: {what}")
    observer.found([kind.value for kind in found], is_held=is_held)
