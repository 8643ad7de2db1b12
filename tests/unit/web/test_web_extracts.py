from __future__ import annotations

import time

import pytest

from relaygw.web.sandbox.api.live import MAX_CODES, codes_of
from tests.tables import each_of


@each_of(
    ("text", "code"),
    [
        ("Your code is 482913.", "482913"),
        ("482913 is your verification code", "482913"),
        ("Ihr Bestätigungscode lautet:\n\n482913\n\nEr gilt 10 Minuten.", "482913"),
        ("482913 ist Ihr Code für die Anmeldung", "482913"),
        ("Votre code: 123 456", "123456"),
        ("One-time password (OTP): 123-456", "123456"),
        ("Use the token AB12-CD34 to log in", "AB12-CD34"),
        ("Your PIN: 2024", "2024"),
        ("Order 100234 of 2025. Your code: 4829", "4829"),
        ("Your order 100234 costs 1299 EUR. Confirm it with code 771200", "771200"),
        ("© 2025 Shop\nCode: 771200", "771200"),
        ("In 2025 we moved. 771200 is your code.", "771200"),
        ("Kundennummer: 55123, Bestellnr. 100234; Ihr Zugangscode: X7K2P9", "X7K2P9"),
        ("Total €1299, code below\n\n771200", "771200"),
        ("<https://x.test/?code=999111> or type the code 771200", "771200"),
    ],
)
def test_the_code_comes_first(text: str, code: str) -> None:
    assert codes_of(text)[0] == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Thanks for nothing",
        "Call +49 or write to ann2025@x.test",
        "It costs 1.299,00 or 12.50 or 100%",
        "On 2025-11-25 at 10:15:00",
        "https://x.test/12345/AB12CD",
        "TOTAL AMOUNT SHIPPING",
    ],
)
def test_no_code(text: str) -> None:
    assert codes_of(text) == []


def test_each_once_and_not_too_many() -> None:
    assert codes_of("code 1234, again 1234") == ["1234"]
    assert len(codes_of(" ".join(str(number) for number in range(10_000, 11_000)))) == MAX_CODES


@pytest.mark.parametrize("piece", ["1234 ", "code ", "A1-", "A1", "123 456 code. ", "order nr. "])
def test_heavy_texts_take_no_time(piece: str) -> None:
    began_s = time.process_time()
    codes_of(piece * (4_000_000 // len(piece)))
    assert time.process_time() - began_s < 1
