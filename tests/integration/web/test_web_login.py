"""The login page, sessions and their end, over HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from relaygw import passwords
from relaygw.errors import StoreUnavailable
from relaygw.settings.model import Settings
from relaygw.store.sessions import Sessions
from relaygw.store.store import Store
from relaygw.web.gate import credentials
from relaygw.web.gate.credentials import COOKIE, csrf_token, token_of
from tests.integration.web.people import PASSWORDS, ROLES, hash_of, with_logins

pytestmark = pytest.mark.usefixtures("quick_failures")
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
MESSAGES = "/api/v1/messages"
COOKIE_FORM = re.compile(
    rf"{COOKIE}=[A-Za-z0-9_-]{{43}}\.[A-Za-z0-9_-]{{43}}; HttpOnly; Path=/; SameSite=strict"
)


async def log_in(
    client: httpx2.AsyncClient, name: str, password: str | None = None, **sent: Any
) -> httpx2.Response:
    fields = {"name": name, "password": password or PASSWORDS[name], "next": sent.pop("to", "")}
    return await client.post("/login", data=fields, **sent)


def csrf_of(client: httpx2.AsyncClient, name: str) -> str:
    return csrf_token(token_of(client.cookies[COOKIE]), name)


@pytest.mark.parametrize("mode", ["sandbox", "staging", "production"])
async def test_nobody_sees_mail(serve: Serve, mode: str) -> None:
    client = await serve(with_logins(mode))
    for path in [MESSAGES, "/api/v1/message/latest/raw", "/view/latest", "/api/no/such/thing"]:
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (401, "log in first")
        assert answer.headers["www-authenticate"] == 'Basic realm="relaygw", charset="UTF-8"'
    for path in ["/healthz", "/livez", "/login"]:
        assert (await client.get(path)).status_code == 200


async def test_pages_lead_to_the_login_and_back(serve: Serve) -> None:
    client = await serve(with_logins())
    wanted = "/sandbox/A%20B?q=%26x&y=1"
    answer = await client.get(wanted)
    assert answer.status_code == 303
    login = answer.headers["location"]
    assert login == "/login?next=/sandbox/A%2520B%3Fq%3D%2526x%26y%3D1"
    assert "www-authenticate" not in answer.headers
    page = await client.get(login)
    assert f'name="next" value="{wanted.replace("&", "&amp;")}"' in page.text
    answer = await log_in(client, "vera", to=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, wanted)
    assert (await client.get(login)).headers["location"] == wanted  # there is a session already


async def test_what_scripts_of_a_page_get_instead(serve: Serve) -> None:
    client = await serve(with_logins())
    answer = await client.get("/sandbox", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")
    answer = await client.get("/sandbox/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401
    answer = await client.post("/sandbox/X/delete")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("name", PASSWORDS)
async def test_a_login_is_a_session(serve: Serve, name: str) -> None:
    client = await serve(with_logins())
    answer = await log_in(client, name)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert COOKIE_FORM.fullmatch(answer.headers["set-cookie"])
    assert (await client.get(MESSAGES)).status_code == 200


async def test_the_page_is_strict_and_keeps_the_name_only(serve: Serve) -> None:
    client = await serve(with_logins())
    page = await log_in(client, '"><script>alert(1)</script>', "hunter2-canary")
    assert page.status_code == 403
    assert "Name or password is wrong." in page.text
    assert "<script>alert" not in page.text
    assert "hunter2-canary" not in page.text
    assert "set-cookie" not in page.headers
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    # with no-referrer a browser would send this very form with `Origin: null`
    assert page.headers["referrer-policy"] == "same-origin"


async def test_wrong_and_unknown_look_alike(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "FAILURE_S", 0.3)
    client = await serve(with_logins())
    answers = []
    for name in ("anna", "nobody"):
        began_s = time.monotonic()
        answer = await log_in(client, name, "wrong")
        assert time.monotonic() - began_s >= 0.3
        answers.append((answer.status_code, answer.text.replace(name, "")))
    assert answers[0] == answers[1]


async def test_a_planted_session_is_worth_nothing(serve: Serve) -> None:
    """Session fixation: neither a made-up cookie nor the attacker's own becomes the victim's."""
    client = await serve(with_logins())
    await log_in(client, "vera")
    planted = client.cookies[COOKIE]
    client.cookies.clear()
    for cookie in ("x" * 43 + "." + "y" * 43, planted):
        answer = await log_in(client, "anna", headers={"Cookie": f"{COOKIE}={cookie}"})
        assert cookie not in answer.headers["set-cookie"]
        client.cookies.clear()
        headers = {"Cookie": f"{COOKIE}={cookie}"}
        assert (await client.get(MESSAGES, headers=headers)).status_code == 401


async def test_logging_out_ends_the_session(serve: Serve, store: Store) -> None:
    client = await serve(with_logins())
    await log_in(client, "vera")
    cookie = client.cookies[COOKIE]
    assert (await client.post("/logout")).status_code == 403
    assert (await client.get("/logout")).status_code == 405
    assert (await client.get(MESSAGES)).status_code == 200
    answer = await client.post("/logout", data={"csrf": csrf_of(client, "vera")})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert re.search(rf'{COOKIE}=""; .*Max-Age=0; Path=/', answer.headers["set-cookie"])
    assert COOKIE not in client.cookies
    headers = {"Cookie": f"{COOKIE}={cookie}"}
    assert (await client.get(MESSAGES, headers=headers)).status_code == 401


async def test_a_session_ends_by_itself(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = credentials.clock_ms()
    monkeypatch.setattr(credentials, "clock_ms", lambda: now_ms)
    client = await serve(with_logins())
    await log_in(client, "vera")
    for _ in range(13):  # used each 11 hours: alive, until it is a week old
        now_ms += credentials.IDLE_MS - 3_600_000
        assert (await client.get(MESSAGES)).status_code == 200
    now_ms += 100 * 3_600_000
    assert (await client.get(MESSAGES)).status_code == 401


async def test_no_session_is_older_than_a_week(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_ms = now_ms = credentials.clock_ms()
    monkeypatch.setattr(credentials, "clock_ms", lambda: now_ms)
    client = await serve(with_logins())
    await log_in(client, "vera")
    while (await client.get(MESSAGES)).status_code == 200:
        now_ms += 3_600_000
        assert now_ms < began_ms + 2 * credentials.LONGEST_MS
    assert now_ms == began_ms + credentials.LONGEST_MS


def changed(settings: Settings, **changes: Any) -> Settings:
    """Return settings in which the user anna is another."""
    users = tuple(
        user.model_copy(update=changes) if user.name == "anna" else user
        for user in settings.web.users
    )
    return settings.model_copy(update={"web": settings.web.model_copy(update={"users": users})})


@pytest.mark.parametrize("changes", [{"password_hash": hash_of("pä ss:word")}, {"name": "andrea"}])
async def test_a_new_password_or_a_user_who_left_ends_sessions(
    serve: Serve, changes: dict[str, str]
) -> None:
    before = with_logins()
    client = await serve(before)
    await log_in(client, "anna")
    after = await serve(changed(before, **changes))
    after.cookies = client.cookies
    assert (await after.get(MESSAGES)).status_code == 401
    assert (await client.get(MESSAGES)).status_code == 200


async def test_a_changed_role_counts_at_once(serve: Serve) -> None:
    before = with_logins()
    client = await serve(before)
    await log_in(client, "anna")
    after = await serve(changed(before, role="viewer"))
    headers = {"X-CSRF-Token": csrf_of(client, "anna")}
    assert (await client.post("/api/nothing", headers=headers)).status_code == 404
    after.cookies = client.cookies
    assert (await after.post("/api/nothing", headers=headers)).status_code == 403


async def test_two_cookies_of_our_name_are_none(serve: Serve) -> None:
    client = await serve(with_logins())
    await log_in(client, "vera")
    mine = f"{COOKIE}={client.cookies[COOKIE]}"
    client.cookies.clear()
    for sent, status in [
        (mine, 200),
        (f"a=b; {mine};c", 200),
        (f"{mine}; {mine}", 200),
        (f"{mine}; {COOKIE}=!", 401),
        (f"{mine}; {COOKIE}=~", 401),
        (f"{COOKIE}=; {mine}", 401),
        (f"x{mine}", 401),
        (mine.replace(COOKIE, COOKIE.upper()), 401),
        (mine[:-1], 401),
        (mine.partition(".")[0], 401),
        (mine.partition(".")[0] + "." + "A" * 43, 401),
    ]:
        answer = await client.get(MESSAGES, headers={"Cookie": sent})
        assert answer.status_code == status, sent


def content_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_the_store_has_no_token(serve: Serve, store: Store, tmp_path: Path) -> None:
    client = await serve(with_logins())
    await log_in(client, "vera")
    token, _, seal = client.cookies[COOKIE].partition(".")
    kept = content_of(tmp_path)
    assert b"vera" in kept
    assert token.encode() not in kept
    assert seal.encode() not in kept


@pytest.mark.parametrize(
    "wanted",
    ["//evil.test", "https://evil.test", "/\\evil.test", "/\t/evil.test", "/a\r\nX-Evil: 1", "/ü"],
)
async def test_a_login_leads_to_no_other_site(serve: Serve, wanted: str) -> None:
    client = await serve(with_logins())
    answer = await log_in(client, "vera", to=wanted)
    assert answer.headers["location"] == "/"
    assert "x-evil" not in answer.headers
    answer = await client.get("/login", params={"next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    client.cookies.clear()
    page = await client.get("/login", params={"next": wanted})
    assert 'name="next" value="/"' in page.text


async def test_who_follows_a_link_stays_logged_in(serve: Serve) -> None:
    """From another site a browser sends no Strict cookie; it is let to ask again by itself."""
    client = await serve(with_logins())
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = await client.get("/login?next=/sandbox/X%3Fa%3Bb", headers=foreign)
    assert answer.headers["refresh"] == "0; url=/login?next=/sandbox/X%3Fa%3Bb"
    assert answer.text == ""
    await log_in(client, "vera")
    answer = await client.get(
        "/login?next=/sandbox/X%3Fa%3Bb", headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert answer.headers["location"] == "/sandbox/X?a;b"


async def test_guesses_lock_the_address_and_nobody_with_a_session(serve: Serve) -> None:
    settings = with_logins(proxies=["127.0.0.1/32"])
    client = await serve(settings)
    await log_in(client, "anna")
    session = client.cookies[COOKIE]
    client.cookies.clear()
    guesser = {"X-Forwarded-For": "198.51.100.7"}
    for number in range(passwords.MAX_FAILURES):
        name = f"user{number}"
        assert (await log_in(client, name, "x", headers=guesser)).status_code == 403
    answer = await log_in(client, "anna", headers=guesser)
    assert answer.status_code == 429
    assert "Try again in 10 minutes" in answer.text
    answer = await client.get(MESSAGES, auth=("anna", PASSWORDS["anna"]), headers=guesser)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    headers = {**guesser, "Cookie": f"{COOKIE}={session}"}
    assert (await client.get(MESSAGES, headers=headers)).status_code == 200
    for other in ("198.51.100.8", "198.51.100.7, 203.0.113.1"):
        answer = await log_in(client, "anna", headers={"X-Forwarded-For": other})
        assert answer.status_code == 303


async def test_nobody_gets_round_the_lock_by_a_made_up_address(serve: Serve) -> None:
    client = await serve(with_logins())
    for number in range(passwords.MAX_FAILURES):
        headers = {"X-Forwarded-For": f"198.51.100.{number}"}
        await log_in(client, f"user{number}", "x", headers=headers)
    headers = {"X-Forwarded-For": "198.51.100.99"}
    assert (await log_in(client, "anna", headers=headers)).status_code == 429


async def test_guesses_at_a_name_from_everywhere_do_not_lock_it(serve: Serve) -> None:
    client = await serve(with_logins(proxies=["127.0.0.1/32"]))
    for number in range(8):
        headers = {"X-Forwarded-For": f"198.51.100.{number}"}
        assert (await log_in(client, "anna", "x", headers=headers)).status_code == 403
    began_s = time.monotonic()
    answer = await log_in(client, "anna", headers={"X-Forwarded-For": "203.0.113.1"})
    assert answer.status_code == 303
    assert time.monotonic() - began_s > 3.9
    began_s = time.monotonic()
    answer = await log_in(client, "vera", headers={"X-Forwarded-For": "203.0.113.2"})
    assert answer.status_code == 303
    assert time.monotonic() - began_s < 3.9


@pytest.mark.parametrize(
    ("proxies", "told", "is_secure"),
    [(["127.0.0.1/32"], "https", True), (["127.0.0.1/32"], "http", False), ([], "https", False)],
)
async def test_the_cookie_of_https_stays_there(
    serve: Serve, proxies: list[str], told: str, is_secure: bool
) -> None:
    client = await serve(with_logins(proxies=proxies))
    answer = await log_in(client, "vera", headers={"X-Forwarded-Proto": told})
    assert ("; secure" in answer.headers["set-cookie"].lower()) is is_secure


async def test_a_form_of_another_site_logs_nobody_in(serve: Serve) -> None:
    client = await serve(with_logins())
    for headers in ({"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await log_in(client, "vera", headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_a_store_that_is_down(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in nor out: the answer is 503, and the session is there again afterwards."""
    client = await serve(with_logins())
    await log_in(client, "vera")

    def down(*_: object) -> None:
        raise StoreUnavailable("disk of the secret path")

    with monkeypatch.context() as broken:
        broken.setattr(Sessions, "get", down)
        broken.setattr(Sessions, "put", down)
        for path in (MESSAGES, "/sandbox", "/login"):
            answer = await client.get(path)
            assert (answer.status_code, "secret path" in answer.text) == (503, False)
        client.cookies, kept = httpx2.Cookies(), client.cookies
        answer = await log_in(client, "vera")
        assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
    client.cookies = kept
    assert (await client.get(MESSAGES)).status_code == 200


async def test_a_session_that_was_ended_stays_so(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a request that was being answered meanwhile brings it back."""
    now_ms = credentials.clock_ms()
    monkeypatch.setattr(credentials, "clock_ms", lambda: now_ms)
    client = await serve(with_logins())
    await log_in(client, "vera")
    read, reads = Sessions.get, 0

    def read_and_log_out(self: Sessions, token_hash: str) -> object:
        nonlocal reads
        reads += 1
        found = read(self, token_hash)
        if reads == 1:
            self.drop(token_hash)
        return found

    now_ms += 120_000
    with monkeypatch.context() as slow:
        slow.setattr(Sessions, "get", read_and_log_out)
        await client.get(MESSAGES)
    assert reads == 2
    assert (await client.get(MESSAGES)).status_code == 401


async def test_where_nobody_has_to_log_in(serve: Serve) -> None:
    client = await serve()
    answer = await client.get("/login?next=/sandbox")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sandbox")
    assert (await client.get(MESSAGES)).status_code == 200


async def test_where_only_programs_are_known(serve: Serve) -> None:
    settings = with_logins()
    web = settings.web.model_copy(update={"users": ()})
    client = await serve(settings.model_copy(update={"web": web}))
    assert "there are no web.users" in (await client.get("/login")).text
    assert (await log_in(client, "anna")).status_code == 403
    assert (await client.get(MESSAGES)).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [b"", b"name=vera", b"password=v-word", b"name=&password=", b"name=%00&password=%00",
     b"name=%ff&password=%fe", b"\xff=\xfe", b"name=vera&password=" + b"x" * 4000,
     b"name=vera%0d%0aforged&password=x", b"&" * 7000],
)  # fmt: skip
async def test_odd_forms_are_wrong_passwords(
    serve: Serve, fields: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(with_logins())
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.post("/login", content=fields, headers=headers)
    assert answer.status_code == 403
    assert "forged" not in caplog.text


async def test_each_page_says_who_is_logged_in_and_lets_out(serve: Serve) -> None:
    for name, role in ROLES.items():
        client = await serve(with_logins())
        await log_in(client, name)
        for path in ("/", "/queue", "/find", "/sandbox", "/audit", "/api/docs", "/queue/NO"):
            page = (await client.get(path, headers={"Accept": "text/html"})).text
            assert f'title="{name} has the role {role}"' in page, path
            assert f'aria-label="Log out {name}"' in page, path
    page = (await (await serve()).get("/sandbox")).text
    assert "anyone has the role operator" in page
    assert "Log out" not in page
