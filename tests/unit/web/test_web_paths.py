"""Where a login leads to, and what is open to everybody."""

from __future__ import annotations

import pytest

from relaygw.web.gate.guards import is_for_programs, is_free, own_path
from tests.tables import each_of


@each_of("root", ["", "/mail"])
@each_of("below", ["/", "/sandbox", "/sandbox/ABC?x=1&y=%2f#z", "/a//b", "/a..b"])
def test_own_paths_stay(root: str, below: str) -> None:
    assert own_path(root + below, root) == root + below


@each_of(
    "text",
    [
        *("", "evil", "http://evil.test", "//evil.test", "///evil.test", "/\\evil.test"),
        *("\\\\evil.test", "/\t/evil.test", "\t//evil.test", " //evil.test", "/a\\..\\b"),
        *("/x\r\nSet-Cookie: a=b", "/x\ny", "/x\x00", "/ü", "/a b", "javascript:alert(1)"),
        *("data:text/html,x", "/" + "x" * 3000, "/\u2028x", "/\u00a0/evil.test"),
        *("/login", "/login?next=/login", "/logout"),
        *("/..", "/mail/..", "/mail/../other", "/mail/%2e%2E/other", "/mail/./x", "/mail/.%2e"),
    ],
)
def test_what_is_not_ours_leads_to_the_first_page(text: str) -> None:
    assert own_path(text, "") == "/"
    assert own_path(text, "/mail") == "/mail/"


@pytest.mark.parametrize("text", ["/sandbox", "/mailevil", "/mail", "/", "/mail/login?x"])
def test_with_a_base_path_others_lead_to_the_first_page_below_it(text: str) -> None:
    assert own_path(text, "/mail") == "/mail/"


@each_of(
    "path", ["/", "/sandbox", "/api/v1/messages", "/view/latest", "/logout", "/loginx", "/static",
             "/login/", "/LOGIN", "/x/static/y", "/healthz/x", "/sandbox/events"],
)  # fmt: skip
def test_what_is_behind_the_gate(path: str) -> None:
    assert not is_free(path)


def test_what_is_open_and_what_is_for_programs() -> None:
    assert all(map(is_free, ["/login", "/static/relaygw.css", "/healthz", "/livez", "/readyz"]))
    assert is_for_programs("/api/v1/messages")
    assert is_for_programs("/view/latest")
    assert not is_for_programs("/sandbox/api/")
