#!/usr/bin/env python3
"""Adds up which lines of the header fuzzers reach, by the rooms of the header.

    coverage.py zqbroker.h FILE.lcov...
"""
import re
import sys


def rooms(header):
    """[(first line, room)], in order."""
    found = []
    for number, line in enumerate(open(header, encoding="utf-8"), 1):
        room = re.match(r" +>>(\w+)$", line)
        if room:
            found.append((number, room.group(1)))
    return found


def reached(paths, header):
    """{line: how often}, of all files together."""
    lines, ours = {}, False
    for path in paths:
        for line in open(path):
            if line.startswith("SF:"):
                ours = line.strip().endswith(header)
            elif ours and line.startswith("DA:"):
                number, times = line[3:].split(",")[:2]
                lines[int(number)] = lines.get(int(number), 0) + int(times)
    return lines


def main():
    header, paths = sys.argv[1], sys.argv[2:]
    lines, all_rooms = reached(paths, header), rooms(header)
    print("%-12s %6s %8s %7s" % ("room", "lines", "reached", ""))
    for (first, room), (end, _) in zip(all_rooms, all_rooms[1:] + [(10 ** 9, "")]):
        inside = [times for number, times in lines.items() if first <= number < end]
        if inside:
            hit = sum(1 for times in inside if times)
            print("%-12s %6d %8d %6.1f%%" % (room, len(inside), hit, 100.0 * hit / len(inside)))
    print("%-12s %6d %8d" % ("all", len(lines), sum(1 for times in lines.values() if times)))


if __name__ == "__main__":
    main()
