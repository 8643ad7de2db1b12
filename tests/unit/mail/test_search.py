"""Searches as people type them."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.search import (
    EVERYTHING,
    MAX_CHARACTERS,
    MAX_TERMS,
    Field,
    MailSearch,
    SearchMistake,
    Term,
    parse_find,
    parse_search,
)
from relaygw.mail.search_words import split_words, words_of
from relaygw.mail.searchable_text import searchable, tag_key
from tests.tables import each_of


def only(query: str) -> Term:
    (term,) = parse_search(query).terms
    return term


def word(text: str, *, is_negated: bool = False) -> Term:
    return Term(field=Field.TEXT, text=text, is_negated=is_negated)


def ms(*parts: int, tz: timezone = UTC) -> int:
    year, month, day, *time = parts
    return int(datetime(year, month, day, *time, tzinfo=tz).timestamp() * 1000)


# --- words --------------------------------------------------------------------------------


@each_of(
    ("query", "terms"),
    [
        ("order", [word("order")]),
        ("  Your   ORDER ", [word("your"), word("order")]),
        ('"on its way"', [word("on its way")]),
        ('"on its way', [word("on its way")]),
        ('on"its way"', [word("on its way")]),
        ("-order", [word("order", is_negated=True)]),
        ("!order", [word("order", is_negated=True)]),
        ('-"on its way"', [word("on its way", is_negated=True)]),
        ("--order", [word("-order", is_negated=True)]),
        ("e-mail", [word("e-mail")]),
        ("a - b", [word("a"), word("b")]),
        ("100% of_it", [word("100%"), word("of_it")]),
        ("<a@b.test>", [word("a@b.test")]),
        ("STRASSE", [word("strasse")]),
        ("Straße", [word("strasse")]),
        ("Mu\u0308ller", [word("müller")]),
        ("pass\u00adword", [word("password")]),
        ("a\x00b", [word("a b")]),
        ("\ud800x", [word("x")]),
        ("заказ", [word("заказ")]),
        ("🎉", [word("🎉")]),
    ],
)
def test_words_and_phrases(query: str, terms: list[Term]) -> None:
    assert list(parse_search(query).terms) == terms


@pytest.mark.parametrize("query", ["", "   ", "\t\n"])
def test_nothing_asked_for_is_everything(query: str) -> None:
    assert parse_search(query) == EVERYTHING


@pytest.mark.parametrize("query", ["()", '""', "- !", ",;", "\x00"])
def test_nothing_to_look_for_finds_nothing(query: str) -> None:
    assert parse_search(query) == MailSearch(is_void=True)


def test_a_search_that_is_too_long_finds_nothing() -> None:
    assert not parse_search("x" * MAX_CHARACTERS).is_void
    assert parse_search("x" * (MAX_CHARACTERS + 1)).is_void
    assert not parse_search("x " * MAX_TERMS).is_void
    assert parse_search("x " * (MAX_TERMS + 1)).is_void
    assert parse_search("x " * 2**19).is_void


# --- fields -------------------------------------------------------------------------------


@each_of(
    ("query", "field", "text"),
    [
        ("from:Shop@", Field.FROM, "shop@"),
        ("FROM:shop", Field.FROM, "shop"),
        ("to:anna", Field.TO, "anna"),
        ("cc:anna", Field.CC, "anna"),
        ("bcc:anna", Field.BCC, "anna"),
        ("reply-to:help", Field.REPLY_TO, "help"),
        ("addressed:x", Field.ADDRESSED, "x"),
        ('subject:"Your order"', Field.SUBJECT, "your order"),
        ("subject:a:b", Field.SUBJECT, "a:b"),
        ("message-id:<1@x>", Field.MESSAGE_ID, "1@x"),
        ("reason:staging", Field.REASON, "staging"),
        ('tag:"Two  Words"', Field.TAG, "two words"),
    ],
)
def test_fields(query: str, field: Field, text: str) -> None:
    assert only(query) == Term(field=field, text=text)
    assert only(f"-{query}") == Term(field=field, text=text, is_negated=True)
    assert only(f"!{query}") == Term(field=field, text=text, is_negated=True)


@each_of(
    ("query", "field", "is_negated"),
    [
        ("is:unread", Field.IS_UNREAD, False),
        ("is:read", Field.IS_UNREAD, True),
        ("-is:read", Field.IS_UNREAD, False),
        ("!is:unread", Field.IS_UNREAD, True),
        ("Is:Tagged", Field.IS_TAGGED, False),
        ("has:attachment", Field.HAS_ATTACHMENT, False),
        ("has:attachments", Field.HAS_ATTACHMENT, False),
        ("-has:inline", Field.HAS_INLINE, True),
        ("has:inlines", Field.HAS_INLINE, False),
    ],
)
def test_flags(query: str, field: Field, is_negated: bool) -> None:
    assert only(query) == Term(field=field, is_negated=is_negated)


@each_of(
    "query",
    [
        "x:y",
        '"from:shop"',
        ":x",
    ],
)
def test_what_is_not_understood_is_a_word(query: str) -> None:
    assert only(query) == word(searchable(query))
    assert only(f"-{query}") == word(searchable(query), is_negated=True)


@each_of(
    ("term", "why"),
    [
        ("from:", "'from:' names nothing"),
        ('from:"  "', "'from:' names nothing"),
        ('subject:"<>"', "'subject:' names nothing"),
        ("tag:", "'tag:' names nothing"),
        ("reason:\u200b", "'reason:' names nothing"),
        ("is:green", "'is:green' is not known; write one of is:read"),
        ("is:", "'is:' is not known"),
        ("is:unread:x", "'is:unread:x' is not known"),
        ("is:bounced", "'is:bounced' is not known"),
        ("has:legs", "'has:legs' is not known; write one of has:attachment"),
        ("has:", "'has:' is not known"),
        ("before:yesterday", "'before:yesterday' is not a time; write one like before:2026-01-31"),
        ("before:31.02.2026", "is not a time"),
        ("AFTER:2026-99-99", "'after:2026-99-99' is not a time"),
        ("after:", "'after:' is not a time"),
        ("larger:much", "'larger:much' is not a size; write larger:100k or larger:2M"),
        ("larger:0", "is not a size"),
        ("smaller:-5", "is not a size"),
    ],
)
def test_a_value_that_a_field_cannot_have_voids_the_search(term: str, why: str) -> None:
    for sign in ("", "-", "!"):
        for query in (f"{sign}{term}", f"order {sign}{term}", f"{sign}{term} order"):
            search = parse_search(query)
            assert search == MailSearch(is_void=True), query
            assert why in str(search.mistake)


@each_of(
    "term",
    [
        *('-"..."', "-...", "-!!!", "!--", '-""', "-()", "-\u200b", "-\x00", "!?"),
        *("-addressed:*", "-to:*@shop.test", "-*order*", "-subject:a*b", "-*", "!tag:x*"),
        *("--after:2026-01-31", "-!is:read", "!-from:x", "-(after:2026-01-31)", "-<from:x>"),
        *("-'is:read'", "-\u200bto:x"),
    ],
)
def test_what_leaves_nothing_out_voids_the_search(term: str) -> None:
    for query in (term, f"order {term}", f"{term} order"):
        search = parse_search(query)
        assert search == MailSearch(is_void=True), query
        assert search.mistake is not None
    assert parse_search('order -"').is_void


@each_of(
    ("query", "term"),
    [
        ("-*****SPAM*****", word("*****spam*****", is_negated=True)),
        ('-"5 * 3"', word("5 * 3", is_negated=True)),
        ("*", None),
        ("a*b", word("a*b")),
        ("-subject:!!!", Term(field=Field.SUBJECT, text="!!!", is_negated=True)),
        ("order --", word("order")),
        ("order !!!", word("order")),
        ("order ...", word("order")),
        ("-№", word("№", is_negated=True)),
        ("--x:y", word("-x:y", is_negated=True)),
    ],
)
def test_signs_that_mean_themselves(query: str, term: Term | None) -> None:
    assert parse_search(query).terms == (() if term is None else (term,))


# --- times and sizes ----------------------------------------------------------------------


@each_of(
    ("value", "at_ms"),
    [
        ("2026-01-31", ms(2026, 1, 31)),
        ("20260131", ms(2026, 1, 31)),
        ("2026/01/31", ms(2026, 1, 31)),
        ("1/31/2026", ms(2026, 1, 31)),
        ("31.1.2026", ms(2026, 1, 31)),
        ('"31 Jan 2026"', ms(2026, 1, 31)),
        ('"January 31, 2026"', ms(2026, 1, 31)),
        ("2026-01", ms(2026, 1, 1)),
        ("2026", ms(2026, 1, 1)),
        ("2026-01-31T12:30", ms(2026, 1, 31, 12, 30)),
        ('"2026-01-31 12:30:15"', ms(2026, 1, 31, 12, 30, 15)),
        ("2026-01-31T12:30Z", ms(2026, 1, 31, 12, 30)),
        ("2026-01-31T12:30+02:00", ms(2026, 1, 31, 10, 30)),
        ("1769817600", ms(2026, 1, 31)),
        ("1769817600123", ms(2026, 1, 31) + 123),
    ],
)
def test_times(value: str, at_ms: int) -> None:
    assert only(f"after:{value}") == Term(field=Field.AFTER, number=at_ms)
    assert only(f"-before:{value}") == Term(field=Field.BEFORE, number=at_ms, is_negated=True)


def test_dates_are_of_the_zone_that_is_asked_for() -> None:
    zone = timezone(timedelta(hours=-5))
    (term,) = parse_search("after:2026-01-31", tz=zone).terms
    assert term.number == ms(2026, 1, 31, 5)
    (term,) = parse_search("after:2026-01-31T00:00Z", tz=zone).terms
    assert term.number == ms(2026, 1, 31)


@pytest.mark.parametrize("value", ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59"])
@pytest.mark.parametrize("hours", [-12, 14])
def test_the_ends_of_time_do_no_harm(value: str, hours: int) -> None:
    parse_search(f"after:{value}", tz=timezone(timedelta(hours=hours)))


@each_of(
    ("value", "size_bytes"),
    [
        ("1", 1),
        ("100b", 100),
        ("2k", 2048),
        ("2KB", 2048),
        ("2KiB", 2048),
        ("1.5m", 1536 * 1024),
        ('"1 MB"', 2**20),
        ("1g", 2**30),
    ],
)
def test_sizes(value: str, size_bytes: int) -> None:
    assert only(f"larger:{value}") == Term(field=Field.LARGER, number=size_bytes)
    assert only(f"smaller:{value}") == Term(field=Field.SMALLER, number=size_bytes)


# --- whatever is typed --------------------------------------------------------------------

_PIECES = st.sampled_from(
    [field.value + ":" for field in Field]
    + ['"', " ", "-", "!", "order", "2026-01-31", "10k", "read", "ß", "İ", "\x00", "\u0301", "%"]
)
_ANYTHING = st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=30).map("".join))


@given(_ANYTHING)
def test_whatever_is_typed_is_a_search(query: str) -> None:
    search = parse_search(query)
    assert len(search.terms) <= MAX_TERMS
    assert not (search.is_void and search.terms)
    # without terms it is everything only if nothing was typed
    assert search.terms or search.is_void or not query.strip()
    assert search.is_void == (search.mistake is not None)
    for term in search.terms:
        assert -(2**62) < term.number < 2**62
        assert term.text.encode() == searchable(term.text).encode()


@given(st.text())
def test_what_is_stored_is_found_whatever_its_form(text: str) -> None:
    stored = searchable(text)
    assert searchable(stored) == stored
    assert "\n" not in stored and "\x00" not in stored and '"' not in stored
    for form in ("NFC", "NFD"):
        for same in (unicodedata.normalize(form, text), text.swapcase().swapcase()):
            if same.casefold() == text.casefold():
                assert searchable(same) == stored
    stored.encode()


@given(st.text(), st.text(), st.text())
def test_a_word_is_found_between_others(before: str, text: str, after: str) -> None:
    assert searchable(text) in searchable(f"{before} {text} {after}")


def test_tags_that_differ_in_case_are_one() -> None:
    assert tag_key("Two  Words") == tag_key("two WORDS")


# --- searches over all mail -----------------------------------------------------------------


@each_of(
    ("query", "terms"),
    [
        ("Anna.K@example", [word("anna.k@example")]),
        ("#000123", [word("#000123")]),
        ("order ★ -x", [word("order"), word("x", is_negated=True)]),
        ("http://shop", [word("http://shop")]),
        ("is:bounced", [Term(field=Field.OUTCOME, text="bounced")]),
        ("-IS:Waiting", [Term(field=Field.STATE, text="waiting", is_negated=True)]),
        ("is:read", [Term(field=Field.IS_UNREAD, is_negated=True)]),
        ('user:"Shop 1"', [Term(field=Field.USER, text="Shop 1")]),
        ("uid:033", [Term(field=Field.UID, number=33)]),
        ("after:2026-01-31", [Term(field=Field.AFTER, number=ms(2026, 1, 31))]),
        ("larger:1k", [Term(field=Field.LARGER, number=1024)]),
        ("tag:Checkout", [Term(field=Field.TAG, text="checkout")]),
        ("", []),
    ],
)
def test_terms_of_a_search_over_all_mail(query: str, terms: list[Term]) -> None:
    assert parse_find(query) == MailSearch(terms=tuple(terms))


@each_of(
    "query",
    [
        *("after:x", "before:2026-13-01", "is:x", "has:x", "uid:-1", "larger:", "★", "-"),
        *("client:10.0.0.0/8", "-client:2001:db8::/32"),
        *("-larger:", "-from:", "order -★", "order -!?", "--user:x", "-(is:held)", "tag:()"),
    ],
)
def test_what_it_does_not_understand_it_says(query: str) -> None:
    if query == "larger:":  # a word: nothing stands behind the colon
        assert parse_find(query).terms == (word("larger:"),)
        return
    with pytest.raises(SearchMistake):
        parse_find(query)


@each_of("query", ["user:x", "provider:x", "uid:3"])
def test_the_sandbox_does_not_know_the_terms_of_all_mail(query: str) -> None:
    assert parse_search(query).terms == (word(query),)


@each_of(
    ("text", "words"),
    [
        ("Anna.K+x@Example.com", ["anna", "k", "x", "example", "com"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("a_b²c", ["a", "b²c"]),
        ("日本語 テスト", ["日本語", "テスト"]),
        ("x" * 70, ["x" * 64]),
        ("'\\:&|!*\x00", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text(), st.text(), st.lists(st.text(max_size=8), max_size=3))
def test_words_of_a_message_are_letters_and_digits_alone(
    subject: str, sender: str, addresses: list[str]
) -> None:
    words = words_of([subject, sender], addresses)
    assert all(one.isalnum() for one in words.split())
    for text in (subject, sender, *addresses):
        assert f" {' '.join(split_words(text))} " in words or not split_words(text)


@given(st.text())
def test_no_text_breaks_a_search_over_all_mail(query: str) -> None:
    with suppress(SearchMistake):
        parse_find(query)
