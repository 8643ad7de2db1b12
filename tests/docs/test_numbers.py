"""Numbers that stand in two places are the same, and lists for a terminal fit into one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bench.killing.program import _parser

ROOT = Path(__file__).parents[2]
RELIABILITY = (ROOT / "docs/reliability.md").read_text()


def test_the_readme_counts_the_kills_and_cuts_of_the_campaigns() -> None:
    rows = re.findall(r"^\| relaygw, .*? \| (\d+) / (\d+) / (\d+) \|.*\*\*0\*\*", RELIABILITY, re.M)
    kills = sum(int(one) for row in rows for one in row)
    cuts = re.findall(
        r"^\| (?:SQLite|PostgreSQL).*?, \w+ \| (\d+) \|.*\*\*0\*\*", RELIABILITY, re.M
    )
    said = re.search(
        r"([\d,]+) kills and ([\d,]+) power cuts lost none", (ROOT / "README.md").read_text()
    )
    assert said is not None
    assert [int(one.replace(",", "")) for one in said.groups()] == [kills, sum(map(int, cuts))]


def test_the_kills_of_a_victim_that_is_not_named_are_told() -> None:
    given = vars(_parser().parse_args([]))
    told = re.search(r"front and delivery (\d+) each, supervisor and all (\d+)\s+each", RELIABILITY)
    assert told is not None
    assert [given[one] for one in ("front", "delivery")] == [int(told[1])] * 2
    assert [given[one] for one in ("supervisor", "all")] == [int(told[2])] * 2


def test_make_help_fits_a_terminal() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "make test" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
