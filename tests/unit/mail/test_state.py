"""Why mail is captured: sentences that stand in queues, and the codes read out of them."""

from __future__ import annotations

import pytest

from relaygw.mail.state import CaptureCode, capture_code

WRITTEN = {
    CaptureCode.SANDBOX: "sandbox mode",
    CaptureCode.NOT_ALLOWED: "staging: not on the allow list",
    CaptureCode.BLOCKED: "on the block list",
    CaptureCode.SUPPRESSED: "suppressed",
    CaptureCode.NO_DOMAIN: "local recipient without a rule",
    CaptureCode.INVALID_ADDRESS: "invalid address",
    CaptureCode.LOOP: "mail loop",
    CaptureCode.TOO_LARGE: "larger than max_message_size",
    CaptureCode.HEADER_TOO_LONG: "header longer than max_header_size",
    CaptureCode.BOUNCE_MAIL: "bounce mail: read here, sent to nobody",
}
UNWRITTEN = {CaptureCode.NO_ROUTE, CaptureCode.OTHER}


@pytest.mark.parametrize("code", [code for code in CaptureCode if code not in UNWRITTEN])
def test_a_sentence_begins_as_in_queues_of_versions_before(code: CaptureCode) -> None:
    assert code.sentence() == WRITTEN[code]
    assert code.sentence(": and more") == f"{WRITTEN[code]}: and more"
    assert capture_code(f"{WRITTEN[code]}: and more") is code


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_sentence_there_was_no_route(nothing: str | None) -> None:
    assert capture_code(nothing) is CaptureCode.NO_ROUTE


def test_a_sentence_that_nobody_knows_has_the_code_of_others() -> None:
    assert capture_code("invalid sender x: bad local part") is CaptureCode.OTHER
