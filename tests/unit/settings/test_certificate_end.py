"""The end of a certificate, also of one that has ended, as openssl tells it."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from relaygw.settings.certificates import certificate_end


@pytest.mark.parametrize(
    "end",
    [
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),  # the last UTCTime
        datetime(2050, 1, 1, tzinfo=UTC),  # the first GeneralizedTime
        datetime(2021, 2, 3, 4, 5, 6, tzinfo=UTC),
    ],
)
def test_the_end_is_what_the_certificate_says(tmp_path: Path, end: datetime) -> None:
    file = tmp_path / "cert.pem"
    issued = trustme.CA().issue_cert(
        "gw.test", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=end
    )
    for blob in issued.cert_chain_pems:  # the gateway's own one is the first
        blob.write_to_path(file, append=True)
    assert certificate_end(file) == end
    text = subprocess.run(
        ["openssl", "x509", "-in", file, "-noout", "-enddate", "-dateopt", "iso_8601"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert text.strip() == f"notAfter={end:%Y-%m-%d %H:%M:%SZ}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIF\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_a_value_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cert.pem"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"cert\.pem holds (no PEM|an unreadable) certificate"):
        certificate_end(file)
