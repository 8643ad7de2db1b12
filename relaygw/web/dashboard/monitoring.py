"""What service managers, load balancers and Prometheus ask: health and metrics.

`/readyz` says why mail is not taken, or not sent, in one line without paths and addresses, as it is
open to all. Where no delivery of several gateways works, none of their fronts is unready for it: a
balancer would take out all of them, and mail that waits is better off than mail that is refused.
A store that does not answer takes its own gauges away and nothing else: `store_up` says so. In a
fleet every instance tells the same of the store; only `instances` are of this host's name.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from relaygw import __version__
from relaygw.clients import is_trusted
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.mail.outcome import Scope
from relaygw.mail.state import OPEN
from relaygw.observe.exposition import GaugeFamily, Numbers, exposition
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.operations.providers import Usage, holds_of, next_probe_ms, read_usages
from relaygw.operations.status import SILENT_AFTER_S
from relaygw.policy.lost_gateways import LOST_MS
from relaygw.policy.untended import KINDS, untended
from relaygw.settings.certificates import certificate_end
from relaygw.settings.model import Settings, fingerprint
from relaygw.settings.provider import Provider
from relaygw.settings.web import Web
from relaygw.store.guard import GuardAction
from relaygw.store.holds import PAUSED, UNREACHABLE, Hold
from relaygw.store.instances import (
    STALE_AFTER_S,
    delivery_trouble,
    front_trouble,
    silent_incarnations,
)
from relaygw.store.queue import LaneCount
from relaygw.store.standing_mail import standing_of
from relaygw.store.store import Store
from relaygw.volume import free_share
from relaygw.web.gate.guards import STRICT_HEADERS, ClientOf, host_name
from relaygw.web.shared_read import SharedRead

ROLES = ("front", "delivery", "web")
CAUSES = ("account", "credential", "operator", "paused", "sender_domain")
"""Why a provider is held: its account (quota, status), its key, an operator, its pace, a sender."""
_CERTIFICATE = "tls_certificate_expiry_timestamp_seconds"
_FAMILIES = {  # the labels of each, and what it means
    "store_up": ("", "0 while the store does not answer."),
    "queue_recipients": ("state route", "Waiting recipients, by state of their delivery."),
    "queue_oldest_age_seconds": ("route", "Age of the oldest message that waits; 0 without any."),
    "provider_up": ("provider", "0 while the provider cannot be reached."),
    "provider_held": ("provider cause", "Holds in force, by cause."),
    "provider_next_probe_timestamp_seconds": (
        "provider",
        "When a provider that is paused, held or down is tried next; absent without such a time.",
    ),
    "provider_behind_seconds": ("provider", "How long what waits takes by its rate, at most."),
    "provider_in_hand_seconds": (
        "provider",
        "How long the first of what workers have in hand waits for a connection or an answer.",
    ),
    "provider_in_doubt": ("provider", "Deliveries that it may have taken already."),
    "provider_rate_limit": ("provider", "What may be sent per second now; absent without a limit."),
    "provider_quota_used_ratio": ("provider", "Share of daily_quota used in the last 24 hours."),
    "instances": ("role", "Processes with a fresh heartbeat."),
    "waiting_untended": ("kind", "Deliveries that need attention, by reason."),
    "mail_classes": ("age", "Classes of mail seen in the last day: new in it, or known before."),
    "mail_sources": ("", "Sources of mail seen in the last day."),
    "guard_entries": ("action", "Sources and classes that the guard holds or allows."),
    "instances_lost": ("role", "Processes that died in the last day and have not come back."),
    "build_info": ("version", "The version that answers."),
    "volume_free_ratio": ("", "Free share of the volume of the state directory."),
    _CERTIFICATE: ("listener", "When the certificate of a listener expires."),
    "maildrop_files": (
        "state",
        "Files in the maildrop: to be accepted, or set aside by the front.",
    ),
    "maildrop_oldest_age_seconds": ("", "Age of the oldest file in the maildrop; 0 without any."),
}
_Gauge = tuple[str, Numbers]


def families(gauges: Iterable[tuple[str, Numbers]]) -> list[GaugeFamily]:
    """Return gauges, each by its name, with their labels and meanings."""
    return [
        GaugeFamily(name=name, labels=tuple(labels.split()), meaning=meaning, numbers=numbers)
        for name, numbers in gauges
        for labels, meaning in [_FAMILIES[name]]
    ]


def store_gauges(store: Store, settings: Settings, *, now_ms: int) -> list[GaugeFamily]:
    """Return the gauges; blocks on the store, raises StoreUnavailable."""
    lanes, holds = store.queue.counts(), store.holds.in_force()
    instances = store.instances.registered()
    stale = silent_incarnations(instances, SILENT_AFTER_S, now_ms=now_ms)
    mine = (
        (settings.hostname,)
        if settings.queue.is_postgres
        else [instance.name for instance in instances]
    )
    running = Counter(
        instance.role
        for instance in instances
        if instance.name in mine and instance.incarnation not in stale
    )
    standing = standing_of(
        store,
        settings,
        fingerprint=fingerprint(settings),
        lanes=lanes,
        holds=holds,
        instances=instances,
        now_ms=now_ms,
    )
    waiting = Counter(dict.fromkeys(KINDS, 0))
    for mail in untended(standing, settings, now_ms=now_ms):
        waiting[mail.kind] += mail.deliveries
    lost = Counter(
        lost_instance.role for lost_instance in store.watch.lost_instances(now_ms - LOST_MS)
    )
    return families(
        [
            *_queue(lanes, [route.name for route in settings.routes], now_ms),
            *_health(holds, settings.providers),
            *_limits(read_usages(store, settings, holds, lanes)),
            ("instances", {(role,): float(running[role]) for role in ROLES}),
            ("waiting_untended", {(kind,): float(number) for kind, number in waiting.items()}),
            *_sources(store, now_ms),
            ("instances_lost", {(role,): float(lost[role]) for role in ROLES}),
        ]
    )


def _queue(lanes: Sequence[LaneCount], routes: Sequence[str], now_ms: int) -> Iterator[_Gauge]:
    names = dict.fromkeys([*routes, *(lane.route for lane in lanes)])
    queued: Numbers = {(state.value, name): 0.0 for name in names for state in sorted(OPEN)}
    oldest: Numbers = {(name,): 0.0 for name in names}
    for lane in lanes:
        queued[lane.state.value, lane.route] += lane.recipients
        age_s = (now_ms - lane.oldest_accepted_at_ms) / 1000
        oldest[lane.route,] = max(oldest[lane.route,], age_s)
    yield "queue_recipients", queued
    yield "queue_oldest_age_seconds", oldest


def _health(holds: Sequence[Hold], providers: Mapping[str, Provider]) -> Iterator[_Gauge]:
    down = {hold.key for hold in holds if hold.scope == UNREACHABLE}
    yield "provider_up", {(name,): float(name not in down) for name in providers}
    held: Numbers = {(name, cause): 0.0 for name in providers for cause in CAUSES}
    for name in providers:
        for hold in holds_of(holds, name):
            if hold.scope != UNREACHABLE:
                held[name, _cause(hold)] += 1
    yield "provider_held", held
    probes_ms = {name: next_probe_ms(holds_of(holds, name)) for name in providers}
    yield (
        "provider_next_probe_timestamp_seconds",
        {(name,): at_ms / 1000 for name, at_ms in probes_ms.items() if at_ms is not None},
    )


def _cause(hold: Hold) -> str:
    if hold.scope == Scope.SENDER_DOMAIN:
        return "sender_domain"
    if hold.probe_at_ms is None:
        return "operator"
    if hold.scope == PAUSED:
        return "paused"
    return "credential" if hold.scope == Scope.CREDENTIAL else "account"


def _sources(store: Store, now_ms: int) -> Iterator[_Gauge]:
    classes, new, sources = store.sources.count_classes(now_ms - DAY_MS)
    yield "mail_classes", {("new",): float(new), ("known",): float(classes - new)}
    yield "mail_sources", {(): float(sources)}
    entries = Counter(guard_entry.action.value for guard_entry in store.guard.guard_entries())
    yield "guard_entries", {(action.value,): float(entries[action]) for action in GuardAction}


def _limits(usages: Mapping[str, Usage]) -> Iterator[_Gauge]:
    rates: Numbers = {}
    quotas: Numbers = {}
    for name, usage in usages.items():
        if usage.rate_per_s is not None:
            rates[name,] = usage.rate_per_s
        if usage.settings.daily_quota is not None:
            quotas[name,] = usage.quota_used / usage.settings.daily_quota
    yield "provider_behind_seconds", {(name,): use.behind_s for name, use in usages.items()}
    yield "provider_in_hand_seconds", {(name,): use.in_hand_s for name, use in usages.items()}
    yield "provider_in_doubt", {(name,): float(use.doubts) for name, use in usages.items()}
    yield "provider_rate_limit", rates
    yield "provider_quota_used_ratio", quotas


def host_gauges(settings: Settings, state_dir: Path) -> list[GaugeFamily]:
    """Return the gauges; reads the certificates of listeners."""
    left = look_at_maildrop(settings.maildrop.path)
    files: Numbers = {}
    oldest: Numbers = {}
    if left is not None and left.trouble is None:  # no numbers where nobody can tell
        files = {("waiting",): left.waiting, ("aside",): left.aside}
        oldest = {(): left.oldest_age_s}
    return families(
        [
            ("build_info", {(__version__,): 1}),
            ("volume_free_ratio", {(): free_share(state_dir)}),
            (_CERTIFICATE, _ends(settings)),
            ("maildrop_files", files),
            ("maildrop_oldest_age_seconds", oldest),
        ]
    )


def _ends(settings: Settings) -> Numbers:
    ends: Numbers = {}
    for listener in settings.listeners:
        if listener.tls.mode == "off" or listener.tls.cert is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # the front says what is wrong with it
            ends[str(listener.bind),] = certificate_end(Path(listener.tls.cert)).timestamp()
    return ends


READY_WITHIN_S = 3.0  # how long a look at the store may take: load balancers wait no longer
_SILENT_STORE = "the store does not answer"

ReadyCheck = Callable[[], Awaitable[str | None]]
"""Returns why the gateway is not ready, in one line for everyone, or None."""


class Readiness(NamedTuple):
    """Why mail is not taken, or None; and what else a balancer's people should know."""

    problem: str | None
    remark: str | None = None


def look_at_roles(store: Store, instance: str | None, *, has_worker: bool = False) -> Readiness:
    """Look whether a front and a delivery work, in a fleet those of the name `instance`; blocks.

    `has_worker`: a delivery of this gateway should be there.
    """
    try:
        registered = store.instances.registered()
    except StoreUnavailable:
        return Readiness(_SILENT_STORE)
    now_ms = clock_ms()
    fronts = [process for process in registered if process.role == "front"]
    workers = [process for process in registered if process.role == "delivery"]
    own, mine = (
        [process for process in some if instance in (None, process.name)]
        for some in (fronts, workers)
    )
    here = delivery_trouble(mine, now_ms=now_ms, is_wanted=has_worker)
    anywhere = delivery_trouble(workers, now_ms=now_ms, is_wanted=has_worker)
    problem = front_trouble(own, now_ms=now_ms)
    if anywhere is None or len(own) == len(fronts):  # another gateway sends, or there is none
        problem = problem or here
    return Readiness(problem, anywhere)


def health_routes(
    store: Store,
    is_ready: ReadyCheck | None,
    instance: str | None = None,
    *,
    has_worker: bool = False,
) -> list[Route]:
    """Return the routes; `is_ready` is asked too, once the store and a front are fine.

    `has_worker`: a delivery of this gateway should be registered, once it has had the time.
    """
    due_s = time.monotonic() + STALE_AFTER_S

    def look_now() -> Readiness:
        return look_at_roles(store, instance, has_worker=has_worker and time.monotonic() >= due_s)

    look = SharedRead(lambda: run_in_threadpool(look_now))

    async def show_life(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_readiness(request: Request) -> Response:
        try:
            problem, remark = await look.get(within_s=READY_WITHIN_S)
        except TimeoutError:
            problem, remark = _SILENT_STORE, None
        if problem is None and is_ready is not None:
            problem = await is_ready()
        if problem is None and remark is not None:
            return PlainTextResponse(f"ok, but {remark}: mail waits\n")
        if problem is None:
            return await show_life(request)
        return PlainTextResponse(f"not ready: {problem}\n", status_code=503)

    life = (Route(path, show_life) for path in ("/healthz", "/livez"))
    return [*life, Route("/readyz", show_readiness)]


PATH = "/metrics"
FRESH_S = 5.0  # for how long what the store said is told again
SCRAPE_WITHIN_S = 4.0  # how long an answer waits for the store; Prometheus gives up after 10 s
_log = logging.getLogger("relaygw.web")


class MetricsPage:
    """The metrics of one host; one object for all addresses where they are served."""

    def __init__(self, store: Store, settings: Settings, *, state_dir: Path) -> None:
        self._store = store
        self._settings = settings
        self._state_dir = state_dir
        self._gauges = SharedRead(self._read, fresh_s=FRESH_S)

    def route(self) -> Route:
        """Return the one route."""
        return Route(PATH, self.show)

    def app(self) -> Starlette:
        """Return an application with nothing else."""
        return Starlette(routes=[self.route()])

    async def show(self, request: Request) -> Response:
        """Answer a scrape."""
        try:
            of_store = await self._gauges.get(within_s=SCRAPE_WITHIN_S)
        except TimeoutError:
            of_store = families([("store_up", {(): 0})])
        accept = request.headers.get("accept", "")

        def compose() -> tuple[bytes, str]:
            gauges = [*host_gauges(self._settings, self._state_dir), *of_store]
            return exposition(self._state_dir, gauges, accept=accept)

        body, content_type = await anyio.to_thread.run_sync(compose)
        return Response(body, headers={**STRICT_HEADERS, "Content-Type": content_type})

    async def _read(self) -> list[GaugeFamily]:
        def read() -> list[GaugeFamily]:
            gauges = store_gauges(self._store, self._settings, now_ms=clock_ms())
            return [*families([("store_up", {(): 1})]), *gauges]

        try:
            return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
        except StoreUnavailable as error:
            _log.warning("metrics without the store: %s", error)
            return families([("store_up", {(): 0})])


class LocalMetrics:
    """Answers with the metrics ahead of all that looks at who is asking, for this host only.

    Unlike captured mail, numbers need no login in mode production: they are for whoever is on this
    host, under a name that is no other site's, and in `web.networks` where these are set.
    """

    def __init__(self, app: ASGIApp, *, page: MetricsPage, web: Web, client: ClientOf) -> None:
        self._app = app
        self._page = page
        self._networks, self._client = web.networks, client
        self._is_open = web.bind.is_loopback and not web.has_logins
        self._hosts = frozenset(host.strip("[]").lower() for host in web.hosts)
        self._paths = {PATH, web.base_path.rstrip("/") + PATH}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        answer = self._app
        if self._is_open and scope["type"] == "http" and scope["path"] in self._paths:
            hosts = Headers(scope=scope).getlist("host")
            is_known = len(hosts) == 1 and host_name(hosts[0]) in self._hosts
            if is_known and self._is_near(scope) and scope["method"] in ("GET", "HEAD"):
                answer = await self._page.show(Request(scope, receive))
        await answer(scope, receive, send)

    def _is_near(self, scope: AsgiScope) -> bool:
        client = self._client(HTTPConnection(scope))  # who asks a proxy is not on this host
        if client is None or not client.is_loopback:
            return False
        return not self._networks or is_trusted(client, self._networks)
