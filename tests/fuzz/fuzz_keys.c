/*  Fuzzes keys: files of any bytes, which the system gives in pieces, or not at all, and keys as text. Shows that a key
    is taken exactly where a second, plainer reader finds one, and that this one is got; that any failure has a reason,
    and the errno of that; that what zqkeygen writes is read back; and that no memory that is given back, and no stack
    that was used, still holds a secret.

        make fuzz FUZZ=fuzz_keys FUZZ_SECONDS=60

    Of the input, a byte each: when memory runs out (0 never); what is wrong with the file, and as bits above that: 32
    the stack is watched, 64 a peer has a public key of its own, 128 a pair is written; how large the pieces are; how
    often a signal comes meanwhile; how many blank lines are in front, in sixteens. The rest is the file. */

#include <stddef.h>

/* Whoever gives memory back has left nothing in it. */
static void *wiped_malloc (size_t size);
static void *wiped_realloc (void *old, size_t size);
static void wiped_free (void *memory);

#define ZQB_MALLOC(size) wiped_malloc (size)
#define ZQB_REALLOC(pointer, size) wiped_realloc (pointer, size)
#define ZQB_FREE(pointer) wiped_free (pointer)

#include "world.h"

static const char given_path[] = "file:key";

/* ---- memory that is watched */

enum { BLOCKS_MOST = 4 };

static struct {
    void *memory;
    size_t size;
} blocks[BLOCKS_MOST];

static size_t block_of (const void *memory)
{
    size_t i = 0;
    while (i < BLOCKS_MOST && blocks[i].memory != memory)
        i++;
    CHECK (i < BLOCKS_MOST, "what is given back was taken, and few blocks are in use");
    return i;
}

static void *wiped_malloc (size_t size)
{
    void *memory = world_malloc (size);
    if (memory) {
        size_t i = block_of (NULL);
        blocks[i].memory = memory;
        blocks[i].size = size;
    }
    return memory;
}

static void *wiped_realloc (UNUSED void *old, UNUSED size_t size)
{
    fuzz_broken ("a secret does not move: what it leaves behind could not be wiped");
    return NULL;
}

static void wiped_free (void *memory)
{
    if (!memory)
        return;
    size_t i = block_of (memory);
    for (size_t at = 0; at < blocks[i].size; at++)
        CHECK (!((const uint8_t *) memory)[at], "what is given back was wiped");
    blocks[i].memory = NULL;
    world_free (memory);
}

/* ---- the second reader: what a file says, from the manual */

/* The digits of Z85 (RFC 32), each at its value. */
static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/* Five digits are four bytes. */
static int judge_five (const uint8_t *text, uint8_t bytes[4])
{
    uint64_t value = 0;
    for (size_t i = 0; i < 5; i++) {
        size_t digit = 0;
        while (digit < 85 && digits[digit] != (char) text[i])
            digit++;
        if (digit == 85)
            return 0;
        value = value * 85 + digit;
    }
    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t) (value >> (24 - 8 * i));
    return value <= 0xffffffffu;
}

/* Whether a key is here, with this behind it. */
static int judge_key (const uint8_t *text, size_t left, uint8_t end, uint8_t key[32])
{
    if (left < 41 || text[40] != end)
        return 0;
    for (size_t i = 0; i < 8; i++)
        if (!judge_five (text + 5 * i, key + 4 * i))
            return 0;
    return 1;
}

static size_t judge_blanks (const uint8_t *line, size_t size, size_t at)
{
    while (at < size && (line[at] == ' ' || line[at] == '\t'))
        at++;
    return at;
}

/* Where in this line the text in quotes begins that has this name; 0: it has none. */
static size_t judge_line (const uint8_t *line, size_t size, const char *name)
{
    size_t at = judge_blanks (line, size, 0);
    for (; *name; name++, at++)
        if (at == size || line[at] != (uint8_t) *name)
            return 0;
    at = judge_blanks (line, size, at);
    if (at == size || line[at] != '=')
        return 0;
    at = judge_blanks (line, size, at + 1);
    return at < size && (line[at] == '"' || line[at] == '\'') ? at + 1 : 0;
}

/* The first line that names it tells; a file ends at a NUL. */
static int judge_file (const uint8_t *text, size_t size, int is_secret, uint8_t key[32])
{
    for (size_t from = 0, to; from < size && text[from]; from = to + 1) {
        for (to = from; to < size && text[to] && text[to] != '\n';)
            to++;
        size_t value = judge_line (text + from, to - from, is_secret ? "secret-key" : "public-key");
        if (value)
            return judge_key (text + from + value, to - from - value, text[from + value - 1], key);
        if (to < size && !text[to])
            break;
    }
    return 0;
}

/* ---- the file, and what may be wrong with it */

enum { FILE_MOST = 4095 };

enum {
    WRONG_NOTHING, WRONG_MISSING, WRONG_KIND, WRONG_OWNER, WRONG_WRITABLE, WRONG_READABLE, WRONG_LONGER, WRONG_SHORTER,
    WRONGS
};

static file_t file;
static unsigned wrong;

static void set_file (const uint8_t *bytes, size_t size)
{
    memset (&file, 0, sizeof file);
    file.bytes = bytes;
    file.size = size;
    file.told = wrong == WRONG_LONGER && size ? size - 1 : wrong == WRONG_SHORTER ? size + 1 : size;
    file.piece = SIZE_MAX;
    file.mode = wrong == WRONG_KIND       ? S_IFIFO | 0600u
                : wrong == WRONG_WRITABLE ? S_IFREG | 0620u
                : wrong == WRONG_READABLE ? S_IFREG | 0604u
                                          : S_IFREG | 0600u;
    file.owner = wrong == WRONG_OWNER ? geteuid () + 1 : geteuid ();
    file.error = wrong == WRONG_MISSING ? ENOENT : 0;
    world.file = &file;
}

/* What the manual says of a file with this wrong; 0: nothing. */
static int error_of_file (int is_secret)
{
    switch (wrong) {
        case WRONG_MISSING: return ENOENT;
        case WRONG_KIND: return EINVAL;
        case WRONG_OWNER:
        case WRONG_WRITABLE: return EPERM;
        case WRONG_READABLE: return is_secret ? EPERM : 0;
        case WRONG_LONGER: return file.size ? EAGAIN : 0;
        case WRONG_SHORTER: return EAGAIN;
        default: return 0;
    }
}

/* Whether a key can be had from the file. */
static int judge (int is_secret, uint8_t key[32])
{
    return !error_of_file (is_secret) && file.told <= FILE_MOST && judge_file (file.bytes, file.size, is_secret, key);
}

/* Several things may be wrong: each may be the reason. */
static int is_reason (int error, int is_secret)
{
    uint8_t key[32];
    return (error == error_of_file (is_secret) && error) || (error == EFBIG && file.told > FILE_MOST)
           || (error == EINVAL && !judge_file (file.bytes, file.size, is_secret, key));
}

/* ---- a stack of our own, to look at it afterwards */

enum { STACK = 1 << 17 };

static int stack_is_watched;
static unsigned char stack[STACK] __attribute__ ((aligned (4096)));

typedef struct reading_t { /* one call of zqb__key_read */
    const char *given;
    int is_secret, failed, error;
    uint8_t key[32];
} reading_t;

static void *read_given (void *arg)
{
    reading_t *reading = (reading_t *) arg;
    reading->failed = zqb__key_read (reading->given, reading->is_secret, reading->key);
    reading->error = errno;
    return NULL;
}

static int is_in_stack (const char text[41])
{
    const unsigned char *at = stack, *end = stack + sizeof stack - 40;
    while ((at = (const unsigned char *) memchr (at, *text, (size_t) (end - at))) != NULL && memcmp (at, text, 40) != 0)
        at++;
    return at != NULL;
}

/* Reads again what is a secret key. Only our own code runs there, and what it calls of libzmq keeps no copies. */
static void check_stack (reading_t *reading, const char text[41])
{
    pthread_attr_t attributes;
    pthread_t thread;
    unsigned fails = world.memory_fails;
    world.memory_fails = 0;
    memset (stack, 0xa5, sizeof stack);
    CHECK (pthread_attr_init (&attributes) == 0 && pthread_attr_setstack (&attributes, stack, sizeof stack) == 0
               && pthread_create (&thread, &attributes, read_given, reading) == 0 && pthread_join (thread, NULL) == 0,
           "there can be a thread");
    pthread_attr_destroy (&attributes);
    CHECK (reading->failed == 0, "a file says the same when read again");
    CHECK (!is_in_stack (text), "no secret is left on the stack");
    world.memory_fails = fails;
}

/* ---- what is asked */

/* Returns whether there was a key. */
static int read_file (int is_secret)
{
    reading_t reading = {given_path, is_secret, 0, 0, {0}};
    uint8_t key[32];
    char text[41];
    unsigned failed_before = world.failed;
    int expected = judge (is_secret, key);
    read_given (&reading);
    int no_memory = world.failed > failed_before;
    CHECK ((reading.failed == 0) == (expected && !no_memory), "two readers agree");
    CHECK (file.opened == 0, "who opens a file closes it");
    CHECK (!reading.failed || (no_memory && reading.error == ENOMEM) || is_reason (reading.error, is_secret),
           "why there is no key is told");
    CHECK (reading.failed || memcmp (reading.key, key, 32) == 0, "two readers find the same key");
    if (!reading.failed && is_secret && stack_is_watched && zmq_z85_encode (text, key, 32))
        check_stack (&reading, text);
    return reading.failed == 0;
}

/* A key that is given as it is. */
static void read_text (const uint8_t *bytes, size_t size)
{
    uint8_t key[32];
    const uint8_t *end = (const uint8_t *) memchr (bytes, 0, size);
    size = end ? (size_t) (end - bytes) : size;
    char *text = (char *) fuzz_must (malloc (size + 1)); /* of the exact size, for the sanitizer */
    memcpy (text, bytes, size);
    text[size] = 0;
    reading_t reading = {text, 0, 0, 0, {0}};
    if (strncmp (text, "file:", 5) != 0) {
        read_given (&reading);
        CHECK ((reading.failed == 0) == judge_key ((const uint8_t *) text, size + 1, 0, key), "two readers agree");
        CHECK (reading.failed ? reading.error == EINVAL : memcmp (reading.key, key, 32) == 0,
               "what is given is a key, and this one, or EINVAL");
    }
    free (text);
}

/* Whether this is the pair that belongs to a secret key. */
static int is_pair (const uint8_t public_key[32], const uint8_t secret_key[32])
{
    char secret_text[41], public_text[41], expected[41];
    return zmq_z85_encode (secret_text, secret_key, 32) && zmq_curve_public (expected, secret_text) == 0
           && zmq_z85_encode (public_text, public_key, 32) && strcmp (public_text, expected) == 0;
}

/* All that a peer has of the file, or nothing; without a public key of its own that follows from the secret one. */
static void read_peer (const char *own_public)
{
    zqb__keys_t *keys = NULL;
    uint8_t public_key[32], secret_key[32];
    unsigned failed_before = world.failed;
    int expected = judge (0, public_key) && judge (1, secret_key);
    int failed = zqb__keys_of_peer (&keys, given_path, own_public, given_path, NULL, NULL);
    CHECK ((failed == 0) == (keys != NULL), "there are keys or a failure");
    CHECK ((failed == 0) == (expected && world.failed == failed_before), "a peer has all of it or nothing");
    if (keys) {
        CHECK (memcmp (keys->server_public, public_key, 32) == 0 && memcmp (keys->secret_key, secret_key, 32) == 0,
               "they are those of the file");
        CHECK (own_public ? memcmp (keys->public_key, public_key, 32) == 0 : is_pair (keys->public_key, secret_key),
               "and so is its public one");
    }
    zqb__keys_free (&keys);
}

static void read_broker (void)
{
    zqb__keys_t *keys = NULL;
    zqb_broker_options_t options;
    uint8_t secret_key[32];
    unsigned failed_before = world.failed;
    int expected = judge (1, secret_key);
    memset (&options, 0, sizeof options);
    options.server_secret = given_path;
    int failed = zqb__keys_of_broker (&keys, &options);
    CHECK ((failed == 0) == (expected && world.failed == failed_before), "a broker has it or nothing");
    CHECK (!keys || memcmp (keys->secret_key, secret_key, 32) == 0, "it is that of the file");
    zqb__keys_free (&keys);
}

/* ---- what zqkeygen writes: its own code, but what it calls of the system */

static struct {
    char text[1024];
    size_t size;
    mode_t mode;
} written[2];

static int written_count;

static const uint8_t *pair_of; /* the secret key of the pair that is made; NULL: any */

static int written_pair (char public_key[41], char secret_key[41])
{
    if (!pair_of)
        return zqb_curve_keypair (public_key, secret_key);
    return zmq_z85_encode (secret_key, pair_of, 32) ? zmq_curve_public (public_key, secret_key) : -1;
}

static int written_open (mode_t mode)
{
    CHECK (written_count < 2, "there are two files");
    written[written_count % 2].mode = mode;
    return written_count++;
}

/* Takes less than it is given, as a system may. */
static ssize_t written_add (int which, const char *text, size_t size)
{
    char *to = written[which % 2].text + written[which % 2].size;
    size = size > 50 ? 50 : size;
    CHECK (which == written_count - 1 && written[which % 2].size + size <= sizeof written->text, "a file is small");
    memcpy (to, text, size);
    written[which % 2].size += size;
    return (ssize_t) size;
}

static int written_failed (void)
{
    fuzz_broken ("a file that is written is not taken away");
    return -1;
}

#undef open
#undef close
#undef write
#define open(path, flags, mode) ((void) (path), written_open (mode))
#define close(which) ((void) (which), 0)
#define write(which, text, size) written_add (which, text, size)
#define fsync(which) ((void) (which), 0)
#define unlink(path) ((void) (path), written_failed ())
#define printf(...) ((void) 0)
#define zqb_curve_keypair(public_key, secret_key) written_pair (public_key, secret_key)
#define main zqkeygen_main
#include "examples/zqkeygen.c"

/* What was written as this file has that key. */
static void read_back (int which, int is_secret, const char expected[41])
{
    uint8_t key[32];
    char text[41];
    set_file ((const uint8_t *) written[which].text, written[which].size);
    file.mode = S_IFREG | written[which].mode;
    CHECK (read_file (is_secret), "what zqkeygen writes can be read");
    CHECK (judge (is_secret, key) && zmq_z85_encode (text, key, 32) && (!expected || strcmp (text, expected) == 0),
           "and is what it was");
}

static void write_pair (const uint8_t *bytes, size_t size)
{
    uint8_t secret[32] = {0};
    char public_text[41], secret_text[41];
    memcpy (secret, bytes, size < 32 ? size : 32);
    memset (written, 0, sizeof written);
    written_count = 0;
    pair_of = size ? secret : NULL;
    CHECK (make_pair ("pair") == 0 && written_count == 2, "there are a public and a secret file");
    CHECK (!pair_of || written_pair (public_text, secret_text) == 0, "the same pair can be made again");
    read_back (0, 0, pair_of ? public_text : NULL);
    read_back (1, 0, pair_of ? public_text : NULL);
    read_back (1, 1, pair_of ? secret_text : NULL);
}

/* ---- the input */

/* So many blank lines, and the rest of the script. */
static uint8_t *padded (script_t script, size_t lines, size_t *size)
{
    *size = lines + script.left;
    uint8_t *text = (uint8_t *) fuzz_must (malloc (*size ? *size : 1));
    memset (text, '\n', lines);
    memcpy (text + lines, script.at, script.left);
    return text;
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    script_t script = {data, size};
    world_begin ();
    unsigned fails = script_byte (&script), how = script_byte (&script), piece = script_byte (&script);
    world.interrupts = script_byte (&script) % 16;
    size_t text_size, lines = 16u * script_byte (&script);
    uint8_t *text = padded (script, lines, &text_size);
    read_text (script.at, script.left);
    wrong = how % WRONGS;
    stack_is_watched = how & 32;
    set_file (text, text_size);
    file.piece = piece ? piece : SIZE_MAX;
    world.memory_holds = fails ? fails - 1 : 0;
    world.memory_fails = fails ? 1 : 0;
    read_file (0);
    read_file (1);
    if (zmq_has ("curve")) {
        read_peer (how & 64 ? given_path : NULL);
        read_broker ();
        wrong = WRONG_NOTHING;
        world.memory_fails = 0;
        if (how & 128)
            write_pair (script.at, script.left);
    }
    free (text);
    world_end ();
    return 0;
}
