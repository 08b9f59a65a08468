#!/bin/sh
# Makes sure that what the project needs is there. It looks for the thing itself, not for its package. What is missing
# is installed where apt-get is, and named where it is not.
#
#     need.sh demo|test|check     status 0 when all is there that it cannot do without, says nothing when all is
#     need.sh have THING          status 0 when this one is there
#     need.sh python              prints a Python that can import zmq, for the tests

CC=${CC:-cc}

#       thing       Debian, Ubuntu      Fedora                 Homebrew     Alpine          (- there is none; it can do without)
table='
        compiler    gcc,libc6-dev       gcc                    gcc          gcc,musl-dev
        libzmq      libzmq3-dev         zeromq-devel           zeromq       zeromq-dev
        pkg-config  pkg-config          pkgconf-pkg-config     pkg-config   pkgconf
        cmocka      libcmocka-dev       libcmocka-devel        cmocka       cmocka-dev
        python3     python3             python3                python3      python3
        pyzmq       python3-zmq         python3-zmq            -            py3-pyzmq
        czmq        libczmq-dev         czmq-devel             czmq         czmq-dev
        g++         g++                 gcc-c++                -            g++
        clang       clang               clang                  -            clang
        valgrind    valgrind            valgrind               -            valgrind
        sanitizers  -                   libasan,libubsan,libtsan  -         -
        fuzzer      libclang-rt-dev     compiler-rt            llvm         compiler-rt
'

links () # links CODE FLAGS...: does a program with this in it compile and link?
{
    code=$1; shift
    scratch=$(mktemp -d) || exit 1
    printf '%s\nint main (void) { return 0; }\n' "$code" > "$scratch/probe.c"
    $CC -o "$scratch/probe" "$scratch/probe.c" "$@" > /dev/null 2>&1
    status=$?
    rm -rf "$scratch"
    return $status
}

flags () # flags PACKAGE LIBRARY: as pkg-config says, or a guess
{
    pkg-config --cflags --libs "$1" 2> /dev/null || echo "$2"
}

python ()
{
    for python in /usr/bin/python3 python3; do
        "$python" -c 'import zmq' 2> /dev/null && echo "$python" && return 0
    done
    return 1
}

# shellcheck disable=SC2046 # the flags are several words
have ()
{
    case $1 in
        compiler)   links '' ;;
        libzmq)     links '#include <zmq.h>
                           int major; void (*used) (int *, int *, int *) = zmq_version;' $(flags libzmq -lzmq) ;;
        cmocka)     links '#include <stdarg.h>
                           #include <stddef.h>
                           #include <stdint.h>
                           #include <setjmp.h>
                           #include <cmocka.h>' $(flags cmocka -lcmocka) ;;
        czmq)       links '#include <czmq.h>
                           zactor_fn *used = zauth;' $(flags libczmq -lczmq) $(flags libzmq -lzmq) ;;
        pyzmq)      python > /dev/null ;;
        sanitizers) links '' -fsanitize=address,undefined && links '' -fsanitize=thread ;;
        fuzzer)     (CC=clang; links '#include <stddef.h>
                                      int LLVMFuzzerTestOneInput (const unsigned char *data, size_t size);
                                      int LLVMFuzzerTestOneInput (const unsigned char *data, size_t size) { return data && !size; }
                                      #define main unused_main' -fsanitize=fuzzer) ;;
        gcov)       "${GCOV:-gcov}" --help 2> /dev/null | grep -q -e --json-format &&
                        (CC=${COVERAGE_CC:-gcc}; links '' --coverage) ;;
        *)          command -v "$1" > /dev/null 2>&1 ;;
    esac
}

missing ()
{
    for thing in "$@"; do
        have "$thing" || printf '%s ' "$thing"
    done
}

packages () # packages COLUMN THING...: their names in that column of the table
{
    column=$1; shift
    for thing in "$@"; do
        echo "$table" | awk -v thing="$thing" -v column="$column" '$1 == thing && $column != "-" { print $column }'
    done | tr ',\n' '  '
}

install_with_apt () # install_with_apt PACKAGE...
{
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null 2>&1 || return 1
        sudo=sudo
    fi
    echo "installing with apt-get: $*"
    log=$(mktemp) || exit 1
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0"
    if $apt install -y --no-install-recommends "$@" > "$log" 2>&1; then
        status=0
    else # most often because the lists of packages are missing or old
        { $apt update && $apt install -y --no-install-recommends "$@"; } > "$log" 2>&1
        status=$?
    fi
    [ $status = 0 ] || cat "$log" >&2
    rm -f "$log"
    return $status
}

say_command ()
{
    [ -z "$2" ] || echo "    $1 $2"
}

say_what_to_install () # say_what_to_install THING...
{
    echo "missing: $*"
    echo "install them, then run make again:"
    say_command "Debian, Ubuntu   apt-get install" "$(packages 2 "$@")"
    say_command "Fedora           dnf install" "$(packages 3 "$@")"
    say_command "macOS            brew install" "$(packages 4 "$@")"
    say_command "Alpine           apk add" "$(packages 5 "$@")"
    case " $* " in *' pyzmq '*) echo "    anywhere         python3 -m pip install pyzmq" ;; esac
}

# shellcheck disable=SC2086 # lists of words
need ()
{
    lacking=$(missing "$@")
    [ -n "$lacking" ] || return 0
    echo "not found here: $lacking"
    if command -v apt-get > /dev/null 2>&1 && install_with_apt $(packages 2 $lacking); then
        lacking=$(missing "$@")
    fi
    [ -n "$lacking" ] || return 0
    say_what_to_install $lacking >&2
    return 1
}

# What tests can do without, and say so: it is installed if that asks nobody for a password, and else left.
# shellcheck disable=SC2086
want () # want THING...
{
    lacking=$(missing "$@")
    [ -n "$lacking" ] || return 0
    # shellcheck disable=SC2046
    if command -v apt-get > /dev/null 2>&1 && { [ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null; }; then
        install_with_apt $(packages 2 $lacking) 2> /dev/null
        lacking=$(missing "$@")
    fi
    [ -z "$lacking" ] || echo "not found here, and what needs it is skipped: $lacking"
}

demo="compiler libzmq"
test="$demo pkg-config cmocka python3 pyzmq"
wanted="czmq"
check="$test g++ clang valgrind sanitizers fuzzer"
if [ "$(uname -s)" != Linux ] || [ -e /etc/alpine-release ]; then
    check=$test # not all of it can be had there: the checks use what there is
fi

# shellcheck disable=SC2086
case $1 in
    demo)   need $demo ;;
    test)   need $test && want $wanted ;;
    check)  need $check && want $wanted ;;
    have)   have "$2" ;;
    python) python ;;
    *)      echo "usage: need.sh demo|test|check|have THING|python" >&2; exit 2 ;;
esac
