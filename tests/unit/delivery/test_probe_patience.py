"""How long a probe waits for a provider while another one could take over."""

from __future__ import annotations

from relaygw.delivery.holds import _patience_s


def test_where_all_are_slow_one_is_back_in_the_end() -> None:
    assert [_patience_s(failures) for failures in range(9)] == [
        *(2.0, 2.0, 2.0),  # to find out soon that it is down
        *(4.0, 8.0, 16.0, 32.0, 60.0, 60.0),
    ]
