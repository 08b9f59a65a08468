#!/usr/bin/env python3
"""What the header promises about being built: standards, compilers, warnings, translation units, symbols, installing.

    python3 tests/test_build.py [WORD...]       all cases, or those with these words in their name
"""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from tap import CC, HEADER, TOP, Skip, case, first_program, folder, main, must, read, run, same, tool, write, zmq_flags

WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
# Warnings in the headers of others are not ours: -isystem hides them.
INCLUDE = ["-I" + TOP] + [flag.replace("-I", "-isystem", 1) for flag in zmq_flags("--cflags")]
LIBS = zmq_flags("--libs")

IMPLEMENTATION = '#define ZQBROKER_IMPLEMENTATION\n#include "zqbroker.h"\n'
USE = '#include "zqbroker.h"\n'
# Prints the version that is compiled in, and uses something of each room.
MAIN = r"""
#include <stdio.h>
int main (void)
{
    int major, minor, patch;
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    zqb_worker_t *worker = zqb_worker_new (ctx, "inproc://a", "service", NULL);
    zqb_client_t *client = zqb_client_new (ctx, "inproc://a", NULL);
    zqb_client_destroy (&client);
    zqb_worker_destroy (&worker);
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    zqb_version (&major, &minor, &patch);
    printf ("%d.%d.%d\n", major, minor, patch);
    return 0;
}
"""


def version():
    numbers = re.findall(r"^#define ZQB_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", read(HEADER), re.MULTILINE)
    assert len(numbers) == 3
    return ".".join(numbers)


def build(where, files, *flags, compiler=CC):
    """Writes these files ({name: text}), compiles them into one program, returns its path."""
    paths = [write(os.path.join(where, name), text) for name, text in files.items()]
    program = os.path.join(where, "program")
    must([*compiler, *flags, *INCLUDE, "-o", program, *paths, *LIBS])
    return program


def object_of(where, text, *flags):
    path = os.path.join(where, "object.o")
    must([*CC, "-O2", *flags, *INCLUDE, "-c", "-o", path, write(os.path.join(where, "object.c"), text)])
    return path


# ---- standards and warnings

def compiles(name, compiler, standard, flags, text):
    @case("%s with %s -std=%s and all warnings as errors" % (name, compiler, standard))
    def _():
        where = folder("build", re.sub(r"\W+", "_", "-".join([name, compiler, standard])))
        source = write(os.path.join(where, "a.cpp" if "++" in standard else "a.c"), text)
        must([tool(compiler), "-std=" + standard, *flags, *WARNINGS, *INCLUDE, "-c", "-o", source + ".o", source])


for compiler, standard in (("gcc", "c99"), ("clang", "c99"), ("g++", "c++17"), ("clang++", "c++17")):
    compiles("the implementation compiles", compiler, standard, ["-O2"], IMPLEMENTATION)
    compiles("the declarations alone compile", compiler, standard, ["-fsyntax-only"], USE)
for compiler, standard in (("gcc", "c17"), ("clang", "gnu17"), ("g++", "c++20"), ("clang++", "c++20")):
    compiles("the implementation compiles", compiler, standard, ["-fsyntax-only"], IMPLEMENTATION)
compiles("the implementation compiles without optimising", "gcc", "c99", ["-O0"], IMPLEMENTATION)

for compiler, standard in (("gcc", "c99"), ("g++", "c++17"), ("clang", "c99"), ("clang++", "c++17")):
    @case("the program at the top of the header runs, %s -std=%s" % (compiler, standard))
    def _(compiler=compiler, standard=standard):
        where = folder("build", "first-" + compiler)
        name = "a.cpp" if "++" in standard else "a.c"
        program = build(where, {name: first_program()}, "-std=" + standard, *WARNINGS, compiler=[tool(compiler)])
        same(must([program]), "HELLO, WORLD\n")


@case("it compiles for Windows, with mingw-w64")
def _():
    compiler = tool("x86_64-w64-mingw32-gcc")
    where = folder("build", "windows")
    headers = [d for d in ["/usr/include", *(f[2:] for f in zmq_flags("--cflags") if f.startswith("-I"))]
               if os.path.exists(os.path.join(d, "zmq.h"))]
    if not headers:
        raise Skip("zmq.h is not found")
    shutil.copy(os.path.join(headers[0], "zmq.h"), where)  # it alone, not what else is there
    source = write(os.path.join(where, "a.c"), IMPLEMENTATION)
    must([compiler, "-std=c99", "-fsyntax-only", *WARNINGS, "-I" + TOP, "-isystem", where, source])


# ---- translation units

@case("the implementation in one file, its use in another")
def _():
    program = build(folder("build", "two"), {"a.c": IMPLEMENTATION, "b.c": USE + MAIN}, *WARNINGS)
    same(must([program]), version() + "\n")


@case("the implementation in C, its use in C++")
def _():
    where = folder("build", "mixed")
    c = object_of(where, IMPLEMENTATION)
    source = write(os.path.join(where, "b.cpp"), USE + MAIN)
    must([tool("g++"), "-std=c++17", *WARNINGS, *INCLUDE, "-o", where + "/program", source, c, *LIBS])
    same(must([where + "/program"]), version() + "\n")


@case("the implementation in C++, its use in C")
def _():
    where = folder("build", "mixed_too")
    c = object_of(where, USE + MAIN)
    source = write(os.path.join(where, "b.cpp"), IMPLEMENTATION)
    must([tool("g++"), "-std=c++17", *WARNINGS, *INCLUDE, "-o", where + "/program", source, c, *LIBS])
    same(must([where + "/program"]), version() + "\n")


@case("it may be included twice, with the implementation defined")
def _():
    program = build(folder("build", "twice"), {"a.c": IMPLEMENTATION + USE + MAIN}, *WARNINGS)
    same(must([program]), version() + "\n")


@case("the implementation may come after the declarations")
def _():
    program = build(folder("build", "later"), {"a.c": USE + IMPLEMENTATION + MAIN}, *WARNINGS)
    same(must([program]), version() + "\n")


for compiler in ("gcc", "clang"):
    @case("ZQBROKER_STATIC: a copy in each of two files, and nothing unused is warned of, " + compiler)
    def _(compiler=compiler):
        static = "#define ZQBROKER_STATIC\n" + IMPLEMENTATION
        other = static + "int other (void);\nint other (void) { return ZQB_VERSION_MAJOR; }\n"
        program = build(folder("build", "static-" + compiler), {"a.c": static + MAIN, "b.c": other},
                        "-O2", *WARNINGS, compiler=[tool(compiler)])
        same(must([program]), version() + "\n")


# ---- settings

COUNTED = r"""
#include <stddef.h>
#include <stdlib.h>
static long made, freed;
static void *count_malloc (size_t size)             { made++; return malloc (size); }
static void *count_realloc (void *old, size_t size) { if (!old) made++; return realloc (old, size); }
static void count_free (void *old)                  { if (old) freed++; free (old); }
#define ZQB_MALLOC(size) count_malloc (size)
#define ZQB_REALLOC(old, size) count_realloc (old, size)
#define ZQB_FREE(old) count_free (old)
""" + IMPLEMENTATION + r"""
#include <stdio.h>
int main (void)
{
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    zqb_msg_t msg;
    int i;
    zqb_msg_init (&msg);
    for (i = 0; i < 100; i++)
        zqb_msg_add_str (&msg, "frame");
    printf ("%d %d\n", broker != NULL, made > 0);
    zqb_msg_close (&msg);
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    printf ("%ld\n", made - freed);
    return 0;
}
"""


@case("ZQB_MALLOC, ZQB_REALLOC and ZQB_FREE are used, and nothing is left")
def _():
    program = build(folder("build", "malloc"), {"a.c": COUNTED}, *WARNINGS)
    same(must([program]), "1 1\n0\n")


@case("with ZQB_MALLOC and its like the header does not call malloc itself")
def _():
    where = folder("build", "no-malloc")
    override = ("#include <stddef.h>\nvoid *my_malloc (size_t); void *my_realloc (void *, size_t); void my_free (void *);"
                "\n#define ZQB_MALLOC my_malloc\n#define ZQB_REALLOC my_realloc\n#define ZQB_FREE my_free\n")
    names = undefined(object_of(where, override + IMPLEMENTATION))
    found = names & {"malloc", "calloc", "realloc", "free", "strdup", "strndup"}
    assert not found, "it calls %s" % found
    assert "my_malloc" in names and "my_free" in names


for some in ("MALLOC", "REALLOC", "FREE", "MALLOC REALLOC", "MALLOC FREE", "REALLOC FREE"):
    @case("#error for only some of the three: ZQB_" + some.replace(" ", ", ZQB_"))
    def _(some=some):
        where = folder("build", "some-" + some.replace(" ", "-"))
        defines = "".join("#define ZQB_%s x\n" % name for name in some.split())
        source = write(os.path.join(where, "a.c"), defines + IMPLEMENTATION)
        done = run([*CC, "-fsyntax-only", *INCLUDE, source])
        assert done.returncode != 0, "it compiles"
        assert re.search(r"#error.*ZQB_", done.stdout), done.stdout


@case("zqb_version is what the macros say, and what the header and the manual's changes begin with")
def _():
    program = build(folder("build", "version"), {"a.c": IMPLEMENTATION + MAIN})
    same(must([program]), version() + "\n")
    same(read(HEADER).split()[1:3], ["zqbroker.h", version()])
    same(read(HEADER).split("12 CHANGES\n", 1)[1].split()[0], version())


# ---- symbols

def symbols(path, kinds):
    """The global names of an object of these kinds of nm's, without the underscore that macOS puts in front."""
    lines = [line.split() for line in must(["nm", "-P", "-g", path]).split("\n") if line.strip()]
    return {line[0][sys.platform == "darwin":] for line in lines if line[1] in kinds}


def defined(path):
    return symbols(path, "ABCDGRSTVW")


def undefined(path):
    return symbols(path, "Uvw")


@case("every global symbol starts with zqb_")
def _():
    names = defined(object_of(folder("build", "symbols"), IMPLEMENTATION))
    assert "zqb_broker_new" in names, "nothing was compiled"
    strangers = sorted(n for n in names if not n.startswith("zqb_"))
    assert not strangers, strangers


@case("every function of the API is there, and no other global")
def _():
    api = read(HEADER).split("The API ends here", 1)[0]
    declared = set(re.findall(r"^ZQB_API [^;]*?\b(zqb_\w+) \(", api, re.MULTILINE))
    names = defined(object_of(folder("build", "api"), IMPLEMENTATION))
    assert names == declared, "not defined: %s, not declared: %s" % (
        sorted(declared - names), sorted(names - declared))


@case("with ZQBROKER_STATIC there is no global symbol")
def _():
    text = "#define ZQBROKER_STATIC\n" + IMPLEMENTATION + "int main (void) { return zqb_strerror (0) == NULL; }\n"
    same(defined(object_of(folder("build", "symbols-static"), text, "-O0")), {"main"})


@case("it calls nothing that prints, ends the process, or handles a signal")
def _():
    names = undefined(object_of(folder("build", "calls"), IMPLEMENTATION))
    assert any(n.startswith("zmq_") for n in names), "nothing was compiled"
    never = re.compile(r"^_*(abort|exit|Exit|quick_exit|raise|kill|signal|sigaction|v?printf(_chk)?|v?fprintf(_chk)?|"
                       r"puts|fputs|putchar|putc|fputc|fwrite|perror|assert_fail|assert_rtn|stdout|stderr|"
                       r"fork|system|popen|sleep|usleep|nanosleep)$")
    found = sorted(n for n in names if never.match(n))
    assert not found, found


@case("no assert is on by default")
def _():
    code = read(HEADER).split("The API ends here", 1)[1]
    assert not re.search(r"\bassert *\(", code), "assert ("


def macros_of(text, name):
    where = folder("build", "macros-" + name)
    out = must([*CC, "-dM", "-E", *INCLUDE, write(os.path.join(where, "a.c"), text)])
    return set(re.findall(r"^#define (\w+)", out, re.MULTILINE))


@case("every macro of the declarations starts with ZQB")
def _():
    before = macros_of("#include <stddef.h>\n#include <stdint.h>\n#include <zmq.h>\n", "before")
    strangers = sorted(m for m in macros_of(USE, "after") - before if not m.startswith("ZQB"))
    assert not strangers, strangers


@case("every macro of the implementation starts with ZQB, or is one of the system's switches")
def _():
    names = set(re.findall(r"^ *# *define +(\w+)", read(HEADER), re.MULTILINE))
    switches = {"_GNU_SOURCE", "_DEFAULT_SOURCE", "_POSIX_C_SOURCE", "_DARWIN_C_SOURCE", "NOMINMAX",
                "WIN32_LEAN_AND_MEAN", "_CRT_SECURE_NO_WARNINGS"}
    strangers = sorted(n for n in names - switches if not n.upper().startswith("ZQB"))
    assert not strangers, strangers


# ---- make, and what it leaves

def make(where, *arguments):
    """make in a folder, not told what an outer make was told."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DESTDIR", "PREFIX")}
    return must([os.environ.get("MAKE", "make"), *arguments], cwd=where, env=env, timeout=120)


def files_below(where):
    return sorted(os.path.relpath(os.path.join(path, name), where)
                  for path, folders, names in os.walk(where) for name in names + folders)


def copy_of_the_project(name):
    """A clone without what was built, so that nothing here can disturb what runs beside it."""
    where = os.path.join(folder("build", name), "zqbroker")
    shutil.copytree(TOP, where, ignore=shutil.ignore_patterns(".git", "build", "__pycache__"))
    return where


@case("make install puts a header and a zqbroker.pc into DESTDIR, and uninstall takes them away")
def _():
    where = copy_of_the_project("install")
    stage = os.path.join(where, "tests", "stage")
    make(where, "install", "DESTDIR=" + stage, "PREFIX=/opt/zqb")
    same([n for n in files_below(stage + "/opt/zqb") if "." in n], ["include/zqbroker.h", "lib/pkgconfig/zqbroker.pc"])
    same(read(stage + "/opt/zqb/include/zqbroker.h"), read(HEADER))
    assert "prefix=/opt/zqb\n" in read(stage + "/opt/zqb/lib/pkgconfig/zqbroker.pc")
    make(where, "uninstall", "DESTDIR=" + stage, "PREFIX=/opt/zqb")
    same([n for n in files_below(stage) if "." in n], [])


@case("what make install put there is found by pkg-config, and builds a program")
def _():
    tool("pkg-config")
    where = copy_of_the_project("installed")
    prefix = os.path.join(where, "tests", "prefix")
    make(where, "install", "PREFIX=" + prefix)
    env = {**os.environ, "PKG_CONFIG_PATH": prefix + "/lib/pkgconfig"}
    same(must(["pkg-config", "--modversion", "zqbroker"], env=env), version() + "\n")
    flags = must(["pkg-config", "--cflags", "--libs", "zqbroker"], env=env).split()
    assert "-I" + prefix + "/include" in flags, flags
    source = write(os.path.join(where, "tests", "a.c"), first_program())
    must([*CC, "-o", source + ".out", source, *flags])
    same(must([source + ".out"]), "HELLO, WORLD\n")


@case("make clean leaves what was cloned")
def _():
    where = copy_of_the_project("clean")
    before = files_below(where)
    make(where, "tests/build/quickstart")
    make(where, "install", "DESTDIR=" + os.path.join(where, "tests", "build", "stage"))
    assert files_below(where) != before
    make(where, "clean")
    same("\n".join(files_below(where)), "\n".join(before))


@case("make help names every target that people call")
def _():
    text = make(TOP, "help")
    for target in "all demo test check install uninstall clean help".split():
        assert re.search(r"\bmake %s\b" % target, text, re.MULTILINE), "no %s in:\n%s" % (target, text)


@case("nothing else is in the top level")
def _():
    there = {name for name in os.listdir(TOP) if not name.startswith(".")}
    same(there, {"zqbroker.h", "examples", "tests", "Makefile", "README.md", "LICENSE"})


if __name__ == "__main__":
    main()
