#!/usr/bin/env python3
"""Draws dashboards as SVG from the data of a Prometheus: pictures for the documentation.

    deploy/grafana/draw.py http://localhost:9090 dashboard.json picture.svg

Plain lines, no Grafana: what a panel asks for is what is drawn.
"""

import html
import json
import math
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

_UNIT, _GAP = 50, 8  # pixels of a column of the grid; of a row, 30
_ROW = 30
_COLORS = ["#5794f2", "#73bf69", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#e0b400", "#8ab8ff"]
_DARK, _PANEL, _TEXT, _FAINT, _LINE = "#111217", "#181b1f", "#d8d9da", "#8e9096", "#2c3235"
_MOST = 6  # lines of a legend
_GREEN, _RED = "#37872d", "#c4162a"


class Prometheus:
    """Asks it what a dashboard would, over the last `seconds`."""

    def __init__(self, url, seconds, step):
        self.url, self.seconds, self.step = url, seconds, step

    def expression(self, text):
        """With Grafana's variables filled in: everything, at this step."""
        text = text.replace("$__rate_interval", f"{max(4 * self.step, 10)}s")
        return re.sub(r"\$\w+", ".*", text)

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as page:
                answer = json.load(page)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            if not text.startswith("{"):  # it is not ready yet
                raise ConnectionError(text.strip()) from error
            answer = json.loads(text)
        if answer["status"] != "success":
            raise ValueError(f"{parameters.get('query', path)}: {answer['error']}")
        return answer["data"]

    def ask(self, text, instant=False):
        """[(labels, [(time, value)])], without what is no number."""
        query, now = self.expression(text), time.time()
        if instant:
            rows = self.get("query", query=query, time=now)["result"]
            rows = [(row["metric"], [row["value"]]) for row in rows]
        else:
            rows = self.get("query_range", query=query, start=now - self.seconds, end=now,
                            step=self.step)["result"]
            rows = [(row["metric"], row["values"]) for row in rows]
        rows = [(labels, [(float(t), float(v)) for t, v in values if math.isfinite(float(v))])
                for labels, values in rows]
        return [(labels, values) for labels, values in rows if values]


def _short(number, base, names):
    power = 0
    while abs(number) >= base and power + 1 < len(names):
        number, power = number / base, power + 1
    digits = 0 if number == round(number) or abs(number) >= 100 else 2 if abs(number) < 10 else 1
    return f"{number:.{digits}f}{names[power]}"


def say(number, unit):
    """A number as Grafana shows it."""
    if unit in ("bytes", "Bps"):
        return _short(number, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]) + "/s" * (unit == "Bps")
    if unit == "percentunit":
        return f"{100 * number:.3g} %"
    if unit == "s":
        if number == 0:
            return "0 s"
        for limit, factor, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"),
                                    (7200, 1 / 60, "min"), (math.inf, 1 / 3600, "h")):
            if abs(number) < limit:
                return f"{number * factor:.3g} {name}"
    return _short(number, 1000, ["", " k", " M", " G"]) + "/s" * (unit == "ops")


def _text(x, y, words, size=11, color=_TEXT, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{html.escape(words)}</text>')


def _fit(words, pixels, size=11):
    """Shortened to fit."""
    most = max(int(pixels / (0.56 * size)), 4)
    return words if len(words) <= most else words[:most - 1] + "…"


def _ceiling(number, unit):
    """A round number that is not less."""
    if number <= 0:
        return 1
    if unit in ("bytes", "Bps"):
        return 2 ** math.ceil(math.log2(number))
    power = 10 ** math.floor(math.log10(number))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= number * 0.9999)


def _stat(panel, rows, box):
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    if not rows:
        return [_text(x + width / 2, y + height / 2 + 14, "no data", 18, _FAINT, "middle")]
    value = rows[0][2][-1][1]
    color = _GREEN
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = {"green": _GREEN, "red": _RED}[step["color"]]
    return [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{color}"/>',
            _text(x + 10, y + 20, _fit(panel["title"], width - 20, 12), 12, "#ffffff"),
            _text(x + width / 2, y + height / 2 + 24, say(value, defaults["unit"]), 28, "#ffffff",
                  "middle", "bold")]


def _stacked(rows):
    total = {}
    for name, labels, values in rows:
        above = []
        for moment, value in values:
            total[moment] = total.get(moment, 0) + value
            above.append((moment, total[moment]))
        yield name, labels, above


def _graph(panel, rows, box, span):
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    shown = sorted(rows, key=lambda row: -row[2][-1][1])[:_MOST]
    below = 14 * len(shown) + 8
    left, top, right, bottom = x + 66, y + 34, x + width - 12, y + height - below - 18
    if not rows:
        return [_text(x + width / 2, y + height / 2 + 8, "no data", 14, _FAINT, "middle")]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    lines = list(_stacked(shown)) if stacked else shown
    most = _ceiling(max(value for _, _, values in lines for _, value in values), unit)
    begin, end = span
    out = []
    for part in (0, 0.5, 1):
        level = bottom - part * (bottom - top)
        out.append(f'<line x1="{left}" y1="{level:.1f}" x2="{right}" y2="{level:.1f}" '
                   f'stroke="{_LINE}"/>')
        out.append(_text(left - 6, level + 4, say(part * most, unit), 10, _FAINT, "end"))
    for words, at, anchor in ((f"-{end - begin:.0f} s", left, "start"), ("now", right, "end")):
        out.append(_text(at, bottom + 13, words, 10, _FAINT, anchor))
    for i, (name, labels, values) in enumerate(lines):
        color = _COLORS[i % len(_COLORS)]
        points = " ".join(
            f"{left + (moment - begin) / (end - begin) * (right - left):.1f},"
            f"{bottom - value / most * (bottom - top):.1f}" for moment, value in values)
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        line = bottom + 30 + 14 * i
        out.append(f'<rect x="{x + 12}" y="{line - 6}" width="12" height="4" fill="{color}"/>')
        out.append(_text(x + 30, line, _fit(name, width - 120), 11))
        out.append(_text(right, line, say(shown[i][2][-1][1], unit), 11, _TEXT, "end"))
    if len(rows) > len(shown):
        out.append(_text(right, y + 20, f"and {len(rows) - len(shown)} more", 10, _FAINT, "end"))
    return out


def _legend(pattern, labels):
    name = re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern)
    return name.strip() or ", ".join(labels.values())


def svg(board, prometheus):
    """The picture of a dashboard."""
    tall = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * _UNIT + _GAP, tall * _ROW + 48
    now = time.time()
    span = (now - prometheus.seconds, now)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'width="{width}" height="{height}" font-family="sans-serif">',
           f'<rect width="{width}" height="{height}" fill="{_DARK}"/>',
           _text(12, 27, board["title"], 17, _TEXT, weight="bold")]
    for panel in board["panels"]:
        place = panel["gridPos"]
        box = (place["x"] * _UNIT + _GAP, place["y"] * _ROW + 40, place["w"] * _UNIT - _GAP,
               place["h"] * _ROW - _GAP)
        instant = panel["type"] == "stat"
        rows = [(_legend(target["legendFormat"], labels), labels, values)
                for target in panel["targets"]
                for labels, values in prometheus.ask(target["expr"], instant)]
        out.append(f'<g><rect x="{box[0]}" y="{box[1]}" width="{box[2]}" height="{box[3]}" rx="3" '
                   f'fill="{_PANEL}" stroke="{_LINE}"/>')
        out.append(_text(box[0] + 10, box[1] + 20, _fit(panel["title"], box[2] - 20, 12), 12,
                         weight="bold"))
        out += _stat(panel, rows, box) if instant else _graph(panel, rows, box, span)
        out.append("</g>")
    return "\n".join(out + ["</svg>\n"])


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    board = json.loads(pathlib.Path(sys.argv[2]).read_text())
    picture = svg(board, Prometheus(sys.argv[1].rstrip("/"), seconds=3600, step=15))
    pathlib.Path(sys.argv[3]).write_text(picture)


if __name__ == "__main__":
    main()
