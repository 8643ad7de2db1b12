"""The report of a shadow run as one HTML file: nothing is loaded, nothing runs, a phone shows it.

What stands in a log comes from strangers; all of it is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape

from relaygw.mail.words import counted, printable
from relaygw_postfix.sameness import Result
from relaygw_postfix.shadow import ShadowRow, Tally

MAX_ROWS = 2000
TITLE = "<title>Postfix and relaygw</title>"
_ORDER = [*reversed(Result)]  # what asks for somebody comes first
_STYLE = """
:root{--line:#8886;--bad:#b3261e;--doubt:#7d5200;--good:#176b2e;color:#1b1f24;background:#fff}
@media(prefers-color-scheme:dark){
:root{--bad:#ff8b82;--doubt:#e0a83a;--good:#56d364;color:#e6edf3;background:#0d1117}}
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:75rem}
h1{font-size:1.4rem;margin:0 0 .3rem}p{margin:.3rem 0}
ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.5rem}
ul li{border:1px solid var(--line);border-radius:.4rem;padding:.3rem .7rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-top:1px solid var(--line);
overflow-wrap:anywhere}
.bad{color:var(--bad);font-weight:600}.doubt{color:var(--doubt)}.good{color:var(--good)}
@media(max-width:50rem){
table,tbody,tr,td{display:block}thead{position:absolute;left:-100vw}
tr{border-top:2px solid var(--line);padding:.5rem 0}td{border:0;padding:.1rem 0}
td:empty{display:none}td::before{content:attr(data-label)": ";opacity:.75}}
"""
_COLUMNS = ("result", "sender", "recipient", "Postfix", "relaygw", "policy", "why", "seen")
_CLASSES = {Result.OTHER: "bad", Result.UNPROVEN: "doubt", Result.SAME: "good"}


def shadow_page(tally: Tally, *, source: str, made_at: str) -> str:
    """Return the page; rows that are not the same come first."""
    rows = sorted(tally.rows.items(), key=_weight)
    shown = rows[:MAX_ROWS]
    more = tally.left_out + sum(seen.total() for _, seen in rows[MAX_ROWS:])
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; ',
            "style-src 'unsafe-inline'\">",
            f"{TITLE}<style>{_STYLE}</style></head><body><main>\n",
            "<h1>Postfix and relaygw</h1>\n",
            f"<p>{_text(_headline(tally))}</p>\n",
            f"<p>{counted(tally.total, 'delivery', 'deliveries')} of {_text(source)}, ",
            f"{_text(made_at)}. relaygw has sent nothing.</p>\n",
            f"<ul>{''.join(_counts(tally))}</ul>\n",
            "<table><thead><tr>",
            *(f"<th>{name}</th>" for name in _COLUMNS),
            "</tr></thead><tbody>\n",
            *_rows(shown),
            "</tbody></table>\n",
            f"<p>{more} more deliveries are not listed.</p>\n" if more else "",
            "</main></body></html>\n",
        )
    )


def _headline(tally: Tally) -> str:
    if tally.has_findings:
        return "Some mail would take another way; differences are listed first."
    if tally.results[Result.UNPROVEN]:
        return "No difference found; for some mail the log does not show enough."
    return "All mail would be delivered the same way."


def _weight(entry: tuple[ShadowRow, Counter[str]]) -> tuple[int, int]:
    row, seen = entry
    return _ORDER.index(row.result), -seen.total()


def _counts(tally: Tally) -> Iterator[str]:
    for result in _ORDER:
        if tally.results[result]:
            kind = _CLASSES.get(result, "")
            yield f'<li class="{kind}">{tally.results[result]} {_text(result)}</li>'


def _rows(rows: Iterable[tuple[ShadowRow, Counter[str]]]) -> Iterator[str]:
    for row, seen in rows:
        ways = ", then ".join(row.providers)
        own = f"route {row.route}: {ways}" if row.route else "not sent"
        statuses = ", ".join(f"{number} {status}" for status, number in seen.most_common())
        texts = (row.result, row.sender or "<>", row.recipient, row.relay, own, row.policy, row.why)
        kind = _CLASSES.get(row.result, "")
        cells = zip(_COLUMNS, (*texts, statuses), strict=True)
        yield "<tr>"
        for number, (name, text) in enumerate(cells):
            mark = f' class="{kind}"' if number == 0 else ""
            if text:
                yield f'<td data-label="{name}"{mark}>{_text(text)}</td>'
            else:
                yield "<td></td>"
        yield "</tr>\n"


def _text(text: str) -> str:
    return escape(printable(text))
