"""Files that are left alone: named once, looked at again, and never without bound."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from relaygw.inbound import drop_directory
from relaygw.inbound.drop_directory import LOOK_AGAIN_S, MAX_ASIDE, MAX_NAMED, SetAside
from tests.logs import text_log


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def aside(stream: io.StringIO) -> SetAside:
    return SetAside(text_log(stream))


def test_a_file_is_named_once_for_each_reason(aside: SetAside, stream: io.StringIO) -> None:
    for reason in ("a fifo", "a fifo", "damaged"):
        aside.set_aside(Path("/m/x.drop"), reason)
    assert "x.drop" in aside
    assert "y.drop" not in aside
    lines = stream.getvalue().splitlines()
    assert [line.partition("warning: ")[2] for line in lines] == [
        "/m/x.drop: a fifo; left in place",
        "/m/x.drop: damaged; left in place",
    ]


def test_after_a_while_it_is_looked_at_again(
    aside: SetAside, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside.set_aside(Path("/m/x.drop"), "a fifo")
    aside.fail(Path("/m/y.drop"), "an error")
    later_s = drop_directory.time.monotonic() + LOOK_AGAIN_S
    monkeypatch.setattr(drop_directory.time, "monotonic", lambda: later_s)
    assert ("x.drop" in aside, "y.drop" in aside) == (False, False)


def test_an_error_is_tried_again_soon_then_later_and_is_told_in_the_end(
    aside: SetAside, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(drop_directory.time, "monotonic", lambda: now_s)
    pauses_s = []
    for count in range(1, 14):
        aside.fail(Path("/m/x.drop"), "EIO")
        assert bool(aside.reasons) == (count >= 3)
        begun_s = now_s
        while "x.drop" in aside:
            now_s += 1
        pauses_s.append(now_s - begun_s)
    assert pauses_s == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    lines = stream.getvalue().splitlines()
    assert [line.partition("warning: ")[2] for line in lines] == [
        "/m/x.drop: EIO; tried again",
        "/m/x.drop: failed 3 times: EIO; left in place",
    ]
    assert aside.reasons == {"x.drop": "failed 3 times: EIO"}


def test_what_is_gone_is_forgotten(aside: SetAside) -> None:
    for name in ("x.drop", "y.drop"):
        aside.set_aside(Path("/m", name), "damaged")
    aside.keep({"y.drop"})
    assert ("x.drop" in aside, "y.drop" in aside) == (False, True)
    assert aside.reasons == {"y.drop": "damaged"}
    aside.forget(["y.drop"])
    assert aside.reasons == {}


def test_rubbish_without_end_does_not_fill_the_log(aside: SetAside, stream: io.StringIO) -> None:
    for number in range(MAX_ASIDE + 2):
        aside.set_aside(Path(f"/m/{number}.drop"), "damaged")
    assert len(stream.getvalue().splitlines()) == MAX_NAMED + 1
    assert f"more than {MAX_NAMED} such files" in stream.getvalue()
    is_aside = [f"{number}.drop" in aside for number in (0, 1, 2, MAX_ASIDE + 1)]
    assert is_aside == [False, False, True, True]
