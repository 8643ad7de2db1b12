"""Maps of patterns: each rule that import-postfix writes is what postmap answers, and no more is
said to be written than is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from relaygw.settings.tree import Place
from relaygw_postfix.patterns import local_parts_of, read_patterns
from tests.integration.postfix.real_answers import query
from tests.integration.postfix.shapes import Shape
from tests.integration.postfix.test_postfix_odd_input import imported
from tests.tables import each_of

BASE = """compatibility_level = 3.6
myhostname = web1.shop.example
mydestination = $myhostname, localhost
relayhost = [smtp.sendgrid.net]:587
alias_maps =
alias_database =
"""
LOCAL = ("www-data@web1.shop.example", "www-data@localhost")
ANYWHERE = "www-data@*"
SHOP, OPS, ROOT = "shop@shop.example", "ops@ops.example", "root@web1.shop.example"
PROMO = f"/@promo\\.example$/ {OPS}"
NO_LIST = "is no list of addresses and domains"
NOTHING = "and nothing of it is in relaygw.yaml: write each"


@dataclass(frozen=True)
class Map:
    name: str
    text: str
    senders: dict[str, str]
    recipients: dict[str, str]
    said: tuple[str, ...]


MAPS = (
    *(
        Map("sender_canonical_maps", f"{pattern} {SHOP}\n", {ANYWHERE: SHOP}, {}, ())
        for pattern in ("/^www-data@.*/", "/^www-data@/", "/^www-data@.*$/", "/^(www-data)@(.*)$/")
    ),
    Map("sender_canonical_maps", f"/^www-data@web/ {SHOP}\n", {LOCAL[0]: SHOP}, {},
        (f"map:1: /^www-data@web/ {NO_LIST}; relaygw rewrites those it knows, here {LOCAL[0]}: "
         "write each other in use into rewrite.senders",)),
    # of two lines for one address the first holds
    Map("sender_canonical_maps", f"{PROMO}\n/^www-data@/ {SHOP}\n",
        {ANYWHERE: SHOP, "@promo.example": OPS, "www-data@promo.example": OPS}, {}, ()),
    Map("sender_canonical_maps", f"/^www-data@/ {SHOP}\n{PROMO}\n",
        {ANYWHERE: SHOP, "@promo.example": OPS}, {}, ()),
    Map("canonical_maps", f"/^www-data@/ {SHOP}\n", {ANYWHERE: SHOP}, {ANYWHERE: SHOP}, ()),
    Map("recipient_canonical_maps", f"/^(www-data)@/ {OPS}\n/\\.old\\.example$/ {OPS}\n", {},
        {ANYWHERE: OPS},
        (f"map:2: /\\.old\\.example$/ is every address below old.example, {NOTHING} recipient",)),
    Map("virtual_alias_maps", f"/^www-data@/ {OPS}\n", {}, {ANYWHERE: OPS}, ()),
    Map("smtp_generic_maps", f"/^www-data@/ {SHOP}\n", {ANYWHERE: SHOP}, {ANYWHERE: SHOP}, ()),
    # a bare dot is any sign, digits are many, and what keeps the local part is no address
    *(
        Map("sender_canonical_maps", line + "\n", {}, {}, (f"{NO_LIST}, {NOTHING} sender",))
        for line in (f"/^www.data@/ {SHOP}", f"/^web[0-9]+@/ {SHOP}", f"/^www-data/ {SHOP}")
    ),
    Map("sender_canonical_maps", "/^(.*)@web1\\..*$/ ${1}@shop.example\n",
        {"@web1.shop.example": "@shop.example"}, {}, (NO_LIST,)),
    Map("sender_canonical_maps", f"/^root@/ {ROOT}\n/./ {SHOP}\n",
        {"root@*": ROOT, "*": SHOP, "<>": SHOP}, {}, ()),
    Map("sender_canonical_maps", f"!/^root@/ {SHOP}\n",
        {ROOT: ROOT, "root@localhost": "root@localhost", "*": SHOP, "<>": SHOP}, {}, ()),
    Map("sender_canonical_maps",
        f"if /@web1/\n/^www-data@/ {SHOP}\n/^a@web1\\.shop\\.example$/ {OPS}\nendif\n",
        {LOCAL[0]: SHOP, "a@web1.shop.example": OPS}, {}, (f"map:2: /^www-data@/ {NO_LIST}",)),
)  # fmt: skip


@pytest.mark.parametrize("one", MAPS, ids=lambda one: f"{one.name}: {one.text.splitlines()[0]}")
def test_what_a_pattern_says_is_written_or_told(one: Map, tmp_path: Path) -> None:
    main_cf = f"{one.name} = regexp:{{dir}}/map\n"
    home = Shape("map", main_cf, {"map": one.text}, base=BASE).write(tmp_path)
    values, said = imported(home)
    rewrite = values["rewrite"]
    assert isinstance(rewrite, dict)
    found = {kind: rewrite.get(kind, {}) for kind in ("senders", "recipients")}
    asked = one.senders.keys() | one.recipients.keys()
    # the postmaster of each host is root
    found["recipients"] = {key: to for key, to in found["recipients"].items() if key in asked}
    assert found == {"senders": one.senders, "recipients": one.recipients}
    for text in one.said:
        assert text in said
    for key, to in {**one.senders, **one.recipients}.items():
        sample = {"*": "x@y.example", "<>": '""'}.get(key, key)
        sample = f"someone{key}" if key.startswith("@") else sample
        to = f"someone{to}" if to.startswith("@") else to
        assert (query(home, one.name, sample) or sample) == to


@each_of(
    "line",
    [f"/^(a)@/ {result}" for result in ("$1x", "${1}x", "$(1)x", "$$1", "$$$1", "x$", "$x", "${1",
                                        "$0", "$2", "$10", "${1?x}", "$1_z", "a$-b")]
    + ["/^((a))@/ $01", "!/^b@/ $$1", "!/^(b)@/ $1"],
)  # fmt: skip
def test_a_result_is_that_of_postfix(line: str) -> None:
    """A line with a reference to no group is none."""
    with TemporaryDirectory() as directory:
        shape = Shape("map", "sender_canonical_maps = regexp:{dir}/map\n", {"map": line + "\n"})
        home = shape.write(Path(directory))
        asked = query(home, "sender_canonical_maps", "a@b.test")
    notes: list[str] = []
    lines = read_patterns([(Place("map", 1), line)], notes)
    assert [each.result("a@b.test") for each in lines] == ([asked] if asked else [])
    assert bool(notes) is not bool(lines)


def test_an_exception_of_a_domain_is_one_here_too(tmp_path: Path) -> None:
    table = f"info@shop.example info@shop.example\n@shop.example {OPS}\nx@y.example x@y.example\n"
    main_cf = "virtual_alias_maps = texthash:{dir}/map\n"
    values, _ = imported(Shape("map", main_cf, {"map": table}, base=BASE).write(tmp_path))
    rewrite = values["rewrite"]
    assert isinstance(rewrite, dict)
    assert {key: to for key, to in rewrite["recipients"].items() if "example" in key} == {
        "info@shop.example": "info@shop.example",
        "@shop.example": OPS,
    }


@each_of(
    "source, names",
    [
        (r"^www-data@", ["www-data"]),
        (r"^(root|Cron)@.*$|^first\.last@", ["root", "first.last", "cron"]),
        (r"www\-data@web1", ["www-data"]),
        (r"^www.data@", []),
        (r"^www-data", []),
        (r"@web1$", []),
        (r"^web[0-9]+@", []),
        (r"^(a|b)?c@", []),
    ],
)
def test_which_local_parts_a_pattern_names(source: str, names: list[str]) -> None:
    assert sorted(local_parts_of(source)) == sorted(names)
