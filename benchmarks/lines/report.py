"""The table of a run, for a terminal and for docs/performance.md. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.lines.accounting import Tally, quantile
from benchmarks.lines.parts import Kind
from benchmarks.lines.plan import What

__all__ = ["BEGIN", "END", "markdown", "table"]

BEGIN, END = "<!-- lines: written by the benchmark -->", "<!-- end of lines -->"

COLUMNS = (
    *("", "published", "delivered", "missing, told of", "missing, not told of", "what was told"),
    *("delivered twice", "out of order", "not there yet", "delay: p50, p99, max, s", "back after a cut: the same"),
    *("back after a new address", "back after its server's restart", "back after the broker's", "bytes a message"),
)


def rows(tallies: Mapping[Kind, Tally]) -> list[list[str]]:
    """Return the cells of each kind, in the order of `COLUMNS`."""
    return [
        [
            kind.title,
            *(f"{count:,}" for count in (found.published, found.delivered, found.told, found.untold)),
            _told(found),
            *(f"{count:,}" for count in (found.duplicates, found.out_of_order, found.outstanding)),
            ", ".join(_seconds(quantile(found.delays, part)) for part in (0.5, 0.99, 1)),
            *(_back(found.back.get(what.value)) for what in What),
            f"{found.line_bytes / max(1, found.delivered):,.0f}",
        ]
        for kind, found in tallies.items()
    ]


def _told(found: Tally) -> str:
    said = []
    if found.told_number:
        said.append(f"{found.told_number:,} lost")
    if found.unknown:
        said.append(f"{found.unknown:,} × “some, perhaps”")
    return ", ".join(said) or "–"


def _back(times: Sequence[float | None] | None) -> str:
    """Return the middle and the longest time to come back, and how often there was none."""
    if not times:
        return "–"
    known = [time for time in times if time is not None]
    said = ", ".join(_seconds(quantile(known, part)) for part in (0.5, 0.99, 1)) if known else ""
    never = len(times) - len(known)
    return "; ".join(filter(None, (said, f"{never} × not" if never else "")))


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 9.995 else f"{value:.0f}"


def table(tallies: Mapping[Kind, Tally]) -> str:
    """Return what is printed: a block for each kind, since a row of all columns is wider than a terminal."""
    width = max(map(len, COLUMNS))
    lines = []
    for title, *cells in rows(tallies):
        lines += [title, *(f"  {name.ljust(width)}  {cell}" for name, cell in zip(COLUMNS[1:], cells, strict=True))]
    return "\n".join(lines)


def markdown(tallies: Mapping[Kind, Tally]) -> str:
    """Return the rows as the table of docs/performance.md: a column for each kind."""
    turned = list(zip(COLUMNS, *rows(tallies), strict=True))
    lines = [f"| {' | '.join(cells)} |" for cells in turned]
    return "\n".join([lines[0], "|" + "---|" * len(turned[0]), *lines[1:]])
