"""Addresses of both families take turns."""

from __future__ import annotations

import socket

from relaygw.upstream.connection import interleave

V4, V6 = socket.AF_INET, socket.AF_INET6


def test_families_take_turns() -> None:
    found = [(V6, "a"), (V6, "b"), (V6, "c"), (V4, "d"), (V4, "e")]
    assert [one for _, one in interleave(found)] == ["a", "d", "b", "e", "c"]


def test_one_family_keeps_its_order() -> None:
    assert interleave([(V4, "a"), (V4, "b")]) == [(V4, "a"), (V4, "b")]
    assert interleave([]) == []
