#!/usr/bin/env python3
"""README.md is true. Its ```c blocks are whole programs, each saved under the name that ends the line before it; its
```sh blocks are run one after the other beside them, the header and the example programs, and have to print the
```text block that follows. What is only to be looked at is indented, not fenced.

    python3 tests/test_readme.py [WORD...]      all cases, or those with these words in their name
"""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from tap import BUILD, HEADER, TOP, case, first_program, folder, main, read, same, write

README = read(os.path.join(TOP, "README.md"))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = dict(re.findall(r"`(\w+\.c)`[^\n`]*\n\n```c\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^```sh\n(.*?)^```\n```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def desk(name):
    """A folder with what a reader has: the header, the programs of this page, and those of `make`."""
    where = folder("readme", name)
    shutil.copy(HEADER, where)
    for file, text in PROGRAMS.items():
        write(os.path.join(where, file), text)
    for source in glob.glob(os.path.join(TOP, "examples", "*.c")):
        program = os.path.basename(source)[:-2]
        os.symlink(os.path.join(BUILD, program), os.path.join(where, program))
    return where


def type_in(commands, where):
    """What these commands print. What they left running is ended."""
    output = os.path.join(where, "output")
    with open(output, "w") as file:
        shell = subprocess.Popen(["sh", "-e", "-c", commands], cwd=where, stdin=subprocess.DEVNULL, stdout=file,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = shell.wait(60)
        finally:
            try:
                os.killpg(shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            shell.wait()
    assert status == 0, "status %d\n%s" % (status, read(output))
    return read(output)


@case("every block is a named program, or commands with what they print")
def _():
    kinds = [kind for kind, _ in BLOCKS]
    same(set(kinds), {"c", "sh", "text"})
    same((len(PROGRAMS), len(COMMANDS), len(COMMANDS)), tuple(kinds.count(kind) for kind in ("c", "sh", "text")))


@case("every test that tests/README.md names is there, and is run")
def _():
    named = re.findall(r"`(test_\w+): (\w+)`", read(os.path.join(TOP, "tests", "README.md")))
    assert len(named) > 50, len(named)
    for file, test in named:
        source = read(os.path.join(TOP, "tests", file + ".c"))
        assert "TEST (%s)" % test in source and re.search(r"\w+ \(%s\)," % test, source), (file, test)


for number, (commands, expected) in enumerate(COMMANDS, 1):
    @case("what these commands print: " + commands.split("\n")[0])
    def _(number=number, commands=commands, expected=expected):
        same(type_in(commands, desk("commands-%d" % number)), expected)


@case("the program is the one at the top of the header")
def _():
    same(PROGRAMS["hello.c"], first_program())
    assert "It prints HELLO, WORLD." in read(HEADER)


@case("the first screen has the program, how to compile it, and what it prints")
def _():
    assert len(README.split("HELLO, WORLD\n")[0].split("\n")) < 65


@case("the picture of the roles is that of the manual")
def _():
    def picture(text):
        return [line.strip() for line in text.split("\n") if "+--------+" in line or "| broker |" in line]
    same(picture(README), picture(read(HEADER)))
    assert picture(README)


@case("the defaults of the options are those in the header")
def _():
    rows = re.findall(r"^\| `(zqb_\w+_options_t)` \| `(\w+)` \| ([^|]+) \|", README, re.MULTILINE)
    assert rows
    for struct, field, default in rows:
        body = re.search(r"typedef struct %s {(.*?)^}" % struct, read(HEADER), re.MULTILINE | re.DOTALL)
        assert body, struct
        assert re.search(r"\b%s; +/\* %s\b" % (field, re.escape(default)), body.group(1)), (struct, field, default)


@case("the table of examples names all of them, and no others")
def _():
    table = README.split("## Examples", 1)[1].split("\n## ", 1)[0]
    same(sorted(re.findall(r"`(\w+\.c)`", table)),
         sorted(os.path.basename(path) for path in glob.glob(os.path.join(TOP, "examples", "*.c"))))


@case("every function and type that is named is in the header")
def _():
    header = read(HEADER)
    unknown = [name for name in set(re.findall(r"\bzqb_\w+|\bZQB\w+_\w+", README)) if name not in header]
    same(unknown, [])


@case("no line is longer than 120 characters, but those of tables")
def _():
    same([line for line in README.split("\n") if len(line) > 120 and not line.startswith("|")], [])


if __name__ == "__main__":
    main()
