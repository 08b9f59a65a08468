/*  quickstart.c - a job for many hands: counting words, with workers of different speed

    A broker, six workers and a client, all of them threads of this process. The client cuts the
    files into some 600 chunks and sends them all at once; the workers count the words of a chunk
    each; the client adds up what they send back. It does so twice: with all six workers behind one
    service, where the broker gives each chunk to the worker that has waited longest (LRU), and with
    a service for each worker, where the client deals the chunks round robin.

    Four workers are fast and two are slow. Threads of one machine are equally fast, so besides
    really counting, a worker waits a fixed time for each chunk, 5 or 25 ms: that stands for the
    speed of the machine it would run on. To have it run there, bind and connect to a tcp endpoint,
    and put the roles in programs of their own.

    Build   cc -o quickstart examples/quickstart.c -I. -lzmq
    Run     ./quickstart [FILE...]      default: this project's own files, from its top directory
    Prints  progress on standard error, and then (the numbers are those of one run):

            20 files, 831217 bytes, in 608 chunks

                         LRU  round robin
            fast 1       135          102
            fast 2       137          102
            fast 3       137          101
            fast 4       135          101
            slow 1        32          101
            slow 2        32          101

              1896  the
              1746  int
            ... and 8 more

            94606 words, 4272 of them different, 20241 lines
            checked against a plain count: the same
            LRU 0.83 s, round robin 2.87 s: 3.5 times as fast

    Status 0: the counts agree. 1: they do not, or something failed. 2: there is no file to count.
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <ctype.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ENDPOINT "inproc://quickstart"

enum { WORKERS = 6, CHUNKS = 600, FAST_MS = 5, SLOW_MS = 25, LONGEST_WORD = 47, TOP = 10 };

static int failed (const char *what)
{
    fprintf (stderr, "quickstart: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

/* ---- words ---- */

/* A word is a run of letters, underscores and bytes above 127, which are UTF-8. */
static int is_word (char c)
{
    return isalpha ((unsigned char) c) || c == '_' || (unsigned char) c > 127;
}

/* The size of the word that begins here, 0 if none does. What is longer than LONGEST_WORD counts as
   several words. */
static size_t word_size (const char *text, const char *end)
{
    size_t size = 0;

    while (size < LONGEST_WORD && text + size < end && is_word (text[size]))
        size++;
    return size;
}

/* ---- tally: how often each word occurs; a hash table with open addressing ---- */

typedef struct entry_t {
    char word[LONGEST_WORD + 1];
    long count; /* 0: this entry is free */
} entry_t;

typedef struct tally_t {
    entry_t *entries;
    size_t size; /* a power of two; at most half of them are used */
    size_t used;
    long words;
    long lines;
} tally_t;

/* The entry of this word, or the free one where it belongs. */
static entry_t *tally_find (const tally_t *tally, const char *word)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    size_t at;

    for (const char *c = word; *c != '\0'; c++)
        hash = (hash ^ (unsigned char) *c) * 16777619u;
    at = hash & (tally->size - 1);
    while (tally->entries[at].count > 0 && strcmp (tally->entries[at].word, word) != 0)
        at = (at + 1) & (tally->size - 1);
    return &tally->entries[at];
}

static int tally_grow (tally_t *tally)
{
    tally_t larger = *tally;

    larger.size = tally->size > 0 ? 2 * tally->size : 64;
    larger.entries = (entry_t *) calloc (larger.size, sizeof *larger.entries);
    if (larger.entries == NULL)
        return -1;
    for (size_t i = 0; i < tally->size; i++)
        if (tally->entries[i].count > 0)
            *tally_find (&larger, tally->entries[i].word) = tally->entries[i];
    free (tally->entries);
    *tally = larger;
    return 0;
}

/* Of the word, at most LONGEST_WORD bytes. ENOMEM. */
static int tally_add (tally_t *tally, const char *word, size_t size, long count)
{
    char key[LONGEST_WORD + 1] = { 0 };
    entry_t *entry;

    if (2 * (tally->used + 1) > tally->size && tally_grow (tally) == -1)
        return -1;
    for (size_t i = 0; i < size && i < LONGEST_WORD; i++)
        key[i] = (char) tolower ((unsigned char) word[i]);
    entry = tally_find (tally, key);
    if (entry->count == 0) {
        memcpy (entry->word, key, sizeof key);
        tally->used++;
    }
    entry->count += count;
    tally->words += count;
    return 0;
}

/* The plain count. */
static int tally_text (tally_t *tally, const char *text, size_t size)
{
    const char *end = text + size;

    while (text < end) {
        size_t word = word_size (text, end);
        if (word > 0 && tally_add (tally, text, word, 1) == -1)
            return -1;
        if (*text == '\n')
            tally->lines++;
        text += word > 0 ? word : 1;
    }
    return 0;
}

/* As text: the number of lines, and then a line "word count" for each word; with a NUL at the
   end. */
static int tally_write (const tally_t *tally, zqb_msg_t *msg)
{
    size_t room = (tally->used + 1) * (LONGEST_WORD + 24);
    char *text = (char *) malloc (room), *at = text;
    int rc;

    if (text == NULL)
        return -1;
    at += sprintf (at, "%ld\n", tally->lines);
    for (size_t i = 0; i < tally->size; i++)
        if (tally->entries[i].count > 0)
            at += sprintf (at, "%s %ld\n", tally->entries[i].word, tally->entries[i].count);
    rc = zqb_msg_add (msg, text, (size_t) (at - text) + 1);
    free (text);
    return rc;
}

/* Adds what tally_write has written. */
static int tally_read (tally_t *tally, const char *text)
{
    char *at;

    tally->lines += strtol (text, &at, 10);
    while (at[0] == '\n' && at[1] != '\0') {
        const char *word = at + 1;
        size_t size = strcspn (word, " ");
        if (tally_add (tally, word, size, strtol (word + size, &at, 10)) == -1)
            return -1;
    }
    return 0;
}

static int tally_same (const tally_t *a, const tally_t *b)
{
    if (a->used != b->used || a->words != b->words || a->lines != b->lines)
        return 0;
    for (size_t i = 0; i < a->size; i++)
        if (a->entries[i].count != 0
            && a->entries[i].count != tally_find (b, a->entries[i].word)->count)
            return 0;
    return 1;
}

/* By count, the largest first, and among equals by the alphabet. */
static int more_frequent (const void *a, const void *b)
{
    const entry_t *one = (const entry_t *) a, *other = (const entry_t *) b;

    if (one->count != other->count)
        return one->count > other->count ? -1 : 1;
    return strcmp (one->word, other->word);
}

/* Sorts the entries; from then on the tally can only be printed and freed. */
static void tally_print_top (tally_t *tally)
{
    if (tally->used > 0)
        qsort (tally->entries, tally->size, sizeof *tally->entries, more_frequent);
    for (size_t i = 0; i < TOP && i < tally->used; i++)
        printf ("%6ld  %s\n", tally->entries[i].count, tally->entries[i].word);
}

/* ---- the input: files, and the chunks that they are cut into ---- */

typedef struct text_t {
    char *data;
    size_t size;
} text_t;

typedef struct input_t {
    text_t *files;
    size_t file_count;
    size_t bytes;
    text_t *chunks; /* parts of the files */
    size_t chunk_count;
} input_t;

static int read_stream (FILE *stream, text_t *text)
{
    size_t room = 0, got = 1;

    while (got > 0) {
        if (text->size == room) {
            char *larger = (char *) realloc (text->data, room = 2 * room + 65536);
            if (larger == NULL)
                return -1;
            text->data = larger;
        }
        got = fread (text->data + text->size, 1, room - text->size, stream);
        text->size += got;
    }
    return ferror (stream) ? -1 : 0;
}

static int read_file (const char *name, text_t *text)
{
    FILE *file = fopen (name, "rb");
    int rc;

    if (file == NULL)
        return failed (name);
    rc = read_stream (file, text);
    if (rc == -1)
        failed (name);
    fclose (file);
    return rc;
}

/* The size of the next chunk: `wanted` bytes, and then to the end of the word. */
static size_t chunk_size (const char *text, size_t left, size_t wanted)
{
    const char *end = text + left;
    size_t size = 0;

    while (size < wanted && size < left) {
        size_t word = word_size (text + size, end);
        size += word > 0 ? word : 1;
    }
    return size;
}

static void cut (input_t *input, const text_t *file, size_t wanted)
{
    for (size_t at = 0; at < file->size; ) {
        text_t *chunk = &input->chunks[input->chunk_count++];
        chunk->data = file->data + at;
        chunk->size = chunk_size (chunk->data, file->size - at, wanted);
        at += chunk->size;
    }
}

/* Reads the files and cuts them into about CHUNKS chunks: at most so many, and one more for each
   file. */
static int input_read (input_t *input, char **names, size_t count)
{
    input->files = (text_t *) calloc (count, sizeof *input->files);
    input->chunks = (text_t *) calloc (count + CHUNKS, sizeof *input->chunks);
    if (input->files == NULL || input->chunks == NULL)
        return failed ("input");
    for (; input->file_count < count; input->file_count++) {
        text_t *file = &input->files[input->file_count];
        if (read_file (names[input->file_count], file) == -1) {
            free (file->data);
            return -1;
        }
        input->bytes += file->size;
    }
    for (size_t i = 0; i < count; i++)
        cut (input, &input->files[i], input->bytes / CHUNKS + 1);
    return 0;
}

static void input_free (input_t *input)
{
    for (size_t i = 0; i < input->file_count; i++)
        free (input->files[i].data);
    free (input->files);
    free (input->chunks);
}

/* ---- the workers ---- */

typedef struct worker_t {
    const char *name;
    int wait_ms; /* for each chunk, see above */
    int chunks;  /* how many it has counted; only its own thread writes this */
} worker_t;

/* Called by the thread of this worker, for each chunk that the broker gives to it. */
static int count_chunk (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    worker_t *worker = (worker_t *) arg;
    zqb_msg_t *chunk = zqb_request_body (request);
    tally_t tally = { 0 };
    int rc = tally_text (&tally, (const char *) zqb_msg_data (chunk, 0), zqb_msg_size (chunk, 0));

    if (rc == 0)
        rc = tally_write (&tally, reply);
    free (tally.entries);
    zmq_poll (NULL, 0, worker->wait_ms);
    worker->chunks++;
    return rc;
}

/* ---- a run: the whole job, done in one of the two ways ---- */

typedef struct run_t {
    const char *name;
    const char *services[WORKERS]; /* of each worker; the client goes round them, chunk by chunk */
    worker_t workers[WORKERS];
    tally_t tally;
    double seconds;
} run_t;

#define ALL_WORKERS                                                      \
    {                                                                    \
        { "fast 1", FAST_MS, 0 }, { "fast 2", FAST_MS, 0 },              \
        { "fast 3", FAST_MS, 0 }, { "fast 4", FAST_MS, 0 },              \
        { "slow 1", SLOW_MS, 0 }, { "slow 2", SLOW_MS, 0 }               \
    }

static run_t lru = {
    "LRU", { "count", "count", "count", "count", "count", "count" }, ALL_WORKERS, { 0 }, 0
};
static run_t round_robin = {
    "round robin", { "count.0", "count.1", "count.2", "count.3", "count.4", "count.5" },
    ALL_WORKERS, { 0 }, 0
};

static double now (void)
{
    struct timespec time;

    clock_gettime (CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

/* On a terminal a line that counts up; elsewhere a line for each quarter. */
static void show_progress (const run_t *run, size_t done, size_t all)
{
    if (isatty (STDERR_FILENO))
        fprintf (stderr, "\r%s: %zu of %zu chunks%s", run->name, done, all,
                 done == all ? "\n" : "");
    else if (4 * done / all != 4 * (done - 1) / all)
        fprintf (stderr, "%s: %zu of %zu chunks\n", run->name, done, all);
}

/* A pool of one thread for each worker, so that it knows which one it is. */
static int start_workers (run_t *run, void *ctx, zqb_pool_t **pools)
{
    zqb_pool_options_t options = { 0 };

    options.threads = 1;
    for (int i = 0; i < WORKERS; i++) {
        pools[i] = zqb_pool_start (ctx, ENDPOINT, run->services[i], count_chunk, &run->workers[i],
                                   &options);
        if (pools[i] == NULL)
            return failed ("worker");
    }
    return 0;
}

static int submit_chunks (const run_t *run, const input_t *input, zqb_client_t *client)
{
    zqb_msg_t request;
    int rc = 0;

    zqb_msg_init (&request);
    for (size_t i = 0; i < input->chunk_count && rc == 0; i++) {
        rc = zqb_msg_add (&request, input->chunks[i].data, input->chunks[i].size);
        if (rc == 0)
            rc = zqb_client_submit (client, run->services[i % WORKERS], &request, NULL);
    }
    zqb_msg_close (&request);
    return rc == 0 ? 0 : failed ("submit");
}

static int take_reply (run_t *run, const zqb_reply_t *reply)
{
    const char *text = (const char *) zqb_msg_data (&reply->body, 0);
    size_t size = zqb_msg_size (&reply->body, 0);

    if (reply->kind == ZQB_REPLY_ERROR)
        errno = reply->error;
    else if (size == 0 || text[size - 1] != '\0')
        errno = EBADMSG;
    else
        return tally_read (&run->tally, text);
    return -1;
}

static int collect_replies (run_t *run, const input_t *input, zqb_client_t *client)
{
    zqb_reply_t reply;
    int rc = 0;

    zqb_msg_init (&reply.body);
    for (size_t done = 0; done < input->chunk_count && rc == 0; done++) {
        rc = zqb_client_recv (client, &reply, -1);
        if (rc == 0)
            rc = take_reply (run, &reply);
        if (rc == 0)
            show_progress (run, done + 1, input->chunk_count);
    }
    zqb_msg_close (&reply.body);
    return rc == 0 ? 0 : failed ("reply");
}

static int run_job (run_t *run, const input_t *input, void *ctx)
{
    zqb_pool_t *pools[WORKERS] = { NULL };
    zqb_client_options_t options = { 0 };
    zqb_client_t *client;
    double start = now ();
    int rc;

    options.timeout_ms = 60000; /* the last chunk waits for all others */
    client = zqb_client_new (ctx, ENDPOINT, &options);
    rc = client != NULL ? start_workers (run, ctx, pools) : failed ("client");
    if (rc == 0)
        rc = submit_chunks (run, input, client);
    if (rc == 0)
        rc = collect_replies (run, input, client);
    run->seconds = now () - start;
    for (int i = 0; i < WORKERS; i++)
        zqb_pool_stop (&pools[i]);
    zqb_client_destroy (&client);
    return rc;
}

/* Starts the broker, and does the job in both ways. */
static int run_both (const input_t *input)
{
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    int rc;

    if (broker == NULL || zqb_broker_bind (broker, ENDPOINT) == -1
        || zqb_broker_start (broker) == -1)
        rc = failed ("broker");
    else
        rc = run_job (&lru, input, ctx);
    if (rc == 0)
        rc = run_job (&round_robin, input, ctx);
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return rc;
}

/* ---- what came out ---- */

static void print_work (const input_t *input)
{
    printf ("%zu files, %zu bytes, in %zu chunks\n\n", input->file_count, input->bytes,
            input->chunk_count);
    printf ("%-8s %7s %12s\n", "", lru.name, round_robin.name);
    for (int i = 0; i < WORKERS; i++)
        printf ("%-8s %7d %12d\n", lru.workers[i].name, lru.workers[i].chunks,
                round_robin.workers[i].chunks);
    printf ("\n");
}

/* Whether both runs came to the same as counting the files one after the other, here. */
static int check (const input_t *input)
{
    tally_t plain = { 0 };
    int rc = 0, same;

    for (size_t i = 0; i < input->file_count && rc == 0; i++)
        rc = tally_text (&plain, input->files[i].data, input->files[i].size);
    if (rc == -1)
        failed ("plain count");
    same = rc == 0 && tally_same (&plain, &lru.tally) && tally_same (&plain, &round_robin.tally);
    free (plain.entries);
    return same;
}

static int report (const input_t *input)
{
    int same = check (input);

    print_work (input);
    tally_print_top (&lru.tally);
    printf ("\n%ld words, %zu of them different, %ld lines\n", lru.tally.words, lru.tally.used,
            lru.tally.lines);
    printf ("checked against a plain count: %s\n", same ? "the same" : "NOT the same");
    if (input->chunk_count > 0)
        printf ("LRU %.2f s, round robin %.2f s: %.1f times as fast\n", lru.seconds,
                round_robin.seconds, round_robin.seconds / lru.seconds);
    return same ? 0 : -1;
}

/* ---- the process ---- */

/* Those of the project's own files that are here. */
static int find_files (glob_t *found)
{
    static const char *const patterns[] = { "zqbroker.h", "README.md", "Makefile", "examples/*.c" };

    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (glob (patterns[i], i > 0 ? GLOB_APPEND : 0, NULL, found) == GLOB_NOSPACE)
            return failed ("glob");
    return 0;
}

static int quickstart (char **names, size_t count)
{
    input_t input = { 0 };
    int rc = input_read (&input, names, count);

    if (rc == 0)
        rc = run_both (&input);
    if (rc == 0)
        rc = report (&input);
    free (lru.tally.entries);
    free (round_robin.tally.entries);
    input_free (&input);
    return rc == 0 ? 0 : 1;
}

int main (int argc, char **argv)
{
    glob_t found;
    int status;

    if (argc > 1)
        return quickstart (argv + 1, (size_t) argc - 1);
    if (find_files (&found) == -1)
        return 1;
    if (found.gl_pathc > 0)
        status = quickstart (found.gl_pathv, found.gl_pathc);
    else {
        fprintf (stderr, "usage: quickstart FILE...\n");
        status = 2;
    }
    globfree (&found);
    return status;
}
