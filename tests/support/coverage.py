#!/usr/bin/env python3
"""Runs programs that were built with --coverage, and tells what of the header they reached, all together.

    coverage.py [--build FOLDER] [--jobs N] [--timeout SECONDS] [--lines PERCENT] [--branches PERCENT]
                [LABEL:: ]COMMAND...            see run.py; without any, tells of the last run

FOLDER is where the programs were built, and where they leave their counters. The header is a part of many programs:
a line, and a way out of a branch, is reached if any of them reached it. Results are test cases in TAP: one for each
command, and then whether enough was reached, and whether coverage.txt gives a reason for all the rest.
"""
import argparse
import collections
import concurrent.futures
import glob
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import run

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
HEADER, REASONS = "zqbroker.h", os.path.join(HERE, "coverage.txt")
COMPLAINTS = "libgcov.txt"  # in the folder of the build: what libgcov says, which is nothing that a program said
GCOV = shlex.split(os.environ.get("GCOV", "gcov"))

Reached = collections.namedtuple("Reached", "lines branches")  # {(function, line): times}, {the same: [times each way]}


# ---- what was reached

def read_counters(path):
    """[what gcov tells of a line of the header], for a program or a part of one."""
    text = subprocess.run([*GCOV, "--json-format", "--stdout", "--branch-probabilities", path], cwd=TOP, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True).stdout
    files = [file for unit in text.splitlines() for file in json.loads(unit)["files"]]
    return [line for file in files if os.path.basename(file["file"]) == HEADER for line in file["lines"]]


def merge(all_lines):
    """What any of them reached. Where a line has not as many ways out in all programs, because of a macro that some
    replace, those of the most programs count."""
    lines, shapes = collections.Counter(), collections.defaultdict(lambda: collections.defaultdict(list))
    for line in all_lines:
        key, ways = (line.get("function_name", ""), line["line_number"]), [way["count"] for way in line["branches"]]
        lines[key] += line["count"]
        shapes[key][len(ways)].append(ways)
    branches = {}
    for key, by_size in shapes.items():
        size = max(by_size, key=lambda size: len(by_size[size]))
        if size:
            branches[key] = [sum(way) for way in zip(*by_size[size])]
    return Reached(dict(lines), branches)


def read_all(build, jobs):
    paths = sorted(glob.glob(os.path.join(build, "**", "*.gcda"), recursive=True))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return merge(line for lines in pool.map(read_counters, paths) for line in lines)


# ---- the table

def rooms():
    """[(first line, room)], in order."""
    with open(os.path.join(TOP, HEADER), encoding="utf-8") as header:
        found = [(number, re.match(r" +>>(\w+)$", line)) for number, line in enumerate(header, 1)]
    return [(number, room.group(1)) for number, room in found if room]


def share(times):
    """(how many there are, how many of them were reached, percent)"""
    there, hit = len(times), sum(1 for count in times if count)
    return there, hit, 100.0 * hit / there if there else 100.0


def row(name, reached, first, end):
    lines = share([count for (_, line), count in reached.lines.items() if first <= line < end])
    branches = share([way for (_, line), ways in reached.branches.items() if first <= line < end for way in ways])
    print("# %-12s %6d %7d %6.1f%% %9d %7d %6.1f%%" % (name, *lines, *branches))
    return lines[2], branches[2]


def table(reached):
    """Prints it; returns the percentages of lines and branches of the whole."""
    print("#\n# %-12s %6s %7s %7s %9s %7s" % ("room", "lines", "reached", "", "branches", "reached"))
    starts = rooms()
    for (first, room), (end, _) in zip(starts, starts[1:] + [(float("inf"), "")]):
        if any(first <= line < end for _, line in reached.lines):
            row(room, reached, first, end)
    return row("all", reached, 0, float("inf"))


# ---- what is left

def left_out(reached):
    """{function: [lines that nothing reached]}"""
    left = collections.defaultdict(list)
    for (function, line), count in sorted(reached.lines.items(), key=lambda item: item[0][1]):
        if not count:
            left[function].append(line)
    return left


def half_taken(reached):
    """{function: ["line: ways that nothing took of all its ways"]}, for lines that were reached"""
    half = collections.defaultdict(list)
    for (function, line), ways in sorted(reached.branches.items(), key=lambda item: item[0][1]):
        if reached.lines[function, line] and not all(ways):
            half[function].append("%d: %d of %d" % (line, ways.count(0), len(ways)))
    return half


def spans(numbers):
    """[1, 2, 3, 7] as "1-3, 7": each number up to the next but one is still beside it."""
    found = []
    for number in numbers:
        if found and number - found[-1][1] <= 2:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in found)


def reasons():
    """{function: why some of its lines are not reached}"""
    with open(REASONS, encoding="utf-8") as file:
        lines = [line.split(None, 1) for line in file if line.strip() and not line.startswith("#")]
    return {function: reason.strip() for function, reason in lines}


def show_left(reached):
    known, left, half = reasons(), left_out(reached), half_taken(reached)
    print("#\n# lines that nothing reached, and the reason")
    for function, lines in left.items():
        print("#   %-36s %-24s %s" % (function, spans(lines), known.get(function, "NO REASON GIVEN")))
    print("#\n# ways out of branches that nothing took, on lines that were reached")
    for function, lines in half.items():
        print("#   %-36s %s" % (function, ", ".join(lines)))
    there = {function for function, _ in reached.lines}
    for function, reason in known.items():
        if function not in left and (function not in there or not reason.startswith("sometimes")):
            print("# stale: coverage.txt has a reason for %s, %s" % (
                function, "all of which is reached" if function in there else "which there is not"))
    print("#")
    return [function for function in left if function not in known]


# ---- the test cases

class Cases:
    def __init__(self):
        self.count = self.failed = 0

    def tell(self, good, promise, output=""):
        self.count, self.failed = self.count + 1, self.failed + (not good)
        print("%sok %d - %s" % ("" if good else "not ", self.count, promise))
        print("".join("#   %s\n" % line for line in output.splitlines()), end="", flush=True)


def run_all(commands, options, cases):
    """Each is a case here; how many it has itself is counted where it is run for its own sake."""
    for path in glob.glob(os.path.join(options.build, "**", "*.gcda"), recursive=True):
        os.remove(path)
    os.environ["GCOV_ERROR_FILE"] = complaints = os.path.join(options.build, COMPLAINTS)
    open(complaints, "w").close()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run.run, c, options.timeout) for c in commands]):
            result = done.result()
            promise = "%s: its %d cases, in %.1f s" % (result.label, result.passed + result.failed, result.seconds)
            cases.tell(not result.failed, promise, result.output if result.failed else "")
    show_complaints(complaints)


def show_complaints(path):
    """A program that is killed while it writes its counters leaves half of them, and those after it write none."""
    with open(path, encoding="utf-8") as file:
        said = collections.Counter(file.read().splitlines())
    for line, times in said.items():
        print("# %s (%d times)" % (line, times))


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("--build", default=os.path.join(TOP, "tests", "build", "coverage"))
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--timeout", type=float, default=300)
    options.add_argument("--lines", type=float, default=95)
    options.add_argument("--branches", type=float, default=85)
    options.add_argument("commands", nargs="*")
    options = options.parse_args()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, run.give_up)
    print("1..%d" % (len(options.commands) + 3))
    cases = Cases()
    if options.commands:
        run_all(options.commands, options, cases)
    reached = read_all(options.build, options.jobs)
    lines, branches = table(reached)
    unknown = show_left(reached)
    cases.tell(lines >= options.lines, "%.1f %% of the lines are reached, at least %g %%" % (lines, options.lines))
    cases.tell(branches >= options.branches,
               "%.1f %% of the branches are taken, at least %g %%" % (branches, options.branches))
    cases.tell(not unknown, "each function of which lines are not reached has a reason in coverage.txt",
               "without one: " + ", ".join(unknown) if unknown else "")
    return 1 if cases.failed else 0


if __name__ == "__main__":
    sys.exit(main())
