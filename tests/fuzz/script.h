/*  What the fuzzers read: a script, from any bytes. It is a list of steps, each one byte of length and so many bytes; so the
    mutator (mutate.c) can move whole steps about, and no byte that is lost shifts the meaning of all behind it. A step of
    what a peer sends has frames in the small language below: words of the protocols, names, tokens that were heard before,
    ZQB/1 messages made of commands, well-formed or not quite, and any bytes. Included before zqbroker.h. */

#ifndef FUZZ_SCRIPT_H
#define FUZZ_SCRIPT_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define UNUSED __attribute__ ((unused))
#define COUNT(array) (sizeof (array) / sizeof (array)[0])

/* A promise is broken: the end of the process, which the fuzzer reports. */
UNUSED static void fuzz_broken (const char *promise)
{
    fprintf (stderr, "fuzz: broken: %s\n", promise);
    abort ();
}

#ifdef FUZZ_COVERAGE /* only what is reached counts there, and a crash would tell nothing */
#define CHECK(holds, promise) ((void) (holds))
#else
#define CHECK(holds, promise) ((holds) ? (void) 0 : fuzz_broken (promise))
#endif

/* ---- bytes: at the end there are zeros */

typedef struct script_t {
    const uint8_t *at;
    size_t left;
} script_t;

static unsigned script_byte (script_t *script)
{
    if (!script->left)
        return 0;
    script->left--;
    return *script->at++;
}

static unsigned script_number (script_t *script)
{
    unsigned high = script_byte (script);
    return high << 8 | script_byte (script);
}

/* The next so many bytes, or as many as there are. */
static script_t script_part (script_t *script, size_t size)
{
    script_t part = *script;
    part.left = size < script->left ? size : script->left;
    script->at += part.left;
    script->left -= part.left;
    return part;
}

UNUSED static int script_step (script_t *script, script_t *step)
{
    if (!script->left)
        return 0;
    size_t size = script_byte (script);
    *step = script_part (script, size);
    return 1;
}

/* ---- frames: each byte of one lies in memory of its exact size, so that a sanitizer sees who reads beyond it */

typedef struct frames_t {
    zmq_msg_t *at;
    size_t count, capacity;
} frames_t;

static int64_t frames_alive; /* with bytes of ours */

static void *fuzz_must (void *memory)
{
    if (!memory)
        abort (); /* our own */
    return memory;
}

static void frames_let_go (void *data, UNUSED void *hint)
{
    free (data);
    frames_alive--;
}

/* A new one behind the others, not yet initialised. */
static zmq_msg_t *frames_room (frames_t *frames)
{
    if (frames->count == frames->capacity) {
        frames->capacity = frames->capacity ? 2 * frames->capacity : 8;
        frames->at = (zmq_msg_t *) fuzz_must (realloc (frames->at, frames->capacity * sizeof *frames->at));
    }
    return &frames->at[frames->count++];
}

/* Adds a frame of this size, whose bytes the caller fills. */
static uint8_t *frames_add_size (frames_t *frames, size_t size)
{
    uint8_t *bytes = (uint8_t *) fuzz_must (malloc (size ? size : 1));
    if (zmq_msg_init_data (frames_room (frames), bytes, size, frames_let_go, NULL) != 0)
        abort ();
    frames_alive++;
    return bytes;
}

static void frames_add (frames_t *frames, const void *bytes, size_t size)
{
    uint8_t *at = frames_add_size (frames, size);
    if (size)
        memcpy (at, bytes, size);
}

static void frames_close (frames_t *frames)
{
    while (frames->count)
        zmq_msg_close (&frames->at[--frames->count]);
    free (frames->at);
    memset (frames, 0, sizeof *frames);
}

/* ---- what was heard before, to be said again */

enum { HEARD = 16 };

typedef struct heard_t {
    uint64_t tokens[HEARD]; /* or ids */
    unsigned count;
} heard_t;

UNUSED static void heard_add (heard_t *heard, uint64_t token)
{
    heard->tokens[heard->count++ % HEARD] = token;
}

/* Who is going to say the frames: what it knows. */
typedef struct speaker_t {
    uint64_t life;
    const heard_t *own, *all;
} speaker_t;

/* 0 is the last that the speaker heard, and so on back; 32 and more are what others heard, 64 and more are forged. */
static uint64_t speaker_token (const speaker_t *speaker, unsigned which)
{
    const heard_t *heard = which < 32 ? speaker->own : speaker->all;
    if (which >= 64 || !heard || !heard->count)
        return which;
    return heard->tokens[(heard->count - 1 - which % HEARD) % HEARD];
}

/* ---- the language of frames */

static const char *const script_words[] = {
    "MDPC01", "MDPW01", "MDPC02", "MDPW02", "\1", "\2", "\3", "\4", "\5", "\6", "READY", "REQUEST", "REPLY",
    "HEARTBEAT", "DISCONNECT", "PARTIAL", "ERROR", "echo", "other", "local", "lru", "mmi.service", "mmi.services",
    "mmi.workers", "mmi.stats", "mmi.none", "ZQB\1", "x", "MDPC03", "MDPW0", "hello, world", "e*", "echo*", "*", "other*"};

enum { /* above the words, which are 1 and more; 0 is an empty frame */
    FRAME_TOKEN = 0x40, /* which */
    FRAME_BYTES,        /* length, bytes */
    FRAME_FILL,         /* size (2 bytes; above 4096 a sixteenth of it, above 65000 five times that), value */
    FRAME_ZQB1,         /* commands, see script_zqb1 */
    FRAME_ZQB1_BYTES,   /* a header, and then: length, bytes */
    FRAME_NAME,         /* size (1 to 256), value */
    FRAME_MANY,         /* that number of frames, with one byte each */
    FRAME_KINDS_END
};

enum { /* what a command of ZQB/1 has, as bits */
    HAS_SERVICE = 1, HAS_CREDIT = 2, HAS_STATUS = 4, HAS_TEXT = 8, HAS_UNKNOWN = 16, HAS_BODY = 32, HAS_HEARTBEAT = 64,
    IS_DISTORTED = 128
};

enum { IS_RARE = 0x40 }; /* in its type: it also has some of these, as bits of a number */

enum { /* those that few commands have, in the order of their tags */
    RARE_PRIORITY = 1, RARE_DEADLINE = 2, RARE_DELAY = 4, RARE_ATTEMPTS = 8, RARE_BACKOFF = 16, RARE_UNIQUE = 32,
    RARE_AFFINITY = 64, RARE_PROGRESS = 128, RARE_CODE = 256, RARE_ALL = 511, RARE_WRONG = 0x8000 /* one has another size */
};

enum { /* what is wrong with it */
    DISTORT_LONGER, DISTORT_SHORTER, DISTORT_HUGE, DISTORT_FIELDS, DISTORT_LARGE_MISSING, DISTORT_LARGE_MORE,
    DISTORT_LAST_BYTE, DISTORT_TINY, DISTORTIONS
};

enum { SCRIPT_ZQB1_MOST = 16384 };

typedef struct message_t { /* a first frame that is being made, and the large ones behind it */
    uint8_t bytes[SCRIPT_ZQB1_MOST];
    size_t size;
    unsigned large[64];
    size_t large_count;
} message_t;

static void message_put (message_t *message, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0 && message->size < SCRIPT_ZQB1_MOST; i--)
        message->bytes[message->size++] = (uint8_t) (value >> 8 * i);
}

static void message_put_many (message_t *message, unsigned value, size_t size)
{
    while (size-- && message->size < SCRIPT_ZQB1_MOST)
        message->bytes[message->size++] = (uint8_t) value;
}

static void message_put_field (message_t *message, unsigned tag, const char *text, size_t size)
{
    message_put (message, tag, 1);
    message_put (message, size, 1);
    for (size_t i = 0; i < size; i++)
        message_put (message, (uint8_t) text[i], 1);
}

static void script_fields (script_t *script, message_t *message, unsigned has)
{
    if (has & HAS_SERVICE) {
        const char *name = script_words[script_byte (script) % COUNT (script_words)];
        message_put_field (message, 1, name, strlen (name));
    }
    if (has & HAS_CREDIT)
        message_put (message, 2u << 24 | 2u << 16 | script_number (script), 4);
    if (has & HAS_STATUS)
        message_put (message, 3u << 24 | 2u << 16 | script_byte (script), 4);
    if (has & HAS_TEXT) {
        size_t size = script_byte (script);
        message_put (message, 4u << 8 | size, 2);
        message_put_many (message, 't', size);
    }
    if (has & HAS_HEARTBEAT) {
        message_put (message, 5u << 8 | 4u, 2);
        message_put (message, script_number (script), 4);
    }
    if (has & HAS_UNKNOWN) {
        unsigned tag = script_byte (script);
        message_put_field (message, tag, "unknown", script_byte (script) % 8);
    }
}

/* A key: one of few, or the longest. */
static void script_key (script_t *script, message_t *message, unsigned tag)
{
    unsigned which = script_byte (script), size = which > 250 ? 255 : 1 + which / 4 % 4;
    message_put (message, tag, 1);
    message_put (message, size, 1);
    message_put_many (message, 'k' + which % 4, size);
}

/* Those that few commands have: which, and the values; of some a byte is missing or too many. */
static void script_rare (script_t *script, message_t *message)
{
    unsigned has = script_number (script);
    if (has & RARE_PRIORITY)
        message_put (message, 6u << 16 | 1u << 8 | script_byte (script), 3);
    if (has & RARE_DEADLINE)
        message_put (message, 7ull << 40 | 4ull << 32 | script_number (script), 6);
    if (has & RARE_DELAY)
        message_put (message, 8ull << 40 | 4ull << 32 | script_number (script), 6);
    if (has & RARE_ATTEMPTS) {
        unsigned attempts = script_byte (script);
        message_put (message, 9u << 24 | 2u << 16 | (attempts == 255 ? 65535 : attempts), 4);
    }
    if (has & RARE_BACKOFF) {
        message_put (message, 10ull << 40 | 8ull << 32 | script_number (script), 6);
        message_put (message, script_number (script), 4);
    }
    if (has & RARE_UNIQUE)
        script_key (script, message, 11);
    if (has & RARE_AFFINITY)
        script_key (script, message, 12);
    if (has & RARE_PROGRESS) {
        message_put (message, 13u << 8 | 16u, 2);
        message_put (message, script_byte (script), 8);
        message_put (message, script_byte (script), 8);
    }
    if (has & RARE_CODE)
        message_put (message, 14ull << 40 | 4ull << 32 | script_number (script), 6);
    if (has & RARE_WRONG)
        message_put_field (message, 6 + script_byte (script) % 9, "wrong size, wrong", script_byte (script) % 18);
}

/* A body: how many frames, and of each a byte: up to 127 the size of a small one, 128 and more of a large one. */
static void script_body (script_t *script, message_t *message)
{
    unsigned count = script_byte (script) % 16;
    for (unsigned i = 0; i < count; i++) {
        unsigned size = script_byte (script);
        int large = size >= 128 && message->large_count < COUNT (message->large);
        if (large) {
            size = size == 255 ? 5 : 1025 + (size - 128) * 64;
            message->large[message->large_count++] = size;
            message_put (message, size | 0x80000000u, 4);
        } else {
            message_put (message, size, 4);
            message_put_many (message, 'a' + i, size);
        }
    }
}

static void message_set (message_t *message, size_t at, uint64_t value, int bytes)
{
    size_t size = message->size;
    message->size = at;
    message_put (message, value, bytes);
    message->size = size;
}

static void message_distort (message_t *message, size_t start, unsigned how, uint64_t fields)
{
    uint64_t size = message->size - start;
    switch (how % DISTORTIONS) {
        case DISTORT_LONGER: message_set (message, start, size + 1, 4); break;
        case DISTORT_SHORTER: message_set (message, start, size - 1, 4); break;
        case DISTORT_HUGE: message_set (message, start, 0xffffffffu, 4); break;
        case DISTORT_FIELDS: message_set (message, start + 6, fields + how / DISTORTIONS, 2); break;
        case DISTORT_LARGE_MISSING: message->large_count -= message->large_count != 0; break;
        case DISTORT_LARGE_MORE:
            if (message->large_count < COUNT (message->large))
                message->large[message->large_count++] = how;
            break;
        case DISTORT_LAST_BYTE: message->size -= message->size > start + 16; break;
        default: message_set (message, start, how / DISTORTIONS, 4); break;
    }
}

/* A command: what it has, its type, flags, which id, fields, those that few have, body, what is wrong with it. */
static void script_command (script_t *script, message_t *message, const speaker_t *speaker)
{
    size_t start = message->size;
    if (start + 16 > SCRIPT_ZQB1_MOST)
        return;
    unsigned has = script_byte (script);
    unsigned type = script_byte (script), rare = type < 128 && (type & IS_RARE);
    message_put (message, 0, 4);
    message_put (message, rare ? type & ~(unsigned) IS_RARE : type, 1);
    message_put (message, script_byte (script), 1);
    message_put (message, 0, 2);
    message_put (message, speaker_token (speaker, script_byte (script)), 8);
    script_fields (script, message, has);
    if (rare)
        script_rare (script, message);
    size_t fields = message->size - start - 16;
    message_set (message, start + 6, fields, 2);
    if (has & HAS_BODY)
        script_body (script, message);
    message_set (message, start, message->size - start, 4);
    if (has & IS_DISTORTED)
        message_distort (message, start, script_byte (script), fields);
}

static void message_head (message_t *message, const speaker_t *speaker, unsigned other_life)
{
    message->size = message->large_count = 0;
    message_put (message, 0x5a514201u, 4);
    message_put (message, speaker->life + other_life, 8);
}

/* A message of ZQB/1: which life, how many commands, the commands. */
static void script_zqb1 (script_t *script, frames_t *frames, const speaker_t *speaker)
{
    static message_t message;
    message_head (&message, speaker, script_byte (script));
    unsigned count = script_byte (script) % 16;
    for (unsigned i = 0; i < count; i++)
        script_command (script, &message, speaker);
    frames_add (frames, message.bytes, message.size);
    for (size_t i = 0; i < message.large_count; i++)
        memset (frames_add_size (frames, message.large[i]), 'L', message.large[i]);
}

static void script_zqb1_bytes (script_t *script, frames_t *frames, const speaker_t *speaker)
{
    static message_t message;
    message_head (&message, speaker, script_byte (script));
    script_t rest = script_part (script, script_byte (script));
    while (rest.left)
        message_put (&message, script_byte (&rest), 1);
    frames_add (frames, message.bytes, message.size);
}

static void script_token (script_t *script, frames_t *frames, const speaker_t *speaker)
{
    uint64_t token = speaker_token (speaker, script_byte (script));
    uint8_t *at = frames_add_size (frames, 8);
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t) (token >> 8 * (7 - i));
}

static void script_fill (script_t *script, frames_t *frames, size_t size)
{
    memset (frames_add_size (frames, size), (int) script_byte (script), size);
}

static void script_frame (script_t *script, frames_t *frames, const speaker_t *speaker)
{
    unsigned kind = script_byte (script);
    script_t part;
    size_t size;
    switch (kind < FRAME_KINDS_END ? kind : kind % FRAME_KINDS_END) {
        case 0: frames_add (frames, NULL, 0); break;
        case FRAME_TOKEN: script_token (script, frames, speaker); break;
        case FRAME_BYTES:
            part = script_part (script, script_byte (script));
            frames_add (frames, part.at, part.left);
            break;
        case FRAME_FILL:
            size = script_number (script);
            script_fill (script, frames, size > 65000 ? size * 5 : size > 4096 ? size / 16 : size);
            break;
        case FRAME_ZQB1: script_zqb1 (script, frames, speaker); break;
        case FRAME_ZQB1_BYTES: script_zqb1_bytes (script, frames, speaker); break;
        case FRAME_NAME: script_fill (script, frames, script_byte (script) + 1u); break;
        case FRAME_MANY:
            for (size = script_byte (script); size; size--)
                script_frame (&(script_t) {(const uint8_t *) "\34", 1}, frames, speaker);
            break;
        default: {
            const char *word = script_words[(kind - 1) % COUNT (script_words)];
            frames_add (frames, word, strlen (word));
        }
    }
}

/* The rest of a step as frames. */
static void script_frames (script_t *script, frames_t *frames, const speaker_t *speaker)
{
    while (script->left && frames->count < 600)
        script_frame (script, frames, speaker);
}

#endif
