from __future__ import annotations

from relaygw.web.message_view import ContentFacts, read_facts
from relaygw.web.mime_tree import read_tree
from relaygw.web.summaries import SummaryCache


def facts(text: bytes) -> ContentFacts:
    return read_facts(read_tree(b"\r\n" + text))


def test_the_least_recently_used_goes_when_the_bytes_are_used_up() -> None:
    probe = SummaryCache(limit_bytes=10**6)
    probe.put("x", facts(b"1"))
    cache = SummaryCache(limit_bytes=probe.used_bytes * 2)
    cache.put("a", facts(b"1"))
    cache.put("b", facts(b"2"))
    assert cache.get("a") == facts(b"1")
    cache.put("c", facts(b"3"))
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]
    assert cache.used_bytes == probe.used_bytes * 2


def test_putting_twice_counts_once() -> None:
    cache = SummaryCache(limit_bytes=10**6)
    cache.put("a", facts(b"1"))
    used_bytes = cache.used_bytes
    cache.put("a", facts(b"1"))
    assert cache.used_bytes == used_bytes


def test_what_is_more_than_the_limit_is_not_kept() -> None:
    cache = SummaryCache(limit_bytes=50)
    cache.put("a", facts(b"1"))
    assert cache.get("a") is None
    assert cache.used_bytes == 0
