"""The page, the rules and the dashboard name the metrics that there are, in the form they have."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaygw.mail.envelope import DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe import labels
from relaygw.observe.counters import DeliveryMetrics, FeedbackMetrics, FrontMetrics
from relaygw.observe.events import Attempted
from relaygw.observe.exposition import GaugeFamily, exposition
from relaygw.observe.metrics import MetricsFile
from relaygw.observe.observer import ListenerObserver
from relaygw.settings.model import Settings
from relaygw.store.store import open_store
from relaygw.web.dashboard.monitoring import CAUSES, host_gauges, store_gauges
from tests.builders import NOW_MS, claimed
from tests.queues import make_queue
from tests.unit.observe.scraped import scraped

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operating.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) \| (counter|gauge|histogram) \| .+ \|$", PAGE, re.M)
PROMETHEUS = ROOT / "config/prometheus"
DASHBOARD = json.loads((ROOT / "config/grafana/relaygw.json").read_text())
SETTINGS = Settings.model_validate(
    {
        "mode": "production",
        "providers": {
            "main": {"host": "mx.test", "rate": "5/s", "daily_quota": 100},
        },
        "routes": [{"name": "default", "providers": ["main"]}],
    }
)


@pytest.fixture
def text(state_dir: Path, file: MetricsFile) -> bytes:
    """Return a scrape with every metric."""
    front = FrontMetrics(file)
    ListenerObserver("127.0.0.1:25", None, front).sample(1)
    front.batches.add(0.01)
    front.write()
    delivery = DeliveryMetrics(file, ["main"])
    taken = RecipientUpdate(
        rcpt_no=0, state=RecipientState.DELIVERED, reply="", dsn="2.0.0", provider="main"
    )
    update = DeliveryUpdate(
        queue_id="A",
        delivery_no=0,
        state=DeliveryState.FINISHED,
        due_at_ms=0,
        provider="main",
        reason=None,
        recipients=(taken,),
    )
    report = AttemptReport(provider="main", relay="mx.test", outcomes=())
    delivery.read([Attempted(claimed(), update, report, NOW_MS)])
    delivery.write({"main": (1, 0)})
    feedback = FeedbackMetrics(file, ["main"])
    feedback.write()
    url = f"sqlite:///{state_dir}/queue.db"
    make_queue(url)
    store = open_store(url)
    gauges = [
        GaugeFamily(name="store_up", meaning="Whether the store answers.", numbers={(): 1}),
        *host_gauges(SETTINGS, state_dir),
        *store_gauges(store, SETTINGS, now_ms=NOW_MS),
    ]
    store.close()
    return exposition(state_dir, gauges, accept="")[0]


def names_in(expression: str) -> set[str]:
    found = re.findall(r"relaygw_(\w+)", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_the_page_has_every_metric_with_its_type_and_no_other(text: bytes) -> None:
    found = {
        name.removeprefix("relaygw_") + ("_total" if kind == "counter" else ""): kind
        for name, kind in scraped(text).types.items()
    }
    assert {name: kind for name, _, kind in ROWS} == found


def test_the_page_has_the_labels_and_no_other(text: bytes) -> None:
    for name, cell, _ in ROWS:
        wanted = set(re.findall(r"`(\w+)`", cell))
        for full in scraped(text).numbers:
            if names_in(full.partition("[")[0]) == {name}:
                labels = set(re.findall(r"\('(\w+)',", full)) - {"le"}
                assert labels == wanted, full


def test_the_page_has_every_reason_and_cause() -> None:
    for word in (*labels.CAPTURED, *labels.DEFERRED, *labels.BOUNCED, *CAUSES):
        known = word.removeprefix("refused_")
        assert f"`{known}`" in PAGE, word


def test_prometheus_has_nothing_against_the_form(text: bytes) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_a_scrape_may_ask_for_openmetrics(state_dir: Path) -> None:
    body, kind = exposition(state_dir, [], accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


# --- rules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "file"), [("check", "rules.yaml"), ("test", "rules_test.yaml")], ids=["check", "test"]
)
def test_promtool_is_content_with_the_rules(what: str, file: str) -> None:
    done = subprocess.run(
        ["promtool", what, "rules", file], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
    steps = [step for test in tests for step in test["alert_rule_test"]]
    firing = {step["alertname"] for step in steps if "exp_alerts" in step}
    silent = {step["alertname"] for step in steps if "exp_alerts" not in step}
    assert (sorted(firing), sorted(silent)) == (sorted(alerts), sorted(alerts))


def test_rules_and_their_tests_name_metrics_that_there_are() -> None:
    known = {name for name, _, _ in ROWS}
    for file in ("rules.yaml", "rules_test.yaml"):
        assert names_in((PROMETHEUS / file).read_text()) - known == set()


# --- dashboard ----------------------------------------------------------------------------


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert asked == {name for name, _, _ in ROWS}


def test_prometheus_can_read_every_question_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{number}",
            "expr": one.replace("$__rate_interval", "5m").replace("$job", ".*"),
        }
        for number, one in enumerate(expressions())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: dict[tuple[int, int], Any] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
