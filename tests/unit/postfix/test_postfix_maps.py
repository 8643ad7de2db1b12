from __future__ import annotations

from pathlib import Path

from relaygw.settings.tree import Place
from relaygw_postfix.main_cf import Configuration
from relaygw_postfix.maps import Postfix, Table, Tables
from relaygw_postfix.patterns import addresses_of
from tests.tables import each_of


def table(word: str, directory: Path = Path("/nonexistent"), *, aliases: bool = False) -> Table:
    return Tables(Configuration(directory)).table(word, Place("main.cf", 7), aliases=aliases)


def found(one: Table, key: str, *, partial: bool = False) -> str | None:
    entry = one.find(key, partial=partial)
    return entry.value if entry is not None else None


def test_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "map").write_text(
        "# comment\nA@B.test  [x]:587\n   more\n\n@c.test\t y z \nlonely\n@c.test again\n"
        '"john doe"@d.test w\nname: value\n'
    )
    one = table("texthash:map", tmp_path)
    assert found(one, "a@b.test") == "[x]:587   more"
    assert found(one, "@C.TEST") == "y z"
    assert found(one, '"john doe"@d.test') == "w"
    assert found(one, "nobody@b.test") is None
    assert str(one.entries[1].place) == "map:5"
    notes = [note.partition(",")[0].partition(";")[0] for note in one.notes]
    assert notes[0].startswith("map:6: is not KEY VALUE")
    assert any(note.startswith("map:7: @c.test exists already (map:5)") for note in notes)
    assert any("ends with a colon" in note for note in notes)


def test_aliases(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text('root: ops@a.test\n"two words": b@a.test,\n  c@a.test\n')
    one = table("hash:aliases", tmp_path, aliases=True)
    assert found(one, "root") == "ops@a.test"
    assert found(one, "two words") == "b@a.test,  c@a.test"


def test_values_in_the_parameter_itself() -> None:
    one = table("inline:{a.test=x, { b.test = y z }}")
    assert (found(one, "a.test"), found(one, "b.test")) == ("x", "y z")
    assert found(table("proxy:static:{u:p w}"), "anything", partial=True) == "u:p w"


@each_of(
    "word, problem",
    [
        ("mysql:/etc/postfix/x.cf", "main.cf:7: mysql: is in a database; write its lines"),
        ("pipemap:{a,b}", "main.cf:7: pipemap: has no list of addresses"),
        ("tcp:localhost:1", "main.cf:7: tcp: asks a program"),
        ("hsah:/etc/postfix/x", "main.cf:7: 'hsah' is not a table type that relaygw supports"),
        ("hash:/nonexistent/x", "main.cf:7: /nonexistent/x is not there"),
        ("pcre:/nonexistent/x", "main.cf:7: /nonexistent/x is not there"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(word: str, problem: str) -> None:
    assert table(word).problem.startswith(problem)
    assert ";" in table(word).problem


def test_binary_junk_in_a_table_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"a b\n\x00\x01\x02\n")
    assert "map:2: holds a control character" in table("texthash:map", tmp_path).problem


def test_where_postmap_fails_what_was_read_is_used_and_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("a b\n")
    program = tmp_path / "postmap"
    program.write_text(
        "#!/bin/sh\necho $* >> ${0}.log\necho 'postmap: fatal: open x' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    one = table("texthash:map", tmp_path)
    postfix = Postfix([str(program)], ["true"])
    postfix.__dict__["types"] = frozenset({"texthash"})
    for key in ("a", "c", "a"):
        entry = postfix.look_up(one, key, False)
        assert (entry.value if entry else None) == found(one, key)
    assert list(postfix.not_asked) == [one.spec]
    assert len((tmp_path / "postmap.log").read_text().splitlines()) == 1


def test_patterns(tmp_path: Path) -> None:
    (tmp_path / "re").write_text(
        "/^boss@a\\.test$/ one\n!/@[[:alpha:]]+\\.test$/ two\nif /@b\\.test$/\n/^x/ three\nendif\n"
        "/(/ broken\nno pattern\nendif\n/CASE/i four\n"
    )
    one = table("regexp:re", tmp_path)
    assert found(one, "BOSS@a.test") == "one"
    assert found(one, "x@1.test") == "two"
    assert found(one, "x@b.test") == "three"
    assert found(one, "y@b.test") is None
    assert found(one, "case.test") == "two"
    assert found(one, "boss@a.test", partial=True) is None
    assert [note.partition(" ")[0] for note in one.notes] == ["re:6:", "re:7:", "re:8:"]


@each_of(
    "source, classes",
    [
        (r"@example\.com$", ["@example.com"]),
        (r"^.*@example\.com$", ["@example.com"]),
        (r"^(.+)@(a|b)\.example\.com$", ["@a.example.com", "@b.example.com"]),
        (r"@(a|b)\.test$|@c\.test$", ["@a.test", "@c.test", "@b.test"]),
        (r"\.example\.com$", [".example.com"]),
        (r"^News@Example\.com$", ["news@example.com"]),
        (r".", ["*"]),
        (r"^.*$", ["*"]),
        (r"/.+/", None),
        (r"@example.com$", None),  # a dot is any sign
        (r"example\.com$", None),  # of notexample.com as well
        (r"@example\.com", None),  # of @example.com.evil.test as well
        (r"^shop[0-9]+@a\.test$", None),
        (r"(?i)@a\.test$", None),
    ],
)
def test_which_addresses_a_pattern_stands_for(source: str, classes: list[str] | None) -> None:
    assert addresses_of(source) == classes
