/*  Runs a fuzzer over files, without libFuzzer: any compiler, any sanitizer. Each file is a test case, told in TAP.

        tests/build/fuzz/replay-fuzz_wire FILE or FOLDER...

    All run in one child; when a file ends it, that one has failed, and another child goes on behind it. */

#define _DEFAULT_SOURCE

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

enum { FILES_MOST = 200000, SIZE_MOST = 1 << 20 };

static char *files[FILES_MOST];
static size_t file_count;

static void add_file (const char *folder, const char *name)
{
    size_t size = strlen (folder) + strlen (name) + 2;
    if (file_count == FILES_MOST || !(files[file_count] = (char *) malloc (size)))
        exit (2);
    snprintf (files[file_count++], size, "%s%s%s", folder, *folder ? "/" : "", name);
}

static void add (const char *path)
{
    DIR *folder = opendir (path);
    if (!folder) {
        add_file ("", path);
        return;
    }
    for (struct dirent *entry; (entry = readdir (folder)) != NULL;)
        if (entry->d_name[0] != '.')
            add_file (path, entry->d_name);
    closedir (folder);
}

static int by_name (const void *a, const void *b)
{
    return strcmp (*(char *const *) a, *(char *const *) b);
}

static void run (const char *path)
{
    static uint8_t buffer[SIZE_MOST];
    FILE *file = fopen (path, "rb");
    if (!file) {
        perror (path);
        exit (1);
    }
    size_t size = fread (buffer, 1, sizeof buffer, file);
    fclose (file);
    uint8_t *data = (uint8_t *) malloc (size ? size : 1); /* of the exact size, for the sanitizer */
    if (!data)
        exit (2);
    memcpy (data, buffer, size);
    LLVMFuzzerTestOneInput (data, size);
    free (data);
}

/* Runs what is left. The status of the child. */
static int run_in_child (volatile size_t *at)
{
    int status = 0;
    fflush (stdout);
    pid_t child = fork ();
    if (child == 0) {
        for (; *at < file_count; ++*at)
            run (files[*at]);
        exit (0);
    }
    if (child < 0 || waitpid (child, &status, 0) != child)
        exit (2);
    return status;
}

int main (int argc, char **argv)
{
    size_t told = 0, failed = 0;
    volatile size_t *at = (volatile size_t *) mmap (NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 1; i < argc; i++)
        add (argv[i]);
    qsort (files, file_count, sizeof files[0], by_name);
    printf ("1..%zu\n", file_count);
    do {
        int status = run_in_child (at);
        for (; told < *at; told++)
            printf ("ok %zu - %s\n", told + 1, files[told]);
        if (told < file_count) {
            printf ("not ok %zu - %s (status 0x%x)\n", told + 1, files[told], (unsigned) status);
            failed++;
            *at = ++told;
        } else if (status) { /* at the end: what LeakSanitizer found */
            printf ("not ok %zu - leaks (status 0x%x)\n", file_count + 1, (unsigned) status);
            failed++;
        }
    } while (told < file_count);
    return failed ? 1 : 0;
}
