/*  zqkeygen.c - makes a pair of CURVE keys, in two files

    Build   cc -o zqkeygen examples/zqkeygen.c -I. -lzmq
    Run     ./zqkeygen broker
    Prints  broker.secret  keep it where it is used; nobody else may read it
            broker.public  give it to those who are to know broker

    Each role has a pair: the broker one, and each user one. A broker is started with its own
    secret, and clients and workers with its public key and their own secret:

            ./zqbrokerd --bind tcp://127.0.0.1:5555 --curve-secret broker.secret
            ./zqecho -e tcp://127.0.0.1:5555 --curve-server broker.public --curve alice echo
            ./zqcall -e tcp://127.0.0.1:5555 --curve-server broker.public --curve alice echo hello

    The files are certificates as CZMQ and pyzmq have them; zqbroker takes them as "file:PATH".
    Nothing is overwritten. Status 1: it could not write them, or this libzmq has no CURVE. Status
    2: the command line is wrong.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: zqkeygen NAME\n"
    "Makes a pair of CURVE keys: NAME.secret, which only you may read, and NAME.public.\n"
    "It does not overwrite what is there.\n";

enum { PATH_SIZE = 4096, TEXT_SIZE = 1024 };

/* No compiler may leave that out. */
static void wipe (volatile char *text, size_t size)
{
    while (size-- > 0)
        *text++ = 0;
}

static int failed (const char *what)
{
    fprintf (stderr, "zqkeygen: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

static int write_all (int file, const char *text)
{
    size_t left = strlen (text);

    while (left > 0) {
        ssize_t wrote = write (file, text, left);
        if (wrote == -1 && errno != EINTR)
            return -1;
        if (wrote > 0) {
            text += wrote;
            left -= (size_t) wrote;
        }
    }
    return fsync (file);
}

/* A new file; what cannot be written whole is not left behind. */
static int write_file (const char *path, mode_t mode, const char *text)
{
    int file = open (path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
    int rc;

    if (file == -1)
        return failed (path);
    rc = write_all (file, text);
    if (rc == -1)
        failed (path);
    if (close (file) == -1 && rc == 0)
        rc = failed (path);
    if (rc == -1)
        unlink (path);
    return rc;
}

/* Both files, or none. */
static int make_pair (const char *name)
{
    char public_path[PATH_SIZE], secret_path[PATH_SIZE], public_key[41], secret_key[41];
    char text[TEXT_SIZE];
    int rc;

    snprintf (public_path, sizeof public_path, "%s.public", name);
    snprintf (secret_path, sizeof secret_path, "%s.secret", name);
    if (zqb_curve_keypair (public_key, secret_key) == -1)
        return failed ("CURVE");
    snprintf (text, sizeof text,
              "# A CURVE public key, for those who are to know its owner\n"
              "metadata\ncurve\n    public-key = \"%s\"\n", public_key);
    rc = write_file (public_path, 0644, text);
    if (rc == 0) {
        snprintf (text, sizeof text,
                  "# A CURVE secret key: keep it to yourself\n"
                  "metadata\ncurve\n    public-key = \"%s\"\n    secret-key = \"%s\"\n",
                  public_key, secret_key);
        rc = write_file (secret_path, 0600, text);
        if (rc == -1)
            unlink (public_path);
    }
    wipe (secret_key, sizeof secret_key);
    wipe (text, sizeof text);
    if (rc == 0)
        printf ("%s  keep it where it is used; nobody else may read it\n"
                "%s  give it to those who are to know %s\n",
                secret_path, public_path, name);
    return rc;
}

int main (int argc, char **argv)
{
    if (argc == 2 && (strcmp (argv[1], "--help") == 0 || strcmp (argv[1], "-h") == 0)) {
        fputs (help, stdout);
        return 0;
    }
    if (argc != 2 || argv[1][0] == '\0' || argv[1][0] == '-'
        || strlen (argv[1]) > PATH_SIZE - sizeof ".public") {
        fprintf (stderr, "zqkeygen: a name is needed, and nothing else\nTry: zqkeygen --help\n");
        return 2;
    }
    return make_pair (argv[1]) == 0 ? 0 : 1;
}
