"""The words of a message for searches."""

from __future__ import annotations

import time

from relaygw.web.mail.text import MAX_WORDS_CHARACTERS, read_words


def test_the_page_and_the_names_of_files() -> None:
    page = "<head><title>no</title></head><p>Hello <b>An</b>na!</p><p>Bye</p>"
    assert read_words("", page, ["Rechnung 1.pdf", ""]) == "hello anna! bye\nrechnung 1.pdf"


def test_what_both_say_is_there_once() -> None:
    words = read_words("Hello Anna!\nYour code: 1234\n", "<p>Hello Anna! Bye</p>", [])
    assert words == "hello anna! bye\nyour code: 1234"


def test_a_text_alone_is_searched() -> None:
    assert read_words("Your Code:\n\n1234\n", "", []) == "your code:\n1234"


def test_links_are_searched_once_each() -> None:
    page = """<a href="https://shop.test/go?a=1&amp;token=ABC">x</a>
    <A HREF='https://shop.test/go?a=1&token=abc'>y</a> <a href=mailto:help@shop.test>z</a>
    <a href="javascript:alert(1)">no</a> <a href="#top">no</a>"""
    links = read_words("", page, []).split("\n")[1]
    assert links == "https://shop.test/go?a=1&token=abc mailto:help@shop.test"


def test_long_links_of_newsletters_leave_room_for_others() -> None:
    page = "".join(f'<a href="https://shop.test/{number}{"x" * 90}">x</a>' for number in range(900))
    links = read_words("", page, []).split("\n")[1]
    assert 1500 < len(links) <= 2100


def test_long_mail_is_cut() -> None:
    words = read_words("text " * 50_000, "<p>" + "page " * 50_000, ["name.pdf"])
    assert len(words) == MAX_WORDS_CHARACTERS
    assert words.startswith("page page")


def test_many_short_lines_take_no_time() -> None:
    text = "\n".join(f"{number:x}" for number in range(60_000))
    page = "<p>" + " ".join(f"{number:o}." for number in range(60_000))
    began_s = time.process_time()
    read_words(text, page, [])
    assert time.process_time() - began_s < 2


def test_hostile_links_take_no_time() -> None:
    began_s = time.process_time()
    for page in ("href" * 200_000, "href =" + " " * 500_000, 'href="https:' * 50_000):
        read_words("", page, [])
    assert time.process_time() - began_s < 2
