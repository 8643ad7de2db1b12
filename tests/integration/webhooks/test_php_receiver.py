"""The receiver of docs/magento.md, run by PHP's own server with a Magento that has two orders."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.store.outbox import WebhookEvent
from relaygw.webhooks.post import body_of, headers_of, trial_event
from tests.e2e.ports import free_port
from tests.fakes.event_receiver import SECRET

PAGE = Path(__file__).parents[3] / "docs/magento.md"
MAGENTO = r"""<?php
namespace Magento\Framework\App {
    class Bootstrap {
        static function create($root, $server) { return new Bootstrap(); }
        function getObjectManager() { return new Objects(); }
    }
    class State { function setAreaCode($code) {} }
    class Objects {
        function get($name) { return new $name(); }
        function create($name) { return new $name(); }
    }
}
namespace Magento\Sales\Model {
    class Order {
        private $id = null;
        private $place;
        function loadByIncrementId($number) {
            $this->place = BP . "/orders/" . basename($number);
            $this->id = $number !== '' && is_file($this->place) ? $number : null;
            return $this;
        }
        function getId() { return $this->id; }
        function getStatusHistories() {
            $lines = array_filter(explode("\n", file_get_contents($this->place)));
            return $lines ? array_map(fn($line) => new Comment($line), $lines) : null;
        }
        function addCommentToStatusHistory($text) {
            file_put_contents($this->place, $text . "\n", FILE_APPEND);
            return new Comment($text);
        }
        function save() { if (is_file(BP . '/broken')) { throw new \Exception('no database'); } }
    }
    class Comment {
        function __construct(private $text) {}
        function getComment() { return $this->text; }
        function setIsCustomerNotified($is) { return $this; }
    }
}
namespace { define('BP', dirname(__DIR__)); }
"""


@dataclass(frozen=True)
class Shop:
    directory: Path
    port: int

    def order(self, number: str) -> list[str]:
        return (self.directory / "orders" / number).read_text().splitlines()

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/mail-events.php", body, headers)
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture(scope="module")
def running_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    php = shutil.which("php")
    assert php is not None
    directory = tmp_path_factory.mktemp("shop")
    for name in ("pub", "app", "orders"):
        (directory / name).mkdir()
    scripts = re.findall(
        r"```php\n(<\?php\n// pub/mail-events\.php\n.*?)```", PAGE.read_text(), re.S
    )
    (directory / "pub/mail-events.php").write_text(scripts[0])
    (directory / "app/bootstrap.php").write_text(MAGENTO)
    port = free_port()
    words = [php, "-d", "display_errors=0", "-S", f"127.0.0.1:{port}", "-t", str(directory / "pub")]
    server = subprocess.Popen(
        words, env={**os.environ, "WEBHOOK_SECRET": SECRET}, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    line = ""
    while "started" not in line:  # it says so once it listens
        line = server.stderr.readline()
        assert line, "php ended"
    os.set_blocking(server.stderr.fileno(), False)
    yield Shop(directory, port)
    server.terminate()
    server.wait()
    server.stderr.close()


@pytest.fixture
def shop(running_shop: Shop) -> Shop:
    for number in ("100000123", "100000124"):
        (running_shop.directory / "orders" / number).write_text("")
    (running_shop.directory / "broken").unlink(missing_ok=True)
    return running_shop


def bounced(order: str | None, number: int = 1) -> WebhookEvent:
    said = {"address": "ann@cust.test", "reply": "550 <b>no such user</b>", "link_value": order}
    one = trial_event(clock_ms())._replace(kind="bounced", **said)
    return one._replace(event_id=f"ev_{order}_{number}")


def signed(
    *events: WebhookEvent,
    key: str = SECRET,
    ago_s: float = 0.0,
    keys: tuple[str, ...] = (),
    mode: str = "production",
) -> tuple[bytes, dict[str, str]]:
    at_ms = clock_ms() - int(ago_s * 1000)
    body = body_of(events, hostname="gw.test", mode=mode, at_ms=at_ms)
    return body, headers_of(body, post_id="msg_1", keys=keys or (key,), at_ms=at_ms)


def test_the_order_tells_what_became_of_its_mail(shop: Shop) -> None:
    events = [bounced("100000123"), bounced(None), bounced("999"), bounced("100000124")]
    for _ in range(2):  # a post may come twice
        assert shop.post(*signed(*events)) == 204
    (line,) = shop.order("100000123")
    assert line.startswith("Mail to ann@cust.test: bounced. 550 &lt;b&gt;no such user&lt;/b&gt;")
    assert len(shop.order("100000124")) == 1
    assert shop.post(*signed(bounced("100000123", 2))) == 204
    assert len(shop.order("100000123")) == 2


def test_a_gateway_of_staging_that_has_this_url_changes_no_order(shop: Shop) -> None:
    for mode in ("staging", "sandbox", ""):
        assert shop.post(*signed(bounced("100000123"), mode=mode)) == 204
    assert shop.order("100000123") == []


def test_both_signatures_are_read_while_the_secret_changes(shop: Shop) -> None:
    other = "whsec_" + "B" * 32
    assert shop.post(*signed(bounced("100000123"), keys=(other, SECRET))) == 204
    assert len(shop.order("100000123")) == 1


def test_a_post_that_is_not_the_gateways_changes_nothing(shop: Shop) -> None:
    event = bounced("100000123")
    body, headers = signed(event)
    forged = [
        signed(event, key="whsec_" + "B" * 32),
        signed(event, ago_s=301),
        signed(event, ago_s=-302),
        (body.replace(b"ann@", b"bob@"), headers),
        (body, {**headers, "webhook-id": "msg_2"}),
        (body, {**headers, "webhook-timestamp": str(int(time.time()) - 1)}),
        (body, {**headers, "webhook-timestamp": "now"}),
        (body, {**headers, "webhook-signature": ""}),
        (body, {**headers, "webhook-signature": headers["webhook-signature"][:-4]}),
        (body, {**headers, "webhook-signature": "v1a," + headers["webhook-signature"][3:]}),
        *((body, {n: v for n, v in headers.items() if n != name}) for name in headers
          if name.startswith("webhook-")),
    ]  # fmt: skip
    assert [shop.post(*one) for one in forged] == [401] * len(forged)
    assert shop.order("100000123") == []


def test_trouble_in_the_shop_is_no_success(shop: Shop) -> None:
    (shop.directory / "broken").touch()
    assert shop.post(*signed(bounced("100000123"))) == 500


def test_the_test_of_the_command_is_taken(shop: Shop) -> None:
    assert shop.post(*signed(trial_event(clock_ms()))) == 204
    assert json.loads(signed(trial_event(1))[0])["data"]["events"][0]["kind"] == "test"
