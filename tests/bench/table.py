#!/usr/bin/env python3
"""Writes tables from results: between the two lines that speak of the command that does it.

    table.py RESULTS.tsv README.md                           the comparison
    table.py --security SECURITY.tsv SCALE.tsv README.md     what security costs
"""
import csv
import sys

SCENARIOS = [
    ("pipelined-1x1000-pinned", "1", "1 client x 1000 outstanding, 1 worker"),
    ("pipelined-1x1000-pinned", "4", "1 client x 1000 outstanding, 4 workers"),
    ("pipelined-4x100-pinned", "1", "4 clients x 100 outstanding, 1 worker"),
    ("pipelined-4x100-pinned", "4", "4 clients x 100 outstanding, 4 workers"),
    ("sync-pinned", "1", "one request at a time, 1 worker"),
]
SUBJECTS = [("zqb1", "zqbroker"), ("zmq_proxy", "`zmq_proxy`"), ("nats", "NATS"), ("redis", "Redis lists"),
            ("gearmand", "gearmand"), ("direct", "no broker")]

SECURED = [("sync-pinned", "one at a time"), ("pipelined-1x1000-pinned", "x 1000")]
BODIES = [("10", "10 B"), ("1024", "1 KB"), ("65536", "64 KB")]
CONNECTIONS = [("clients without a mechanism", "none"), ("clients by PLAIN", "PLAIN"), ("clients by CURVE", "CURVE")]


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def rate(row):
    value = float(row["requests_per_s"]) if row else 0
    if value <= 0:
        return "-"
    if value >= 1e6:
        return "%.1f M" % (value / 1e6)
    if value >= 1e4:
        return "%.0f k" % (value / 1e3)
    return "%.1f k" % (value / 1e3) if value >= 1e3 else "%.0f" % value


def cell(rows, transport, scenario, workers, body):
    """{subject: row}"""
    return {row["subject"]: row for row in rows
            if (row["transport"], row["scenario"], row["workers"], row["body"]) == (transport, scenario, workers, body)}


def ratio(found, subject, base, column="requests_per_s"):
    if subject not in found or base not in found or float(found[base][column]) <= 0:
        return "-"
    return "%.2f" % (float(found[subject][column]) / float(found[base][column]))


def comparison(rows):
    yield "| requests a second, bodies of 10 bytes | " + " | ".join(name for _, name in SUBJECTS) + " | x `zmq_proxy` |"
    yield "|---|" + "---|" * (len(SUBJECTS) + 1)
    for transport in ("inproc", "tcp"):
        for scenario, workers, text in SCENARIOS:
            found = cell(rows, transport, scenario, workers, "10")
            if "zqb1" in found:
                cells = [rate(found.get(subject)) for subject, _ in SUBJECTS]
                yield "| %s: %s | %s | %.2g |" % (transport, text, " | ".join(cells),
                                                  float(found["zqb1"]["ratio_to_zmq_proxy"]))


def encryption(rows):
    yield "| requests a second over tcp | `zqb1` | `zqb1_curve` | ratio | `zmq_proxy` | `zmq_proxy_curve` | ratio |"
    yield "|---|---|---|---|---|---|---|"
    for scenario, text in SECURED:
        for body, size in BODIES:
            found = cell(rows, "tcp", scenario, "1", body)
            cells = [part for name in ("zqb1", "zmq_proxy")
                     for part in (rate(found.get(name)), rate(found.get(name + "_curve")),
                                  ratio(found, name + "_curve", name))]
            yield "| %s, %s | %s |" % (text, size, " | ".join(cells))


def who_and_what(rows):
    yield "| CPU time for a request of 10 bytes, ratio to `zqb1` | `zqb1_plain` | `zqb1_rules_10` | `zqb1_rules_1000` |"
    yield "|---|---|---|---|"
    for transport in ("inproc", "tcp"):
        for scenario, text in SECURED:
            found = cell(rows, transport, scenario, "1", "10")
            cells = [ratio(found, subject, "zqb1", "cpu_us")
                     for subject in ("zqb1_plain", "zqb1_rules_10", "zqb1_rules_1000")]
            yield "| %s, %s | %s |" % (transport, text, " | ".join(cells))


def connections(rows):
    found = {(row["what"], row["figure"]): row for row in rows}
    yield "| mechanism, with a list of who may come in | connections a second | ratio | CPU for one, of both sides |"
    yield "|---|---|---|---|"
    for what, name in CONNECTIONS:
        came, cost = found[what, "connections_per_s"], found[what, "cpu_us_per_connection"]
        yield "| %s | %.0f | %.2f | %.0f us |" % (name, float(came["value"]), float(came["ratio_to_smallest"]),
                                                  float(cost["value"]))


def put(readme, command, tables):
    begin, end = "<!-- make %s: begin -->\n" % command, "<!-- make %s: end -->" % command
    with open(readme) as file:
        before, rest = file.read().split(begin)
    after = rest.split(end)[1]
    with open(readme, "w") as file:
        file.write(before + begin + "\n\n".join("\n".join(table) for table in tables) + "\n" + end + after)


def main(arguments):
    if arguments[0] == "--security":
        secured, scale = read_rows(arguments[1]), read_rows(arguments[2])
        put(arguments[3], "bench-security", [encryption(secured), who_and_what(secured), connections(scale)])
    else:
        put(arguments[1], "bench-readme", [comparison(read_rows(arguments[0]))])


if __name__ == "__main__":
    main(sys.argv[1:])
