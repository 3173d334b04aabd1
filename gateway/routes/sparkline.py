"""A topic as a small picture: its name, its newest number and a line of how it got there, as SVG.

Invariant: the picture stands alone (no script, no style sheet, no font or address from elsewhere), so that it is safe
in an `<img>` of any page, and what comes from a payload is escaped. Which numbers it shows is decided elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from statistics import median

__all__ = ["LINE_BOTTOM", "LINE_TOP", "LINE_WIDTH", "badge_svg"]


HEIGHT = 28
PADDING = 9
LINE_WIDTH = 96
"""Width of the sparkline; pixels, as everything here."""
LINE_TOP, LINE_BOTTOM = 6.0, 22.0
MAX_TITLE = 60
"""Characters; a longer title keeps its end, where topics differ."""
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
FONT_SIZE = 12
SILENCE = 3
"""A line is broken where this many usual intervals passed without a value."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What an XML document can't hold, even escaped (XML 1.0 §2.2)."""

LIGHT = {"paper": "#ffffff", "edge": "#d8d7d2", "title": "#4f5a63", "ink": "#1d2730", "line": "#0b6070"}
DARK = {"paper": "#171d22", "edge": "#333c44", "title": "#abb4bb", "ink": "#ececea", "line": "#6fcad6"}


def badge_svg(
    title: str,
    values: Sequence[float],
    times: Sequence[float],
    unit: str = "",
    dark: bool = False,
    now: float | None = None,
    state: str = "",
) -> str:
    """Draws a badge: title, newest value with its unit, and a sparkline.

    Args:
        title: what is shown, usually a topic.
        values: oldest first; those that are no finite numbers leave a break.
        times: when each came, in milliseconds since 1970; as many as values, none before the one in front of it.
        unit: written behind the value; "" for none.
        dark: colours for a dark page.
        now: milliseconds since 1970; a value that is older than a minute is shown with its age. None: without.
        state: what the newest value is called where it stands for a state, such as "ON"; "" where it is a number.

    Returns:
        An SVG document of 28 px height. Without a value it says "no data".

    Raises:
        ValueError: values and times differ in length.
    """
    if len(values) != len(times):
        raise ValueError(f"badge: {len(values)} values need as many times, got {len(times)}")
    colours = DARK if dark else LIGHT
    finite = [value for value in values if math.isfinite(value)]
    shown = (state or _number(finite[-1])) if finite else "no data"
    said = f"{shown} {unit}" if unit and finite else shown
    if finite and now is not None:
        at = next(time for value, time in zip(reversed(values), reversed(times), strict=True) if math.isfinite(value))
        said += _age(now - at)
    title, said = _FORBIDDEN.sub("\ufffd", title), _FORBIDDEN.sub("\ufffd", said)
    short = title if len(title) <= MAX_TITLE else "…" + title[-(MAX_TITLE - 1) :]
    title_width = _text_width(short)
    value_width = _text_width(said, bold=True)
    path, dot = _line(values, times)
    line_width = LINE_WIDTH + PADDING if path else 0
    width = math.ceil(PADDING + title_width + PADDING + line_width + value_width + PADDING)
    line_left = PADDING + title_width + PADDING
    value_left = line_left + line_width
    baseline = HEIGHT / 2 + 4.2
    label = escape(f"{title}: {said}")
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}"'
            f' role="img" aria-label="{label}">'
        ),
        f"<title>{label}</title>",
        (
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{HEIGHT - 1}" rx="5" fill="{colours["paper"]}"'
            f' stroke="{colours["edge"]}"/>'
        ),
        f'<g font-family="{FONT}" font-size="{FONT_SIZE}">',
        # textLength holds a text to the width that was reckoned with, whatever font there is
        (
            f'<text x="{PADDING}" y="{baseline:g}" fill="{colours["title"]}" textLength="{title_width:.0f}"'
            f' lengthAdjust="spacingAndGlyphs">{escape(short)}</text>'
        ),
        (
            f'<text x="{value_left:.0f}" y="{baseline:g}" fill="{colours["ink"]}" font-weight="600"'
            f' textLength="{value_width:.0f}" lengthAdjust="spacingAndGlyphs">{escape(said)}</text>'
        ),
        "</g>",
    ]
    if path:
        parts.append(
            f'<g transform="translate({line_left:.0f} 0)"><path d="{path}" fill="none" stroke="{colours["line"]}"'
            ' stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"/>'
            f'<circle cx="{dot[0]:.1f}" cy="{dot[1]:.1f}" r="2" fill="{colours["line"]}"/></g>'
        )
    parts.append("</svg>")
    return "".join(parts)


def _age(milliseconds: float) -> str:
    """How old a value is, as it stands behind it; "" while it is younger than a minute."""
    minutes = int(milliseconds / 60_000)
    if minutes < 1:
        return ""
    if minutes < 120:
        return f", {minutes} min ago"
    return f", {minutes // 60} h ago" if minutes < 2880 else f", {minutes // 1440} d ago"


def _number(value: float) -> str:
    """At most five significant digits, without a trailing zero or a negative one."""
    size = abs(value)
    if size != 0 and (size >= 1e9 or size < 1e-4):
        return f"{value:.2e}"
    if size >= 10_000:
        return f"{value:.0f}"
    text = f"{value:.5g}"
    return "0" if text == "-0" else text


NARROW = frozenset("iljtfrI.,:;'|!()[]/ -")
WIDE = frozenset("mwMW@%…—")


def _text_width(text: str, *, bold: bool = False) -> float:
    """About how wide a text is; `textLength` makes it true."""
    width = sum(
        4.2 if char in NARROW else 10.2 if char in WIDE else 12.5 if ord(char) > 0x2E7F else 7.0 for char in text
    )
    return round(width * (1.06 if bold else 1.0))


def _line(values: Sequence[float], times: Sequence[float]) -> tuple[str, tuple[float, float]]:
    """The path of the sparkline and where its newest value is; ("", …) when there are fewer than two values."""
    points = [(time, value) for time, value in zip(times, values, strict=True) if math.isfinite(time)]
    finite = [value for _, value in points if math.isfinite(value)]
    if len(finite) < 2 or points[-1][0] <= points[0][0]:
        return "", (0.0, 0.0)
    start, end = points[0][0], points[-1][0]
    low, high = min(finite), max(finite)
    # Noise of a flat signal must not look like drama: less than two percent doesn't fill the height.
    spread = max(high - low, abs(high) * 0.02, 1e-12)
    middle = low / 2 + high / 2
    intervals = [later - earlier for (earlier, _), (later, _) in pairwise(points) if later > earlier]
    silence = SILENCE * median(intervals) if len(intervals) >= 4 else math.inf

    def place(time: float, value: float) -> tuple[float, float]:
        x = (time - start) / (end - start) * (LINE_WIDTH - 4) + 2
        y = (LINE_TOP + LINE_BOTTOM) / 2 - (value - middle) / spread * (LINE_BOTTOM - LINE_TOP)
        return x, min(LINE_BOTTOM, max(LINE_TOP, y))

    path: list[str] = []
    is_drawing = False
    previous = start
    at = (0.0, 0.0)
    for time, value in _thinned(points, start, end):
        if not math.isfinite(value):
            is_drawing = False
            continue
        if time - previous > silence:
            is_drawing = False
        at = place(time, value)
        path.append(f"{'L' if is_drawing else 'M'}{at[0]:.1f} {at[1]:.1f}")
        is_drawing = True
        previous = time
    return "".join(path), at


def _thinned(points: list[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """At most four points for each pixel: first, lowest, highest and last, so that spikes stay."""
    if len(points) <= LINE_WIDTH * 4:
        return points
    buckets: dict[int, list[tuple[float, float]]] = {}
    for time, value in points:
        if math.isfinite(value):
            buckets.setdefault(int((time - start) / (end - start) * LINE_WIDTH), []).append((time, value))
    thinned: list[tuple[float, float]] = []
    for bucket in buckets.values():
        chosen = {
            bucket[0],
            min(bucket, key=lambda point: point[1]),
            max(bucket, key=lambda point: point[1]),
            bucket[-1],
        }
        thinned.extend(sorted(chosen))
    return thinned
