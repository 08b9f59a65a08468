#!/usr/bin/env python3
"""Writes the table of the README from results.tsv: between the two lines that speak of `make bench-readme`.

    table.py RESULTS.tsv README.md
"""
import csv
import sys

BEGIN, END = "<!-- make bench-readme: begin -->", "<!-- make bench-readme: end -->"
SCENARIOS = [
    ("pipelined-1x1000-pinned", "1", "1 client x 1000 outstanding, 1 worker"),
    ("pipelined-1x1000-pinned", "4", "1 client x 1000 outstanding, 4 workers"),
    ("pipelined-4x100-pinned", "1", "4 clients x 100 outstanding, 1 worker"),
    ("pipelined-4x100-pinned", "4", "4 clients x 100 outstanding, 4 workers"),
    ("sync-pinned", "1", "one request at a time, 1 worker"),
]
SUBJECTS = [("zqb1", "zqbroker"), ("zmq_proxy", "`zmq_proxy`"), ("nats", "NATS"), ("redis", "Redis lists"),
            ("gearmand", "gearmand"), ("direct", "no broker")]


def rate(row):
    value = float(row["requests_per_s"]) if row else 0
    if value <= 0:
        return "-"
    return "%.1f M" % (value / 1e6) if value >= 1e6 else "%.0f k" % (value / 1e3)


def lines(rows):
    yield "| requests a second, bodies of 10 bytes | " + " | ".join(name for _, name in SUBJECTS) + " | x `zmq_proxy` |"
    yield "|---|" + "---|" * (len(SUBJECTS) + 1)
    for transport in ("inproc", "tcp"):
        for scenario, workers, text in SCENARIOS:
            found = {row["subject"]: row for row in rows
                     if (row["transport"], row["scenario"], row["workers"], row["body"])
                     == (transport, scenario, workers, "10")}
            if "zqb1" in found:
                cells = [rate(found.get(subject)) for subject, _ in SUBJECTS]
                yield "| %s: %s | %s | %.2g |" % (transport, text, " | ".join(cells),
                                                  float(found["zqb1"]["ratio_to_zmq_proxy"]))


def main(results, readme):
    with open(results, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    with open(readme) as file:
        text = file.read()
    before, rest = text.split(BEGIN + "\n")
    after = rest.split(END)[1]
    with open(readme, "w") as file:
        file.write(before + BEGIN + "\n" + "\n".join(lines(rows)) + "\n" + END + after)


if __name__ == "__main__":
    main(*sys.argv[1:])
