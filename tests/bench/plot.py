#!/usr/bin/env python3
"""Draws the comparison from results.tsv as an SVG: a panel for each scenario, a bar for each subject.

    plot.py RESULTS.tsv OUT.svg [placement=pinned|free] [body=10] [transports=inproc,tcp]

The scale is logarithmic and the same in all panels; the ratio behind each rate is the one to zmq_proxy.
"""

import csv
import math
import sys
from xml.sax.saxutils import escape

NAMES = {
    "zqb1": "zqbroker, ZQB/1",
    "zqb1_spin": "zqbroker, ZQB/1, spinning",
    "zqb1_credit_1000": "zqbroker, ZQB/1, credit 1000",
    "zqb1_curve": "zqbroker, ZQB/1, CURVE",
    "zqb_handle": "zqbroker, handler in the broker",
    "zqb_mdp01": "zqbroker, MDP/0.1",
    "zqb_mdp01_spin": "zqbroker, MDP/0.1, spinning",
    "zqb_mdp02": "zqbroker, MDP/0.2",
    "zqb_lru": "zqbroker, LRU",
    "zmq_proxy": "zmq_proxy",
    "zmq_proxy_curve": "zmq_proxy, CURVE",
    "direct": "DEALER to ROUTER, no broker",
    "mdp01_plain_loop": "plain loop, MDP/0.1",
    "nats": "NATS",
    "redis": "Redis lists",
    "gearmand": "gearmand",
}
SCENARIOS = [
    ("sync", 1, "one request at a time"),
    ("pipelined-1x1000", 1, "1 client x 1000 outstanding, 1 worker"),
    ("pipelined-1x1000", 4, "1 client x 1000 outstanding, 4 workers"),
    ("pipelined-4x100", 4, "4 clients x 100 outstanding, 4 workers"),
]
OURS, YARDSTICK, OTHERS = "#1f6f5c", "#8a6d1d", "#9aa3ab"

PANEL_WIDTH, LABEL_WIDTH, BAR_WIDTH = 560, 190, 260
BAR_HEIGHT, BAR_STEP, PANEL_HEAD, PANEL_FOOT, MARGIN, TITLE = 13, 18, 26, 26, 16, 50


def read_rows(path):
    with open(path, newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            row["rate"] = float(row["requests_per_s"])
            if row["rate"] > 0 and row["subject"] in NAMES:
                yield row


def panel_rows(rows, transport, scenario, workers, body, placement):
    wanted = scenario + ("-pinned" if placement == "pinned" else "")
    found = [row for row in rows if (row["transport"], row["scenario"], row["workers"], row["body"])
             == (transport, wanted, str(workers), body)]
    return sorted(found, key=lambda row: -row["rate"])


def rate_text(rate):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return "%.3g %s" % (rate / size, unit) if rate < 1000 * size else "%d %s" % (rate / size, unit)
    return "%.3g" % rate


class Drawing:
    """Collects the elements of an SVG."""

    def __init__(self, lowest, highest):
        self.lowest, self.highest, self.elements = lowest, highest, []

    def text(self, x, y, text, size=11, anchor="start", weight="normal", fill="#222"):
        self.elements.append('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" font-weight="%s" fill="%s">%s</text>'
                             % (x, y, size, anchor, weight, fill, escape(text)))

    def bar(self, x, y, width, fill):
        self.elements.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2" fill="%s"/>'
                             % (x, y, max(width, 1), BAR_HEIGHT, fill))

    def line(self, x, top, bottom):
        self.elements.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#e3e6e8"/>' % (x, top, x, bottom))

    def length(self, rate):
        return BAR_WIDTH * (math.log10(rate) - self.lowest) / (self.highest - self.lowest)

    def panel(self, x, y, title, rows):
        self.text(x, y + 15, title, 13, weight="bold")
        top, left = y + PANEL_HEAD, x + LABEL_WIDTH
        bottom = top + BAR_STEP * len(rows)
        for decade in range(self.lowest, self.highest + 1):
            at = left + self.length(10.0 ** decade)
            self.line(at, top, bottom)
            self.text(at, bottom + 12, rate_text(10.0 ** decade), 9, "middle", fill="#777")
        for i, row in enumerate(rows):
            self.subject(left, top + i * BAR_STEP, row)

    def subject(self, left, y, row):
        ours, yardstick = row["subject"].startswith("zqb"), row["subject"] == "zmq_proxy"
        width = self.length(row["rate"])
        self.text(left - 6, y + BAR_HEIGHT - 2, NAMES[row["subject"]], 11, "end", "bold" if ours else "normal")
        self.bar(left, y, width, OURS if ours else YARDSTICK if yardstick else OTHERS)
        label = "%s/s" % rate_text(row["rate"])
        if not yardstick and float(row["ratio_to_zmq_proxy"]) > 0:
            label += "  (x %.3g)" % float(row["ratio_to_zmq_proxy"])
        self.text(left + width + 5, y + BAR_HEIGHT - 2, label, 10, fill="#444")

    def write(self, path, width, height):
        with open(path, "w") as file:
            file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" '
                       'font-family="Helvetica, Arial, sans-serif">\n<rect width="100%%" height="100%%" fill="white"/>\n'
                       % (width, height, width, height))
            file.write("\n".join(self.elements) + "\n</svg>\n")


def draw(rows, out, placement, body, transports):
    panels = [[(title, panel_rows(rows, transport, scenario, workers, body, placement)) for transport in transports]
              for scenario, workers, title in SCENARIOS]
    panels = [row for row in panels if any(bars for _, bars in row)]
    rates = [bar["rate"] for row in panels for _, bars in row for bar in bars]
    if not rates:
        sys.exit("nothing to draw: no rows with placement=%s body=%s" % (placement, body))
    drawing = Drawing(math.floor(math.log10(min(rates)) - 0.1), math.ceil(math.log10(max(rates))))
    where = "all on one core" if placement == "pinned" else "left to the scheduler"
    drawing.text(MARGIN, 24, "Requests answered per second, bodies of %s bytes, %s" % (body, where), 16, weight="bold")
    drawing.text(MARGIN, 41, "Medians of interleaved rounds; logarithmic; in brackets the ratio to zmq_proxy", 11,
                 fill="#666")
    y = TITLE
    for row in panels:
        for column, (title, bars) in enumerate(row):
            if bars:
                drawing.panel(MARGIN + column * PANEL_WIDTH, y, "%s: %s" % (transports[column], title), bars)
        y += PANEL_HEAD + PANEL_FOOT + BAR_STEP * max(len(bars) for _, bars in row)
    drawing.write(out, 2 * MARGIN + PANEL_WIDTH * len(transports), y + MARGIN)


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    options = {"placement": "pinned", "body": "10", "transports": "inproc,tcp"}
    for argument in arguments[2:]:
        name, _, value = argument.partition("=")
        if name not in options:
            sys.exit(__doc__)
        options[name] = value
    draw(list(read_rows(arguments[0])), arguments[1], options["placement"], options["body"],
         options["transports"].split(","))
    print("written to", arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
