/*  The simulator: the engine of zqbroker.h among peers of every dialect that behave, misbehave, vanish and come back,
    on a clock that we move, all of it from one seed. Beside it runs a model (model.h), and both must agree on everything
    that is said and counted. Every so often the whole structure is walked over (walk.h). A ledger, which knows neither,
    follows each request by its body: who sent it, who got the reply, in which order the first attempts were made.

    In half of the seeds peers are users, each of which has several, and who come back as themselves or as others; there
    are rules (rules.h), which change, and limits of users and clients; and the host has its own mind about both.

    In one seed of eight allocations fail at random. The model does not know where, so there only the ledger, the
    counters and the structure are checked; and in all, that nothing is left allocated at the end. */

#define _POSIX_C_SOURCE 200809L /* before any system header, for the implementation */

#include "sim.h"
#include "model.h"

#include <stddef.h>
#include <stdlib.h>

static void *sim_malloc (size_t size);
static void *sim_realloc (void *pointer, size_t size);
static void sim_free (void *pointer);

#define ZQB_MALLOC(size) sim_malloc (size)
#define ZQB_REALLOC(pointer, size) sim_realloc (pointer, size)
#define ZQB_FREE(pointer) sim_free (pointer)
#define ZQBROKER_STATIC
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"

#include "walk.h"

/* ---- chance: splitmix64 (Vigna) */

typedef struct chance_t {
    uint64_t state;
} chance_t;

static uint64_t chance_draw (chance_t *chance)
{
    uint64_t z = chance->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t chance_below (chance_t *chance, uint32_t limit)
{
    return (uint32_t) ((chance_draw (chance) >> 32) * limit >> 32);
}

static int chance_one_in (chance_t *chance, uint32_t many)
{
    return chance_below (chance, many) == 0;
}

#include "rules.h"

/* ---- memory: counted, failing at random if a seed wants that, and spoilt when it is freed. What grows always moves. */

static struct {
    int64_t alive;
    uint32_t fails_one_in; /* 0: never */
    uint64_t failed;
    chance_t chance;
} memory;

typedef union memory_head_t {
    size_t size;
    char aligned[16];
} memory_head_t;

static void *sim_malloc (size_t size)
{
    if (memory.fails_one_in && chance_one_in (&memory.chance, memory.fails_one_in)) {
        memory.failed++;
        return NULL;
    }
    memory_head_t *head = (memory_head_t *) malloc (sizeof *head + size);
    if (!head)
        return NULL;
    head->size = size;
    memory.alive++;
    return head + 1;
}

static void sim_free (void *pointer)
{
    memory_head_t *head = pointer ? (memory_head_t *) pointer - 1 : NULL;
    if (!head)
        return;
    memset (pointer, 0xdd, head->size < 512 ? head->size : 512);
    memory.alive--;
    free (head);
}

static void *sim_realloc (void *pointer, size_t size)
{
    memory_head_t *head = pointer ? (memory_head_t *) pointer - 1 : NULL;
    void *moved = sim_malloc (size);
    if (moved && head)
        memcpy (moved, pointer, head->size < size ? head->size : size);
    if (moved)
        sim_free (pointer);
    return moved;
}

/* ---- the world */

enum { VERSIONS = 4, RECENT = 8, PAST = 64, FRAMES_MOST = 16, BLOCK_SIZE = 8192, PATTERN_SIZE = 2000000 };
enum { STUBBORN = 32 };

typedef struct holding_t {
    uint64_t token, number;
    int packed; /* and not sent yet: he does not know of it */
} holding_t;

/* The latest of the requests that are served in order. */
typedef struct latest_t {
    int service, priority, affinity; /* those of which */
    const zqb__peer_t *peer;
    uint64_t arrived;
} latest_t;

/* Somebody at the other end. What he believes may be wrong. */
typedef struct actor_t {
    int client, worker; /* dialects; -1 is none */
    int port;
    int fixed; /* keeps his address over connections */
    int moved; /* had another address in this life */
    uint64_t life;
    uint32_t version; /* of his address */
    uint32_t line, line_version;
    int down; /* SENT, UNREACHABLE or NOT_READ */
    holding_t *held;
    size_t held_count, held_capacity;
    int forgot; /* the engine may think that he holds more than he knows of */
    uint64_t next_id;
    int person, former_person; /* who he is, and was at the address before */
    uint32_t spoke_version;    /* of the address from which he last spoke, and one */
    latest_t latest[SERVICES_MOST]; /* of his requests that were tried, and asked for nothing */
    latest_t *later; /* of those that did */
    size_t later_count, later_capacity;
    uint32_t drained; /* from which address, and one, it was told that it gets no more; 0: it was not */
    int is_another; /* program than before, which has not spoken */
    int is_new;  /* the engine may not know that it was restarted */
    struct {
        uint64_t id, number;
    } recent[RECENT];
} actor_t;

/* A connection, which several actors behind a proxy share. Numbers are given out again, like those of files. */
typedef struct line_t {
    int connection; /* -1: down */
    int port;
    int place; /* where its other end is */
    uint32_t version;
} line_t;

/* What is known of a request by looking on. */
typedef struct entry_t {
    uint32_t actor;
    int service, tries, attempts, ended;
    int twice; /* there may be two of it, and nothing can be said */
    int parts; /* how many there were for the client */
    int denied; /* when the rules changed: it may run on for nobody */
    asked_t asked;
    int person;              /* whose it is */
    const zqb__peer_t *peer; /* who he was for the engine */
    uint64_t arrived;
} entry_t;

enum { PACKS = 1, CROWD = 2, CHAMELEONS = 4, FAILS = 8, MMI = 16, FULL = 32 };

/* What requests, workers and the host may ask for besides. A seed has none, some or all of them; what they draw they
   draw from a chance of their own, so that all else happens as it does without. */
enum {
    PRIORITIES = 1, AGEING = 2, DEADLINES = 4, DELAYS = 8, ATTEMPTS = 16, BACKOFF = 32, UNIQUE = 64, ONE_WAY = 128,
    FAIL_FAST = 256, AFFINITY = 512, REFUSALS = 1024, PROGRESSES = 2048, WINDOWS = 4096, SURVEYS = 8192, DRAINS = 16384,
    PATTERNS = 32768, POLICIES = 65536, FILTERS = 131072, OUTCOMES = 262144, RESTS = 524288, SCALES = 1048576,
    MISSES = 2097152, ALL_FEATURES = 4194303
};

/* Who peers are, and what they may. These have a chance of their own as well. */
enum { USERS = 4194304, RULES = 8388608, ACCESS = 16777216, WELCOME = 33554432, SHARES = 67108864 };
enum { CHANGES = RULES | ACCESS | WELCOME };
enum { RULES_SIZE = 65536 };

typedef struct sim_t {
    const sim_options_t *options;
    sim_progress_t *progress;
    chance_t chance, more, people;
    zqb__engine_t engine;
    model_t *model; /* NULL: not in this seed */
    int traits;     /* PACKS ... */
    uint32_t features; /* PRIORITIES ... */
    uint32_t rarity;   /* of the events of these */
    uint32_t changes;  /* the rules change once in so many events */
    uint32_t user_count;
    int speaks;        /* who sends the message at hand */
    host_t host;
    char rules_text[RULES_SIZE];
    uint32_t patience; /* of workers that may refuse a request: one in so many does what it can */
    zqb__limits_t limits;
    uint64_t now;
    actor_t *actors;
    uint32_t actor_count, line_count, proxy_count, service_count;
    line_t *lines;
    unsigned char *connection_used;
    line_t *gone; /* connections whose end is not told yet */
    size_t gone_count;
    unsigned char events[256]; /* which one a number stands for */
    uint32_t pace, trouble, handlers; /* how much time goes by; how rare the odd things are */
    char names[SERVICES_MOST][256];
    uint8_t name_sizes[SERVICES_MOST];
    output_t *outputs;
    size_t output_count, output_capacity;
    entry_t *entries;
    size_t entry_count, entry_capacity;
    uint64_t arrivals;
    uint64_t outcomes; /* of requests, that the host was told */
    holding_t past[PAST];
    uint32_t past_at;
    zqb__link_t dirty;
    unsigned char block[BLOCK_SIZE], served_block[BLOCK_SIZE];
    zmq_msg_t large[FRAMES_MOST];
    size_t large_count;
    char text[8], served_text[8];
    zqb__rare_t rare;
    unsigned char unique[256], affinity[256];
} sim_t;

static unsigned char pattern[PATTERN_SIZE]; /* large frames are pieces of it */
static int64_t large_alive;

static void say (const sim_t *sim, const char *format, ...)
{
    va_list args;
    if (!sim->options->verbose)
        return;
    va_start (args, format);
    vprintf (format, args);
    va_end (args);
    fflush (stdout); /* a crash must not take the last words with it */
}

/* Something does not hold. The first is kept. */
static void violated (sim_t *sim, const char *format, ...)
{
    va_list args;
    if (sim->progress->wrong[0])
        return;
    va_start (args, format);
    vsnprintf (sim->progress->wrong, sizeof sim->progress->wrong, format, args);
    va_end (args);
}

static uint32_t below (sim_t *sim, uint32_t limit)
{
    return chance_below (&sim->chance, limit);
}

static int one_in (sim_t *sim, uint32_t many)
{
    return chance_one_in (&sim->chance, many);
}

static int has (const sim_t *sim, uint32_t feature)
{
    return (sim->features & feature) != 0;
}

static uint32_t more_below (sim_t *sim, uint32_t limit)
{
    return chance_below (&sim->more, limit);
}

static int more_one_in (sim_t *sim, uint32_t many)
{
    return chance_one_in (&sim->more, many);
}

static uint32_t people_below (sim_t *sim, uint32_t limit)
{
    return chance_below (&sim->people, limit);
}

static int people_one_in (sim_t *sim, uint32_t many)
{
    return chance_one_in (&sim->people, many);
}

static uint64_t any_number (sim_t *sim)
{
    return chance_draw (&sim->chance);
}

static void *must (void *pointer)
{
    if (!pointer)
        abort (); /* our own memory */
    return pointer;
}

/* Room for one more; items double. */
static void *grown (void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 64;
    return must (realloc (items, *capacity * size));
}

/* ---- bodies: they are made from a value, and that is in the first eight bytes, to be known again */

#define IS_REPLY ((uint64_t) 1 << 63) /* to the request of that number */
#define IS_WRONG ((uint64_t) 1 << 62) /* nobody may ever get this */
#define NUMBER(value) ((value) & ANY_NUMBER)
#define ANY_NUMBER 0xffffffffffu

static body_t fold_frame (body_t body, const unsigned char *data, size_t size)
{
    uint64_t first = 0;
    memcpy (&first, data, size < 8 ? size : 8);
    first = (first ^ size * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    body.fold = body.fold * 0x100000001b3u + (first ^ first >> 32) + (size ? data[size - 1] : 0u);
    body.frames++;
    body.bytes += size + 4; /* as the limits count them */
    return body;
}

/* What a body is, and the value it was made from; 0 is none. */
static body_t look_at_body (const zqb__body_t *body, uint64_t *value)
{
    body_t seen = {0, 0, 0};
    zqb__cursor_t cursor = {0, 0};
    zqb__frame_t frame;
    *value = 0;
    while (zqb__body_next (body, &cursor, &frame) == 1) {
        if (seen.frames == 0 && frame.size >= 8)
            memcpy (value, frame.data, 8);
        seen = fold_frame (seen, frame.data, frame.size);
    }
    return seen;
}

static size_t draw_frame_size (chance_t *chance, size_t index)
{
    uint32_t kind = chance_below (chance, 64);
    if (kind < 48)
        return 8;
    if (kind < 60)
        return (index ? 0 : 8) + chance_below (chance, 24);
    return (index ? 0 : 8) + chance_below (chance, 300);
}

static void let_go_of_large (void *data, void *hint)
{
    (void) data, (void) hint;
    large_alive--;
}

static unsigned char *add_large (sim_t *sim, chance_t *chance, unsigned char *at)
{
    static const uint32_t sizes[] = {1000, 1000, 1000, 1000, 1000, 70000, 70000, PATTERN_SIZE - 10000};
    size_t size = ZQB__LARGE_FROM + chance_below (chance, sizes[chance_below (chance, 8)]);
    if (zmq_msg_init_data (&sim->large[sim->large_count], pattern + chance_below (chance, 5000), size,
                           let_go_of_large, NULL)
        != 0)
        abort ();
    large_alive++;
    sim->large_count++;
    zqb__put_32 (at, (uint32_t) size | ZQB__LARGE_BIT);
    return at + 4;
}

static unsigned char *add_small (chance_t *chance, size_t index, uint64_t value, unsigned char *at)
{
    size_t size = draw_frame_size (chance, index);
    zqb__put_32 (at, (uint32_t) size);
    memset (at + 4, (int) (value + index) & 0xff, size);
    if (index == 0)
        memcpy (at + 4, &value, 8);
    return at + 4 + size;
}

static size_t draw_frame_count (chance_t *chance, int may_be_empty)
{
    uint32_t kind = chance_below (chance, 64);
    if (kind == 0)
        return may_be_empty ? 0 : 1;
    return kind < 50 ? 1 : kind < 62 ? 2 + chance_below (chance, 2) : 1 + chance_below (chance, FRAMES_MOST);
}

/* The body that belongs to this value, which holds until the next is made. */
static zqb__body_t make_body (sim_t *sim, unsigned char *block, uint64_t value, int may_be_empty)
{
    chance_t chance = {value ^ sim->options->seed << 20};
    size_t count = draw_frame_count (&chance, may_be_empty);
    unsigned char *at = block;
    zqb__body_t body;
    sim->large_count = 0;
    for (size_t i = 0; i < count; i++)
        at = i && chance_one_in (&chance, 6) ? add_large (sim, &chance, at) : add_small (&chance, i, value, at);
    body.block = block;
    body.size = (size_t) (at - block);
    body.large = sim->large;
    body.large_count = sim->large_count;
    zqb__body_measure (&body);
    return body;
}

static void unmake_body (sim_t *sim)
{
    while (sim->large_count)
        zmq_msg_close (&sim->large[--sim->large_count]);
}

/* ---- the ledger */

static uint64_t open_entry (sim_t *sim, uint32_t actor, int service)
{
    sim->entries = (entry_t *) grown (sim->entries, sim->entry_count, &sim->entry_capacity, sizeof *sim->entries);
    entry_t *entry = &sim->entries[sim->entry_count];
    memset (entry, 0, sizeof *entry);
    entry->actor = actor;
    entry->service = service;
    return sim->entry_count++;
}

static entry_t *entry_of (sim_t *sim, uint64_t value)
{
    uint64_t number = NUMBER (value);
    return number && number < sim->entry_count && !sim->entries[number].twice ? &sim->entries[number] : NULL;
}

/* The request that a client numbers so, if it is one of his latest, or NULL. */
static entry_t *entry_of_id (sim_t *sim, const actor_t *actor, uint64_t id)
{
    return id && actor->recent[id % RECENT].id == id ? entry_of (sim, actor->recent[id % RECENT].number) : NULL;
}

/* What was tried last of the same service and priority, and for the same worker. */
static latest_t *latest_of (actor_t *actor, const entry_t *entry)
{
    const asked_t *asked = &entry->asked;
    if (!asked->priority && !asked->affinity)
        return &actor->latest[entry->service];
    for (size_t i = 0; i < actor->later_count; i++)
        if (actor->later[i].service == entry->service && actor->later[i].priority == asked->priority
            && actor->later[i].affinity == asked->affinity)
            return &actor->later[i];
    actor->later = (latest_t *) grown (actor->later, actor->later_count, &actor->later_capacity, sizeof *actor->later);
    latest_t *latest = &actor->later[actor->later_count++];
    memset (latest, 0, sizeof *latest);
    latest->service = entry->service;
    latest->priority = asked->priority;
    latest->affinity = asked->affinity;
    return latest;
}

/* Each of the peers that an actor was has turns of its own. */
static int is_behind_a_later_one (actor_t *actor, const entry_t *entry)
{
    latest_t *latest = latest_of (actor, entry);
    int behind = entry->peer == latest->peer && entry->arrived < latest->arrived;
    latest->peer = entry->peer;
    latest->arrived = entry->arrived;
    return behind;
}

/* What waits for its time, or for others, comes when it comes; and what is not wanted back may be nobody's. */
static int is_in_order (const entry_t *entry)
{
    return !entry->asked.delay_ms && !entry->asked.unique && !entry->asked.survey && !entry->asked.one_way;
}

static void count_attempt (sim_t *sim, uint64_t number, entry_t *entry)
{
    uint32_t own = entry->asked.attempts;
    int most = own == 0 ? sim->limits.attempts : own == ZQB__ATTEMPTS_ALL ? INT_MAX : (int) own;
    if (++entry->attempts > most && !entry->asked.survey)
        violated (sim, "request %llu was tried %d times", (unsigned long long) number, entry->tries);
}

/* A request went to a worker. First tries of one client for one service are in the order of arrival; whose turn it was
   is for the model to say. Who was joined by others may have its answer, and run on for them. */
static void note_try (sim_t *sim, uint64_t value)
{
    entry_t *entry = entry_of (sim, value);
    if (!entry)
        return;
    if (entry->ended && !entry->asked.unique)
        violated (sim, "request %llu runs, though it was answered", (unsigned long long) NUMBER (value));
    if (entry->tries++ == 0 && is_in_order (entry) && !has (sim, PATTERNS)) {
        if (is_behind_a_later_one (&sim->actors[entry->actor], entry))
            violated (sim, "request %llu was served behind a later one", (unsigned long long) NUMBER (value));
    }
    count_attempt (sim, NUMBER (value), entry);
}

static void check_survey (sim_t *sim, const entry_t *entry, const output_t *output)
{
    const progress_t *progress = &output->progress;
    if (!progress->has || progress->done > progress->total || progress->done != (uint64_t) entry->parts)
        violated (sim, "a survey has %d answers, and says %llu of %llu", entry->parts,
                  (unsigned long long) progress->done, (unsigned long long) progress->total);
}

/* A client that joined another is answered with what the worker said to that one. */
static void note_joint_reply (sim_t *sim, const entry_t *leader, const actor_t *actor, const output_t *output)
{
    entry_t *entry = entry_of_id (sim, actor, output->id);
    if (!entry)
        return;
    if (entry->asked.unique != leader->asked.unique || entry->service != leader->service)
        violated (sim, "a reply reached one who had not joined");
    if (entry->person != leader->person)
        violated (sim, "a reply reached another user");
    if (entry->ended)
        violated (sim, "request %llx of %u was answered twice", (unsigned long long) output->id,
                  (unsigned) (actor - sim->actors));
    entry->ended = output->type == REPLY;
}

/* A worker's answer to a survey, whether or not it reached the client. */
static void note_part (sim_t *sim, const actor_t *actor, const output_t *output)
{
    entry_t *entry = output->side == CLIENT && output->type == PARTIAL ? entry_of_id (sim, actor, output->id) : NULL;
    if (entry)
        entry->parts++;
}

/* A reply, or a part of one, went to a client. */
static void note_reply (sim_t *sim, uint64_t value, const actor_t *actor, const output_t *output)
{
    uint32_t number = (uint32_t) (actor - sim->actors);
    entry_t *entry = value ? entry_of (sim, value) : entry_of_id (sim, actor, output->id);
    if (value & IS_WRONG)
        violated (sim, "a stale or forged reply reached a client");
    if (!entry)
        return;
    if (value && entry->asked.unique) {
        note_joint_reply (sim, entry, actor, output);
        return;
    }
    if (entry->actor != number)
        violated (sim, "the reply to request %llu of %u reached %u", (unsigned long long) NUMBER (value),
                  (unsigned) entry->actor, (unsigned) number);
    if (entry->ended || entry->asked.one_way)
        violated (sim, "request %llu was answered %s", (unsigned long long) NUMBER (value),
                  entry->ended ? "twice" : "though it wants no answer");
    if (entry->asked.survey && output->type == REPLY)
        check_survey (sim, entry, output);
    entry->ended = output->type == REPLY;
}

/* A client heard that there will be no reply. */
static void note_error (sim_t *sim, const actor_t *actor, const output_t *output)
{
    entry_t *entry = entry_of_id (sim, actor, output->id);
    if (output->id == 0 && output->status != MALFORMED && !(sim->traits & CHAMELEONS))
        violated (sim, "%u heard of an error of a request without a number", (unsigned) (actor - sim->actors));
    if (!entry)
        return;
    if (entry->ended)
        violated (sim, "request %llu has two outcomes",
                  (unsigned long long) actor->recent[output->id % RECENT].number);
    entry->ended = 1;
    entry->denied = output->status == DENIED;
}

/* The host has changed what it asks for. */
static void note_filter (sim_t *sim, uint64_t value, const asked_t *changed)
{
    entry_t *entry = entry_of (sim, value);
    asked_t *asked = entry ? &entry->asked : NULL;
    if (!entry)
        return;
    asked->priority = changed->priority;
    asked->delay_ms = changed->delay_ms;
    asked->deadline_ms = changed->deadline_ms;
    asked->attempts = changed->attempts;
}

/* ---- actors */

static uint32_t actor_number (const sim_t *sim, const actor_t *actor)
{
    return (uint32_t) (actor - sim->actors);
}

static uint32_t address_of (const sim_t *sim, const actor_t *actor, uint32_t version)
{
    return version % VERSIONS * sim->actor_count + actor_number (sim, actor);
}

static actor_t *any_actor (sim_t *sim)
{
    return &sim->actors[below (sim, sim->actor_count)];
}

static void hold (sim_t *sim, actor_t *actor, uint64_t token, uint64_t value)
{
    actor->held = (holding_t *) grown (actor->held, actor->held_count, &actor->held_capacity, sizeof *actor->held);
    holding_t *held = &actor->held[actor->held_count++];
    held->token = token;
    held->number = NUMBER (value);
    held->packed = 0;
    sim->past[sim->past_at++ % PAST] = *held;
}

static int holds (const actor_t *actor, uint64_t token)
{
    for (size_t i = 0; i < actor->held_count; i++)
        if (actor->held[i].token == token)
            return 1;
    return 0;
}

static void let_go (actor_t *actor, size_t index)
{
    actor->held[index] = actor->held[--actor->held_count];
}

static void forget_held (actor_t *actor, int behind_our_back)
{
    actor->forgot |= behind_our_back;
    actor->held_count = 0;
}

/* He says that he has not begun with any of them, so none of these was an attempt. */
static void untry_held (sim_t *sim, const actor_t *actor)
{
    for (size_t i = 0; i < actor->held_count; i++) {
        entry_t *entry = entry_of (sim, actor->held[i].number);
        if (entry && entry->attempts > 0)
            entry->attempts--;
    }
}

/* ---- what requests ask for */

/* What goes by in the time of some hundred events, or of few; or never. */
static uint32_t draw_milliseconds (sim_t *sim)
{
    if (more_one_in (sim, 256))
        return UINT32_MAX - more_below (sim, 4);
    return 1 + more_below (sim, 1 + sim->pace / (more_one_in (sim, 2) ? 8 : 128)) + more_below (sim, 3);
}

static void draw_times_of_request (sim_t *sim, asked_t *asked)
{
    if (has (sim, DEADLINES) && more_one_in (sim, 3))
        asked->deadline_ms = draw_milliseconds (sim);
    if (has (sim, DELAYS) && more_one_in (sim, 4))
        asked->delay_ms = draw_milliseconds (sim);
    if (has (sim, ATTEMPTS) && more_one_in (sim, 3))
        asked->attempts = more_one_in (sim, 4) ? ZQB__ATTEMPTS_ALL : 1 + more_below (sim, 4);
    if (has (sim, BACKOFF) && more_one_in (sim, 3)) {
        asked->backoff_ms = draw_milliseconds (sim);
        asked->backoff_max_ms = more_one_in (sim, 2) ? 0 : draw_milliseconds (sim);
    }
}

/* ---- people */

static int number_of_user (const char *name, size_t size)
{
    for (int i = USERS_FROM; i < IN_PROCESS; i++)
        if (strlen (user_names[i]) == size && memcmp (user_names[i], name, size) == 0)
            return i;
    return size ? -1 : ANONYMOUS;
}

static int number_of_person (const char *name, int local)
{
    return local ? IN_PROCESS : number_of_user (name, strlen (name));
}

/* Who the engine takes somebody for. */
static int person_of (const zqb__peer_t *peer)
{
    return number_of_person (zqb__user_name (peer->user), peer->local);
}

static int draw_person (sim_t *sim)
{
    uint32_t kind = people_below (sim, 8);
    return kind == 0 ? (int) IN_PROCESS : kind == 1 ? (int) ANONYMOUS : (int) (1 + people_below (sim, sim->user_count));
}

/* He comes over another connection, or is another program: perhaps as somebody else. In crowds he is always the same,
   as the model does not know of whom the engine remembers nothing. */
static void change_person (sim_t *sim, actor_t *actor)
{
    actor->former_person = actor->person;
    if (has (sim, USERS) && !(sim->traits & CROWD) && people_one_in (sim, 6))
        actor->person = draw_person (sim);
}

/* Nothing reaches one user that was for another, as soon as he has spoken. */
static void check_person (sim_t *sim, const actor_t *actor, const zqb__peer_t *peer, const output_t *output)
{
    int spoke = actor->spoke_version == actor->version + 1 && !actor->is_another;
    if (spoke && output->address == address_of (sim, actor, actor->version) && person_of (peer) != actor->person)
        violated (sim, "%s for user %d reached user %d", command_names[output->type], person_of (peer), actor->person);
}

/* ---- the sink: what the engine says is written down, and told to whom it concerns */

static output_t *new_output (sim_t *sim)
{
    sim->outputs = (output_t *) grown (sim->outputs, sim->output_count, &sim->output_capacity, sizeof *sim->outputs);
    output_t *output = &sim->outputs[sim->output_count++];
    memset (output, 0, sizeof *output);
    return output;
}

/* Patterns end with an asterisk, and all others have digits there. */
static int number_of_name (const sim_t *sim, const void *name, size_t size)
{
    const char *text = (const char *) name;
    if (text[size - 1] != '*')
        return (text[4] - '0') * 10 + text[5] - '0';
    for (int i = PATTERNS_FROM; i < MMI_FROM; i++)
        if (sim->name_sizes[i] == size && memcmp (sim->names[i], name, size) == 0)
            return i;
    return -1;
}

static int service_number (const sim_t *sim, const zqb__command_t *command)
{
    return command->service_size ? number_of_name (sim, command->service, command->service_size) : -1;
}

static uint64_t text_number (const char *text, size_t size)
{
    uint64_t number = size ? TEXT_OF_BROKER : 0;
    if (size == sizeof number)
        memcpy (&number, text, size);
    return number;
}

static uint32_t peer_address (const zqb__peer_t *peer)
{
    uint32_t address;
    memcpy (&address, peer->address + 4, sizeof address);
    return address;
}

static void say_output (const sim_t *sim, const output_t *output, uint64_t value)
{
    static const char *const results[] = {"", ", unreachable", ", not read", ", no memory"};
    if (sim->options->verbose && output->served)
        say (sim, "        handler of %d: %s, request %llu\n", output->service, command_names[output->type],
             (unsigned long long) NUMBER (value));
    else if (sim->options->verbose)
        say (sim, "        %s to %s %u at %u: id %llx, request %llu, status %d%s\n", command_names[output->type],
             output->side == WORKER ? "worker" : "client", (unsigned) (output->address % sim->actor_count),
             (unsigned) output->address, (unsigned long long) output->id, (unsigned long long) NUMBER (value),
             output->status, results[output->result]);
}

/* What becomes of a message. Who has moved is not at his old address. */
static int draw_result (sim_t *sim, const actor_t *actor, const output_t *output)
{
    if (output->packed)
        return one_in (sim, sim->trouble * 16) ? NO_MEMORY : SENT;
    if (output->address != address_of (sim, actor, actor->version))
        return UNREACHABLE;
    if (actor->down != SENT)
        return actor->down;
    return one_in (sim, sim->trouble * 16) ? 1 + (int) below (sim, 3) : SENT;
}

static void arrive (sim_t *sim, actor_t *actor, const output_t *output, uint64_t value)
{
    if (output->side == WORKER && output->type == REQUEST) {
        if (actor->drained == output->address + 1)
            violated (sim, "a worker got a request behind DRAIN");
        note_try (sim, value);
        hold (sim, actor, output->id, value);
    } else if (output->side == WORKER && (output->type == CANCEL || output->type == MORE)) {
        if (!holds (actor, output->id) && !actor->forgot && !actor->is_new
            && output->address == address_of (sim, actor, actor->version))
            violated (sim, "%s for what a worker does not hold", command_names[output->type]);
    } else if (output->side == WORKER)
        actor->drained = output->type == DRAIN ? output->address + 1 : actor->drained;
    else if (output->type == REPLY || output->type == PARTIAL)
        note_reply (sim, value, actor, output);
    else if (output->type == ERROR)
        note_error (sim, actor, output);
}

static int fail_to_send (int result)
{
    errno = result == UNREACHABLE ? EHOSTUNREACH : result == NOT_READ ? EAGAIN : ENOMEM;
    return -1;
}

/* A request that is packed has not been tried until it is sent. */
static void note_packed (sim_t *sim, actor_t *actor, uint64_t value)
{
    entry_t *entry = entry_of (sim, value);
    if (entry)
        entry->attempts--;
    if (actor->held_count)
        actor->held[actor->held_count - 1].packed = 1;
}

static void note_rare (output_t *output, const zqb__command_t *command)
{
    output->window = (command->flags & ZQB__WINDOW) != 0;
    output->user = command->rare ? number_of_user ((const char *) command->rare->user, command->rare->user_size) : 0;
    output->credit = command->type == ZQB__MORE ? command->credit : 0;
    if (!command->rare)
        return;
    output->code = command->rare->code;
    output->deadline_ms = command->rare->deadline_ms;
    output->progress.has = command->rare->has_progress;
    output->progress.done = command->rare->has_progress ? command->rare->done : 0;
    output->progress.total = command->rare->has_progress ? command->rare->total : 0;
}

static int sink_send (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    uint64_t value;
    output->address = peer_address (peer);
    output->side = side == ZQB__WORKER ? WORKER : CLIENT;
    output->type = command->type;
    output->id = command->id;
    output->status = command->status;
    output->service = service_number (sim, command);
    output->text = text_number (command->text, command->text_size);
    output->body = look_at_body (&command->body, &value);
    note_rare (output, command);
    output->packed = sim->traits & PACKS && peer->dialect[side] == ZQB__ZQB1;
    actor_t *actor = &sim->actors[output->address % sim->actor_count];
    output->result = draw_result (sim, actor, output);
    if (output->result == SENT)
        check_person (sim, actor, peer, output);
    note_part (sim, actor, output);
    say_output (sim, output, value);
    if (output->result != SENT)
        return fail_to_send (output->result);
    if (output->packed && zqb__list_empty (&peer->dirty))
        zqb__list_append (&sim->dirty, &peer->dirty);
    peer->replies += output->packed && command->type == ZQB__REPLY;
    peer->requests_out += output->packed && command->type == ZQB__REQUEST;
    arrive (sim, actor, output, value);
    if (output->packed && command->type == ZQB__REQUEST)
        note_packed (sim, actor, value);
    return 0;
}

/* Whose request the host is told of. */
static int user_asking (const sim_t *sim)
{
    const char *name = zqb__user_name (sim->engine.asks);
    return number_of_user (name, strlen (name));
}

static void sink_serve (void *self, const zqb__service_t *service, const zqb__command_t *request, zqb__command_t *reply)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    uint64_t value, nothing;
    if (!service->handler)
        violated (sim, "a service without a handler was to serve");
    output->served = 1;
    output->user = user_asking (sim);
    output->service = service_number (sim, request);
    output->body = look_at_body (&request->body, &value);
    output->type = reply->type = one_in (sim, 8) ? ZQB__ERROR : ZQB__REPLY;
    output->text = any_number (sim);
    memcpy (sim->served_text, &output->text, sizeof sim->served_text);
    if (output->type == ERROR) {
        reply->text = sim->served_text;
        reply->text_size = sizeof sim->served_text;
    } else {
        unsigned char *at = add_small (&sim->chance, 0, NUMBER (value) | IS_REPLY, sim->served_block);
        output->text = 0;
        reply->body.block = sim->served_block;
        reply->body.size = (size_t) (at - sim->served_block);
        zqb__body_measure (&reply->body);
        output->reply = look_at_body (&reply->body, &nothing);
    }
    say_output (sim, output, value);
}

static void sink_dead (void *self, const zqb__command_t *request)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    uint64_t value;
    output->type = DEAD_LETTER;
    output->user = user_asking (sim);
    output->service = service_number (sim, request);
    output->body = look_at_body (&request->body, &value);
    say_output (sim, output, value);
}

/* What became of one, with the number that it has on the wire. */
static void sink_outcome (void *self, const zqb_outcome_t *outcome)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    output->type = OUTCOME;
    output->service = number_of_name (sim, outcome->service, outcome->service_size);
    output->status = outcome->error == EHOSTUNREACH ? (int) GONE : outcome->error ? outcome->error - ZQB_ERRNO : 0;
    output->credit = (uint32_t) outcome->attempts;
    output->id = (uint64_t) outcome->took_us;
    if (outcome->service[outcome->service_size] || outcome->took_us < 0)
        violated (sim, "an outcome without a name, or of the future");
    sim->outcomes++;
    say_output (sim, output, 0);
}

static size_t sink_choose (void *self, const zqb__service_t *service, const zqb_worker_info_t *workers, size_t count)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    output->type = CHOICE;
    output->service = number_of_name (sim, service->name, service->name_size);
    output->credit = more_below (sim, (uint32_t) count + (more_one_in (sim, 8) ? 10 : 0));
    for (size_t i = 0; i < count; i++) {
        uint64_t values[7] = {workers[i].id, (uint64_t) workers[i].load, (uint64_t) workers[i].credit,
                              workers[i].served, workers[i].failed, workers[i].slow, (uint64_t) workers[i].idle_us};
        output->body = body_join (output->body, body_of_worker (values));
    }
    if (count == 0)
        violated (sim, "the host was to choose from nobody");
    say_output (sim, output, 0);
    return output->credit;
}

static void sink_scale (void *self, zqb_scale_fn *fn, const zqb_scale_t *scale, void *arg)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    uint64_t values[4] = {(uint64_t) scale->queued, (uint64_t) scale->oldest_us, (uint64_t) scale->idle,
                          (uint64_t) scale->busy};
    (void) fn, (void) arg;
    output->type = SCALE;
    output->service = number_of_name (sim, scale->service, strlen (scale->service));
    output->body = body_of_service (values);
    output->credit = (uint32_t) scale->wanted;
    say_output (sim, output, 0);
}

static asked_t asked_of (const zqb__command_t *request, const zqb__rare_t *rare)
{
    asked_t asked;
    memset (&asked, 0, sizeof asked);
    asked.priority = rare->priority;
    asked.deadline_ms = rare->deadline_ms;
    asked.delay_ms = rare->delay_ms;
    asked.attempts = rare->attempts;
    asked.backoff_ms = rare->backoff_ms;
    asked.backoff_max_ms = rare->backoff_max_ms;
    asked.fail_fast = (request->flags & ZQB__FAIL_FAST) != 0;
    return asked;
}

static void change_wishes (sim_t *sim, zqb__command_t *request, zqb__rare_t *wishes)
{
    asked_t asked;
    memset (&asked, 0, sizeof asked);
    if (more_one_in (sim, 4))
        request->flags ^= ZQB__FAIL_FAST;
    draw_times_of_request (sim, &asked);
    wishes->priority = more_one_in (sim, 2) ? (int) more_below (sim, 9) - 4 : 0;
    wishes->deadline_ms = asked.deadline_ms;
    wishes->delay_ms = asked.delay_ms;
    wishes->attempts = asked.attempts;
    wishes->backoff_ms = asked.backoff_ms;
    wishes->backoff_max_ms = asked.backoff_max_ms;
}

/* The host refuses some, and changes what others ask for. */
static int sink_filter (void *self, zqb__command_t *request, zqb__rare_t *wishes, zqb__command_t *refusal)
{
    sim_t *sim = (sim_t *) self;
    output_t *output = new_output (sim);
    uint64_t value;
    output->type = FILTER;
    output->user = user_asking (sim);
    output->service = service_number (sim, request);
    output->body = look_at_body (&request->body, &value);
    output->seen = asked_of (request, wishes);
    if (more_one_in (sim, 4))
        change_wishes (sim, request, wishes);
    output->asked = asked_of (request, wishes);
    output->result = more_one_in (sim, 8);
    output->text = output->result && more_below (sim, 2) ? any_number (sim) : 0;
    memcpy (sim->served_text, &output->text, sizeof sim->served_text);
    refusal->text = output->text ? sim->served_text : NULL;
    refusal->text_size = output->text ? sizeof sim->served_text : 0;
    note_filter (sim, value, &output->asked);
    say_output (sim, output, value);
    return output->result;
}

/* Who has no name has an empty one, or none. In crowds the model does not know who is asked for. */
static void sink_identify (void *self, zqb__identity_t *who)
{
    sim_t *sim = (sim_t *) self;
    const char *name = user_names[sim->speaks];
    who->user = name || people_one_in (sim, 2) ? name : "";
    who->local = sim->speaks == IN_PROCESS;
    if (sim->traits & CROWD)
        return;
    output_t *output = new_output (sim);
    output->type = IDENTIFY;
    output->service = -1;
    output->user = sim->speaks;
    output->result = name && zqb__user_find (&sim->engine, name, zqb__user_hash (&sim->engine, name));
}

static int number_of_place (const char *name)
{
    int place = 0;
    while (place < PLACES && strcmp (place_names[place], name) != 0)
        place++;
    return place;
}

static int sink_access (void *self, const zqb_access_t *access)
{
    sim_t *sim = (sim_t *) self;
    int local = strcmp (access->address, "inproc") == 0, person = number_of_person (access->user, local);
    int service = number_of_name (sim, access->service, access->service_size);
    int place = local ? UNKNOWN : number_of_place (access->address);
    if (person < 0 || service < 0 || access->service[access->service_size] || place == PLACES
        || (access->action != ZQB_MAY_CALL && access->action != ZQB_MAY_SERVE && access->action != ZQB_MAY_MANAGE)) {
        violated (sim, "the host was asked something that makes no sense");
        return -1;
    }
    return sim->host.says[person][place][access->action / 2][service];
}

static int sink_welcome (void *self, const zqb__peer_t *peer)
{
    const sim_t *sim = (const sim_t *) self;
    return !sim->host.unwelcome[person_of (peer)][peer->local ? UNKNOWN : number_of_place (zqb__peer_place (peer))];
}

static void sink_log (void *self, int level, const char *format, va_list args)
{
    const sim_t *sim = (const sim_t *) self;
    (void) level;
    if (!sim->options->verbose)
        return;
    printf ("        log: ");
    vprintf (format, args);
    printf ("\n");
}

/* ---- a step: the engine first, then the model, then they are compared */

static void begin_step (sim_t *sim)
{
    sim->output_count = 0;
    sim->engine.now = sim->now;
}

static void step (sim_t *sim)
{
    sim->progress->steps++;
    begin_step (sim);
}

/* Whether there is a model that has to follow the step that the engine made. */
static int modelled (sim_t *sim)
{
    if (sim->model)
        model_expect (sim->model, sim->outputs, sim->output_count, sim->now);
    return sim->model != NULL;
}

static void compare_counters (sim_t *sim)
{
    const zqb_stats_t *theirs = &sim->engine.stats;
    const counters_t *mine = model_counters (sim->model);
#define X(name)                                                                                                      \
    if (theirs->name != mine->name)                                                                                  \
        violated (sim, "counter " #name ": the engine has %lld, the model %lld", (long long) theirs->name,            \
                  (long long) mine->name);
    COUNTERS (X)
#undef X
}

static void check_balance (sim_t *sim)
{
    const zqb_stats_t *s = &sim->engine.stats;
    if (s->accepted
        != s->replied + s->failed + s->expired + s->cancelled + s->dead + s->client_gone + s->queued + s->running)
        violated (sim, "accepted is not the sum of what became of them");
}

static void check_agreement (sim_t *sim)
{
    const char *verdict = sim->model ? model_verdict (sim->model) : NULL;
    if (verdict)
        violated (sim, "%s", verdict);
    if (sim->model)
        compare_counters (sim);
    check_balance (sim);
}

static void check_structure (sim_t *sim)
{
    const char *wrong = walk_engine (&sim->engine, !(sim->traits & FAILS));
    if (wrong)
        violated (sim, "%s", wrong);
}

/* Events are 16 us apart or more. Steps of some kinds have microseconds of their own between, so that what becomes due
   by one kind never does at the time of another: then it would be open which of them comes first. */
enum { MICROSECOND_OF_ENDS = 1, MICROSECOND_OF_BURIALS = 2, MICROSECOND_OF_SERVICES = 5, MICROSECOND_OF_LIMITS = 9, MICROSECONDS = 16 };

static void pass_time (sim_t *sim, uint64_t time)
{
    sim->now = (sim->now + time + MICROSECONDS - 1) / MICROSECONDS * MICROSECONDS;
}

/* ---- connections */

static int lowest_free_connection (sim_t *sim)
{
    int connection = 0;
    while (sim->connection_used[connection])
        connection++;
    sim->connection_used[connection] = 1;
    return connection;
}

/* Gives him another address, if he can have one. In crowds none is given out twice. */
static int move_actor (const sim_t *sim, actor_t *actor)
{
    int moves = !actor->fixed && !(sim->traits & CROWD && actor->version == VERSIONS - 1);
    actor->version += moves ? 1 : 0;
    return moves;
}

/* The connection that an actor sends over; he has a new address if it is a new one. */
static int connect_actor (sim_t *sim, actor_t *actor)
{
    line_t *line = &sim->lines[actor->line];
    if (line->connection < 0) {
        line->connection = lowest_free_connection (sim);
        line->place = has (sim, USERS) ? (int) people_below (sim, PLACES) : UNKNOWN;
        line->version++;
    }
    if (actor->line_version != line->version || actor->is_another)
        change_person (sim, actor);
    actor->is_another = 0;
    if (actor->line_version != line->version) {
        actor->line_version = line->version;
        actor->moved = move_actor (sim, actor);
    }
    return line->connection;
}

/* Tells the model in which order the engine will bury those that failed, as the engine's tables have it. */
static void order_failed (sim_t *sim)
{
    uint32_t *order = (uint32_t *) must (malloc ((sim->actor_count * VERSIONS + 1) * sizeof *order));
    size_t count = 0;
    const zqb__link_t *failed = &sim->engine.failed_peers;
    for (const zqb__link_t *at = failed->next; at != failed; at = at->next)
        order[count++] = peer_address (ZQB__OF (zqb__peer_t, failed, at));
    model_order_failed (sim->model, order, count);
    free (order);
}

static void end_connection (sim_t *sim, const line_t *line)
{
    say (sim, "    connection %d is gone\n", line->connection);
    zqb__engine_disconnected (&sim->engine, line->port, line->connection);
    if (modelled (sim))
        model_disconnected (sim->model, line->connection);
}

/* The connections of this number that have ended, or all (-1), are told to the engine, and then those are buried who
   are lost with them. */
static void bury_gone (sim_t *sim, int which)
{
    uint64_t now = sim->now / MICROSECONDS * MICROSECONDS;
    size_t kept = 0;
    sim->now = now + MICROSECOND_OF_ENDS;
    begin_step (sim);
    for (size_t i = sim->gone_count; i-- > 0;)
        if (which < 0 || sim->gone[i].connection == which) {
            sim->progress->steps++;
            end_connection (sim, &sim->gone[i]);
            sim->gone[i].connection = -1;
        }
    for (size_t i = 0; i < sim->gone_count; i++)
        if (sim->gone[i].connection >= 0)
            sim->gone[kept++] = sim->gone[i];
    sim->gone_count = kept;
    sim->now = now + MICROSECOND_OF_BURIALS;
    begin_step (sim);
    if (sim->model)
        order_failed (sim);
    zqb__engine_bury (&sim->engine);
    if (modelled (sim))
        model_bury (sim->model);
    check_agreement (sim);
}

/* ---- messages: as zqb__broker_deliver treats them */

typedef struct sender_t {
    actor_t *actor;
    zqb__peer_t *peer;
    int number; /* the model's */
    int dialect, side;
} sender_t;

/* -1: it is not known who he is, for lack of memory. */
static int recognise (sim_t *sim, const sender_t *from)
{
    begin_step (sim);
    int failed = zqb__engine_recognise (&sim->engine, from->peer);
    if (modelled (sim))
        model_recognise (sim->model, from->number, sim->speaks);
    check_agreement (sim);
    return failed;
}

/* Who keeps his address over connections, or comes back to one, has chosen it himself. */
static int named_itself (const actor_t *actor)
{
    return actor->fixed || actor->version >= VERSIONS;
}

/* As zqb__broker_note_place does. */
static void note_place (zqb__connection_t *connection, int place)
{
    if (connection && !connection->address && place != UNKNOWN)
        connection->address = zqb__copy_text (place_names[place], strlen (place_names[place]));
}

/* As zqb__broker_note_connection. -1: the same. */
static int note_connection (sim_t *sim, const sender_t *from, int connection, uint32_t address)
{
    if (peer_address (from->peer) != address)
        return 0;
    if (connection < 0)
        return from->peer->connection ? recognise (sim, from) : 0;
    if (zqb__peer_came_over (from->peer, connection) && !named_itself (from->actor))
        return 0;
    int place = sim->lines[from->actor->line].place;
    if (recognise (sim, from) != 0)
        return -1;
    bury_gone (sim, connection);
    zqb__peer_set_connection (&sim->engine, from->peer, connection);
    note_place (from->peer->connection, place);
    if (sim->model)
        model_set_connection (sim->model, from->number, connection, place);
    return 0;
}

static void find_sender (sim_t *sim, sender_t *from, uint32_t address)
{
    unsigned char frame[8] = {0, 0, 0, 4, 0, 0, 0, 0};
    uint64_t life = from->dialect == ZQB1 ? from->actor->life : 0;
    memcpy (frame + 4, &address, sizeof address);
    from->peer = zqb__engine_peer (&sim->engine, from->actor->port, frame, sizeof frame, life);
    if (!from->peer)
        sim->engine.stats.no_memory++;
    else if (modelled (sim))
        from->number = model_peer (sim->model, address, life, sim->speaks);
    check_agreement (sim);
}

/* Whose message it is, from his address or, late, from the one before. -1: nobody can be remembered. */
static int begin_message (sim_t *sim, sender_t *from, actor_t *actor, int side, int late)
{
    int connection = connect_actor (sim, actor);
    late = late && actor->moved;
    from->actor = actor;
    from->side = side;
    from->dialect = side == CLIENT ? actor->client : actor->worker;
    if (late)
        connection = -1;
    if (!late)
        actor->spoke_version = actor->version + 1;
    sim->speaks = late ? actor->former_person : actor->person;
    uint32_t address = address_of (sim, actor, actor->version - (late ? 1 : 0));
    begin_step (sim);
    find_sender (sim, from, address);
    if (!from->peer)
        return -1;
    if (note_connection (sim, from, connection, address) == 0)
        return 0;
    actor->spoke_version = 0; /* he is still taken for the one before */
    sim->engine.stats.no_memory++;
    zqb__engine_release (&sim->engine, from->peer);
    return -1;
}

static void set_dialect (sim_t *sim, const sender_t *from, int type)
{
    int known = from->side == WORKER && from->peer->worker;
    if (from->dialect == ZQB1)
        from->peer->dialect[CLIENT] = from->peer->dialect[WORKER] = ZQB__ZQB1;
    else if (!known || type == READY)
        from->peer->dialect[from->side] = from->dialect;
    if (sim->model)
        model_set_dialect (sim->model, from->number, from->dialect, from->side, type);
}

static void end_message (sim_t *sim, const sender_t *from)
{
    zqb__engine_release (&sim->engine, from->peer);
}

/* A key, which is gone when the command was received. */
static const unsigned char *make_key (unsigned char key[256], int number, size_t *size)
{
    *size = number ? 1 + (size_t) number * 37 % 255 : 0;
    memset (key, number, *size);
    return number ? key : NULL;
}

/* Of the model's requests: which of the engine's slots belongs to a key. */
static int slot_of (sim_t *sim, int affinity)
{
    size_t size;
    make_key (sim->affinity, affinity, &size);
    return affinity ? 1 + (int) (zqb__hash (sim->engine.key, sim->affinity, size) % 4096) : 0;
}

static void fill_rare (sim_t *sim, const command_t *mine)
{
    zqb__rare_t *rare = &sim->rare;
    const asked_t *asked = &mine->asked;
    memset (rare, 0, sizeof *rare);
    rare->priority = asked->priority;
    rare->deadline_ms = asked->deadline_ms;
    rare->delay_ms = asked->delay_ms;
    rare->backoff_ms = asked->backoff_ms;
    rare->backoff_max_ms = asked->backoff_max_ms;
    rare->attempts = asked->attempts;
    rare->unique = make_key (sim->unique, asked->unique, &rare->unique_size);
    rare->affinity = make_key (sim->affinity, asked->affinity, &rare->affinity_size);
    rare->has_progress = mine->progress.has;
    rare->done = mine->progress.done;
    rare->total = mine->progress.total;
    rare->code = mine->code;
}

static int engine_flags (const command_t *mine)
{
    return (mine->again ? ZQB__AGAIN : 0) | (mine->unbegun ? ZQB__UNBEGUN : 0)
           | (mine->asked.one_way ? ZQB__ONE_WAY : 0) | (mine->asked.fail_fast ? ZQB__FAIL_FAST : 0)
           | (mine->asked.survey ? ZQB__SURVEY : 0);
}

static zqb__command_t engine_command (sim_t *sim, const command_t *mine)
{
    static const asked_t nothing;
    zqb__command_t command = zqb__command (mine->type, mine->id);
    command.flags = engine_flags (mine);
    if (memcmp (&mine->asked, &nothing, sizeof nothing) != 0 || mine->code || mine->progress.has) {
        fill_rare (sim, mine);
        command.rare = &sim->rare;
    }
    command.status = mine->refuses ? ZQB_EREFUSED - ZQB_ERRNO : 0;
    command.credit = mine->credit;
    command.heartbeat_ms = mine->heartbeat_ms;
    if (mine->service >= 0) {
        command.service = (const unsigned char *) sim->names[mine->service];
        command.service_size = sim->name_sizes[mine->service];
    }
    if (mine->type == ERROR || mine->type == PROGRESS) {
        memcpy (sim->text, &mine->text, sizeof sim->text);
        command.text = sim->text;
        command.text_size = sizeof sim->text;
    }
    return command;
}

static void say_message (const sim_t *sim, const sender_t *from, const command_t *mine, uint64_t value)
{
    if (sim->options->verbose)
        say (sim,
             "    %s from %s %u at %u as %d (%s): id %llx, request %llu, service %d, credit %u%s, %u bytes, %u frames\n",
             mine->type < COMMANDS_END ? command_names[mine->type] : "a command of a later version",
             from->side == WORKER ? "worker" : "client", (unsigned) actor_number (sim, from->actor),
             (unsigned) peer_address (from->peer), sim->speaks, zqb__dialects[from->dialect].name,
             (unsigned long long) mine->id, (unsigned long long) NUMBER (value), mine->service,
             (unsigned) mine->credit, mine->again ? ", again" : "",
             (unsigned) mine->body.bytes, (unsigned) mine->body.frames);
}

static void say_asked (const sim_t *sim, const asked_t *a)
{
    static const asked_t nothing;
    if (memcmp (a, &nothing, sizeof nothing) != 0)
        say (sim,
             "        priority %d, deadline %u, delay %u, attempts %u, backoff %u to %u, unique %d, affinity %d"
             "%s%s%s\n",
             a->priority, (unsigned) a->deadline_ms, (unsigned) a->delay_ms, (unsigned) a->attempts,
             (unsigned) a->backoff_ms, (unsigned) a->backoff_max_ms, a->unique, a->affinity,
             a->one_way ? ", one-way" : "", a->fail_fast ? ", fail-fast" : "", a->survey ? ", survey" : "");
}

static void spoil_rare (sim_t *sim)
{
    memset (&sim->rare, 0xdd, sizeof sim->rare);
    memset (sim->unique, 0xdd, sizeof sim->unique);
    memset (sim->affinity, 0xdd, sizeof sim->affinity);
}

/* One command of a message; value makes its body, and is 0 if it has none. */
static void receive (sim_t *sim, const sender_t *from, command_t *mine, uint64_t value)
{
    uint64_t same;
    zqb__command_t command = engine_command (sim, mine);
    step (sim);
    if (value) {
        command.body = make_body (sim, sim->block, value, from->dialect == ZQB1);
        mine->body = look_at_body (&command.body, &same);
    }
    set_dialect (sim, from, mine->type);
    say_message (sim, from, mine, value);
    say_asked (sim, &mine->asked);
    zqb__engine_receive (&sim->engine, from->peer, &command);
    unmake_body (sim);
    if (command.rare)
        spoil_rare (sim);
    mine->asked.affinity = slot_of (sim, mine->asked.affinity);
    if (modelled (sim))
        model_receive (sim->model, from->number, mine);
    check_agreement (sim);
}

static command_t new_command (int type)
{
    command_t command;
    memset (&command, 0, sizeof command);
    command.type = type;
    command.service = -1;
    command.heartbeat_ms = UINT32_MAX;
    return command;
}

/* ---- what clients do */

static int any_service (sim_t *sim)
{
    if (has (sim, PATTERNS) && more_one_in (sim, 4))
        return PATTERNS_FROM + (int) more_below (sim, MMI_FROM - PATTERNS_FROM);
    if (one_in (sim, 64))
        return MMI_FROM + (int) below (sim, 3);
    return (int) below (sim, below (sim, 2) ? sim->service_count : 1 + sim->service_count / 2);
}

/* An LRU frontend is of one service. */
static int service_at (sim_t *sim, const actor_t *actor)
{
    return actor->port ? 0 : any_service (sim);
}

/* Priorities beyond are the nearest that there is. */
static asked_t ordered_by (const asked_t *asked)
{
    asked_t nearest = *asked;
    nearest.priority = asked->priority < -4 ? -4 : asked->priority > 4 ? 4 : asked->priority;
    return nearest;
}

/* The ledger must be ahead, as the request may be served at once; if it joined another, nothing has begun. One that does
   not join though the first has no end yet is a second one: the client was thought to be gone; or that was too late, or
   denied, and still runs for nobody. */
static void receive_request (sim_t *sim, const sender_t *from, command_t *mine, uint64_t number)
{
    entry_t before = sim->entries[number];
    uint64_t joined = sim->engine.stats.joined;
    sim->entries[number].arrived = ++sim->arrivals;
    sim->entries[number].asked = ordered_by (&mine->asked);
    sim->entries[number].parts = 0;
    sim->entries[number].peer = from->peer;
    sim->entries[number].person = sim->speaks;
    sim->entries[number].tries = sim->entries[number].attempts = sim->entries[number].ended = 0;
    receive (sim, from, mine, number);
    if (sim->engine.stats.joined != joined)
        sim->entries[number] = before;
    else
        sim->entries[number].twice |= before.arrived && (!before.ended || before.asked.deadline_ms || before.denied);
}

/* What wants no answer has no number, and should not have one. Now and then with the number of one before, and without
   saying so: who does that has two requests, but should not try them again, nor cancel them. */
static uint64_t new_id (sim_t *sim, actor_t *actor, uint64_t number, int one_way)
{
    if (actor->client != ZQB1 || one_way)
        return one_way && more_one_in (sim, 8) ? (uint64_t) 1 << 41 | more_below (sim, 4) : 0;
    if (one_in (sim, 256))
        return (uint64_t) 1 << 40 | below (sim, 4);
    uint64_t id = ++actor->next_id;
    actor->recent[id % RECENT].id = id;
    actor->recent[id % RECENT].number = number;
    return id;
}

static void draw_options (sim_t *sim, asked_t *asked)
{
    draw_times_of_request (sim, asked);
    if (has (sim, PRIORITIES) && more_below (sim, 4))
        asked->priority = (int) more_below (sim, more_one_in (sim, 8) ? 256 : 3) - (more_one_in (sim, 8) ? 128 : 1);
    if (has (sim, UNIQUE) && more_one_in (sim, 3))
        asked->unique = 1 + (int) more_below (sim, 4);
    if (has (sim, AFFINITY) && more_one_in (sim, 3))
        asked->affinity = 1 + (int) more_below (sim, 6);
    asked->one_way = has (sim, ONE_WAY) && more_one_in (sim, 6);
    asked->fail_fast = has (sim, FAIL_FAST) && more_one_in (sim, 4);
    asked->survey = has (sim, SURVEYS) && more_one_in (sim, asked->one_way ? 24 : 12);
}

static void ask (sim_t *sim, const sender_t *from)
{
    command_t mine = new_command (REQUEST);
    mine.service = service_at (sim, from->actor);
    uint64_t number = open_entry (sim, actor_number (sim, from->actor), mine.service);
    if (from->dialect == ZQB1 && has (sim, ALL_FEATURES) && more_below (sim, 4))
        draw_options (sim, &mine.asked);
    mine.id = new_id (sim, from->actor, number, mine.asked.one_way);
    receive_request (sim, from, &mine, number);
}

static void ask_again (sim_t *sim, const sender_t *from)
{
    command_t mine = new_command (REQUEST);
    uint32_t which = below (sim, RECENT);
    uint64_t number = from->actor->recent[which].number;
    if (!number)
        return;
    mine.again = 1;
    mine.id = from->actor->recent[which].id;
    mine.service = sim->entries[number].service;
    mine.asked = sim->entries[number].asked;
    receive_request (sim, from, &mine, number);
}

static void cancel (sim_t *sim, const sender_t *from)
{
    command_t mine = new_command (CANCEL);
    mine.id = one_in (sim, 16) ? 1 + below (sim, 1000) : from->actor->recent[below (sim, RECENT)].id;
    if (mine.id)
        receive (sim, from, &mine, 0);
}

static actor_t *some_client (sim_t *sim)
{
    for (int i = 0; i < 8; i++) {
        actor_t *actor = any_actor (sim);
        if (actor->client >= 0)
            return actor;
    }
    return NULL;
}

static void client_speaks (sim_t *sim, const sender_t *from)
{
    uint32_t what = from->actor->client == ZQB1 ? below (sim, 16) : 0;
    if (what < 12)
        ask (sim, from);
    else if (what < 14)
        ask_again (sim, from);
    else
        cancel (sim, from);
}

/* ZQB/1 puts several commands into a message. */
static uint32_t draw_commands (sim_t *sim, const sender_t *from)
{
    return from->dialect == ZQB1 && one_in (sim, 4) ? 1 + below (sim, 6) : 1;
}

static void event_client (sim_t *sim, int late)
{
    sender_t from;
    actor_t *actor = some_client (sim);
    if (!actor || begin_message (sim, &from, actor, CLIENT, late) != 0)
        return;
    for (uint32_t more = draw_commands (sim, &from); more > 0; more--)
        client_speaks (sim, &from);
    end_message (sim, &from);
}

/* ---- what workers do */

static actor_t *some_worker (sim_t *sim)
{
    for (int i = 0; i < 8; i++) {
        actor_t *actor = any_actor (sim);
        if (actor->worker >= 0)
            return actor;
    }
    return NULL;
}

static actor_t *busy_worker (sim_t *sim)
{
    for (int i = 0; i < 16; i++) {
        actor_t *actor = any_actor (sim);
        if (actor->held_count)
            return actor;
    }
    return NULL;
}

/* A request that somebody holds, by the number of its client, who may have forgotten it: 0; or any number of anybody. */
static uint64_t some_request (sim_t *sim, actor_t **client)
{
    actor_t *holder = more_one_in (sim, 4) ? NULL : busy_worker (sim);
    if (!holder) {
        *client = some_client (sim);
        return !*client ? 0 : more_one_in (sim, 16) ? 1 + more_below (sim, 1000) : (*client)->recent[0].id;
    }
    uint64_t number = holder->held[more_below (sim, (uint32_t) holder->held_count)].number;
    *client = &sim->actors[sim->entries[number].actor];
    for (int i = 0; i < RECENT; i++)
        if ((*client)->recent[i].number == number)
            return (*client)->recent[i].id;
    return 0;
}

/* Some say so more often than is listened to. */
static void event_more (sim_t *sim)
{
    sender_t from;
    actor_t *actor;
    command_t mine = new_command (MORE);
    mine.id = some_request (sim, &actor);
    mine.credit = more_below (sim, 40);
    if (!mine.id || actor->client != ZQB1 || begin_message (sim, &from, actor, CLIENT, 0) != 0)
        return;
    for (uint32_t left = more_one_in (sim, 8) ? more_below (sim, 70) : 1; left; left--)
        receive (sim, &from, &mine, 0);
    end_message (sim, &from);
}

static uint32_t draw_credit (sim_t *sim)
{
    uint32_t kind = below (sim, 8);
    return kind < 3          ? 0
           : kind < 5        ? 1
           : kind < 7        ? 1 + below (sim, 20)
           : one_in (sim, 4) ? 65535
                             : 1 + below (sim, 200);
}

static void draw_progress (sim_t *sim, progress_t *progress)
{
    progress->has = more_below (sim, 8) > 0;
    progress->total = progress->has ? more_below (sim, 100) : 0;
    progress->done = progress->has ? more_below (sim, 100) : 0;
}

/* In some seeds nearly all workers of the one service refuse nearly everything, so that requests come to many. */
static int is_stubborn (const sim_t *sim)
{
    return has (sim, REFUSALS) && sim->patience == STUBBORN;
}

/* With a code, or it is not for this worker, and so was not tried. */
static void draw_failure (sim_t *sim, command_t *mine, uint64_t number)
{
    entry_t *entry = entry_of (sim, number);
    mine->refuses = has (sim, REFUSALS) && !more_one_in (sim, sim->patience);
    mine->code = has (sim, ALL_FEATURES) && more_one_in (sim, 2) ? more_below (sim, 3) : 0;
    if (mine->refuses && entry && entry->attempts > 0)
        entry->attempts--;
}

/* In words: an error, in numbers: a reply to one that he holds, which he then has done. */
static void answer_held (sim_t *sim, const sender_t *from, int type)
{
    actor_t *actor = from->actor;
    if (!actor->held_count)
        return;
    size_t which = one_in (sim, 4) ? below (sim, (uint32_t) actor->held_count) : 0;
    holding_t held = actor->held[which];
    if (held.packed)
        return;
    command_t mine = new_command (type);
    mine.id = held.token;
    mine.text = any_number (sim);
    if (type == PROGRESS)
        draw_progress (sim, &mine.progress);
    if (type == ERROR)
        draw_failure (sim, &mine, held.number);
    if (type != PARTIAL && type != PROGRESS && !one_in (sim, 32)) /* some say it twice */
        let_go (actor, which);
    int has_body = type == REPLY || type == PARTIAL;
    receive (sim, from, &mine,
             has_body ? held.number | IS_REPLY | (uint64_t) below (sim, 1 << 20) << 40 : 0);
}

static void event_answer (sim_t *sim, int type)
{
    sender_t from;
    actor_t *actor = busy_worker (sim);
    if (is_stubborn (sim) && more_one_in (sim, 8) == 0)
        type = ERROR;
    if (!actor || actor->worker < 0)
        return;
    if (((type == ERROR || type == PROGRESS) && actor->worker != ZQB1)
        || (type == PARTIAL && actor->worker != ZQB1 && actor->worker != MDP02))
        type = REPLY;
    if (begin_message (sim, &from, actor, WORKER, 0) != 0)
        return;
    for (uint32_t more = draw_commands (sim, &from); more > 0; more--)
        answer_held (sim, &from, type);
    end_message (sim, &from);
}

/* Something that this worker does not hold: of long ago, another's, changed, or invented. */
static uint64_t draw_stale_token (sim_t *sim)
{
    uint64_t token = sim->past[below (sim, PAST)].token;
    switch (below (sim, 8)) {
        case 0: return any_number (sim);
        case 1: return token + 2;
        case 2: return token - 2;
        case 3: return token ^ ((uint64_t) 1 << below (sim, 64));
        case 4: return token & 0xffffffffu; /* of the first place */
        default: return token;
    }
}

static void event_stale (sim_t *sim)
{
    sender_t from;
    actor_t *actor = some_worker (sim);
    command_t mine = new_command (one_in (sim, 4) ? PARTIAL : REPLY);
    mine.id = draw_stale_token (sim);
    if (!actor || holds (actor, mine.id) || begin_message (sim, &from, actor, WORKER, 0) != 0)
        return;
    if (from.dialect == ZQB1 && one_in (sim, 4))
        mine.type = ERROR;
    mine.text = TEXT_OF_BROKER;
    receive (sim, &from, &mine, mine.type == ERROR ? 0 : (actor->forgot ? IS_REPLY : IS_WRONG) | ANY_NUMBER);
    end_message (sim, &from);
}

static void worker_says (sim_t *sim, actor_t *actor, int type, int late)
{
    sender_t from;
    command_t mine = new_command (type);
    if (begin_message (sim, &from, actor, WORKER, late) != 0)
        return;
    actor->drained = type == READY ? 0 : actor->drained;
    actor->is_new &= type != READY;
    if (type == READY) {
        mine.service = actor->port ? 0 : any_service (sim);
        mine.credit = draw_credit (sim);
        if (from.dialect == ZQB1 && one_in (sim, 2))
            mine.heartbeat_ms = below (sim, 10000);
    }
    mine.unbegun = type == DISCONNECT && from.dialect == ZQB1 && !actor->forgot && one_in (sim, 2);
    if (mine.unbegun)
        untry_held (sim, actor);
    if ((type == READY || type == DISCONNECT) && one_in (sim, 2))
        forget_held (actor, late); /* half of them go on with what they had */
    receive (sim, &from, &mine, 0);
    end_message (sim, &from);
}

static void event_worker (sim_t *sim, int type)
{
    actor_t *actor = some_worker (sim);
    if (actor && !(type == DISCONNECT && actor->worker == LRU) && !(type == HEARTBEAT && actor->worker == LRU))
        worker_says (sim, actor, type, !(sim->traits & CROWD) && one_in (sim, 64));
}

static void event_host_drains (sim_t *sim);

static void event_drain (sim_t *sim)
{
    actor_t *actor = some_worker (sim);
    if (more_one_in (sim, 3))
        event_host_drains (sim);
    else if (actor && actor->worker == ZQB1)
        worker_says (sim, actor, DRAIN, 0);
}

/* ---- what goes wrong */

/* There is no memory for what a worker says. */
static void event_missed (sim_t *sim)
{
    sender_t from;
    actor_t *actor = busy_worker (sim);
    if (!actor || actor->worker < 0 || begin_message (sim, &from, actor, WORKER, 0) != 0)
        return;
    say (sim, "    what %u says is missed\n", (unsigned) actor_number (sim, actor));
    step (sim);
    zqb__engine_missed (&sim->engine, from.peer);
    if (modelled (sim))
        model_missed (sim->model, from.number);
    check_agreement (sim);
    end_message (sim, &from);
}

static void event_malformed (sim_t *sim)
{
    sender_t from;
    actor_t *actor = any_actor (sim);
    int side = actor->client < 0 || (actor->worker >= 0 && one_in (sim, 2)) ? WORKER : CLIENT;
    if (begin_message (sim, &from, actor, side, 0) != 0)
        return;
    if (from.dialect == ZQB1)
        side = CLIENT; /* which of the two it is, is in the commands */
    say (sim, "    something malformed from %u\n", (unsigned) actor_number (sim, actor));
    step (sim);
    set_dialect (sim, &from, 0);
    from.peer->dialect[side] = from.dialect;
    if (sim->model)
        model_set_dialect (sim->model, from.number, from.dialect, side, READY);
    zqb__engine_malformed (&sim->engine, from.peer, side);
    if (modelled (sim))
        model_malformed (sim->model, from.number, side);
    check_agreement (sim);
    end_message (sim, &from);
}

static void event_of_later_version (sim_t *sim)
{
    sender_t from;
    actor_t *actor = any_actor (sim);
    command_t mine = new_command (9 + (int) below (sim, 240));
    if (actor->client != ZQB1 || begin_message (sim, &from, actor, CLIENT, 0) != 0)
        return;
    receive (sim, &from, &mine, 0);
    end_message (sim, &from);
}

static void event_down (sim_t *sim)
{
    actor_t *actor = any_actor (sim);
    actor->down = actor->down != SENT ? SENT : one_in (sim, 2) ? UNREACHABLE : NOT_READ;
    say (sim, "    %u is %s\n", (unsigned) actor_number (sim, actor),
         actor->down == SENT          ? "well"
         : actor->down == UNREACHABLE ? "unreachable"
                                      : "stuck");
}

/* Somebody of whom the engine knows, or NULL. */
static zqb__peer_t *known_peer (sim_t *sim, uint32_t address)
{
    unsigned char frame[8] = {0, 0, 0, 4, 0, 0, 0, 0};
    memcpy (frame + 4, &address, sizeof address);
    return zqb__peer_find (&sim->engine, sim->actors[address % sim->actor_count].port, frame, sizeof frame,
                           zqb__hash (sim->engine.key, frame, sizeof frame));
}

static void lose (sim_t *sim, zqb__peer_t *peer)
{
    int number = sim->model ? model_find (sim->model, peer_address (peer)) : 0;
    say (sim, "    what was for %u could not be sent\n", (unsigned) peer_address (peer));
    step (sim);
    zqb__engine_lost (&sim->engine, peer);
    if (modelled (sim))
        model_lost (sim->model, number);
    check_agreement (sim);
}

static void event_lost (sim_t *sim)
{
    actor_t *actor = any_actor (sim);
    zqb__peer_t *peer = known_peer (sim, address_of (sim, actor, actor->version));
    if (peer && zqb__list_empty (&peer->idle))
        lose (sim, peer);
}

/* The requests that were packed for a worker have been sent: now they count as attempts. */
static void note_sent (sim_t *sim, const zqb__peer_t *peer)
{
    const zqb__link_t *hand = peer->worker ? &peer->worker->hand : NULL;
    uint64_t left = peer->requests_out, value;
    for (const zqb__link_t *at = hand ? hand->prev : NULL; left && at != hand; at = at->prev, left--) {
        zqb__body_t body = zqb__stored_body (&ZQB__OF (zqb__request_t, place, at)->body);
        look_at_body (&body, &value);
        entry_t *entry = entry_of (sim, value);
        if (entry)
            count_attempt (sim, NUMBER (value), entry);
    }
}

/* A message that is packed is sent, or it is not. */
static void flush_peer (sim_t *sim, zqb__peer_t *peer)
{
    uint32_t address = peer_address (peer);
    const actor_t *actor = &sim->actors[address % sim->actor_count];
    zqb__list_remove (&peer->dirty);
    if (actor->down != SENT || address != address_of (sim, actor, actor->version)) {
        lose (sim, peer);
        return;
    }
    note_sent (sim, peer);
    for (size_t i = 0; i < sim->actors[address % sim->actor_count].held_count; i++)
        sim->actors[address % sim->actor_count].held[i].packed = 0;
    peer->replies = peer->requests_out = 0;
    if (sim->model)
        model_flushed (sim->model, model_find (sim->model, address));
    zqb__engine_release (&sim->engine, peer);
}

static void event_flush (sim_t *sim)
{
    while (!zqb__list_empty (&sim->dirty) && !sim->progress->wrong[0])
        flush_peer (sim, ZQB__OF (zqb__peer_t, dirty, sim->dirty.next));
}

static void event_gone (sim_t *sim)
{
    int proxy = sim->proxy_count && one_in (sim, 16);
    line_t *line = &sim->lines[below (sim, proxy ? sim->proxy_count : sim->line_count)];
    if (line->connection >= 0 && one_in (sim, 4)) {
        sim->gone[sim->gone_count++] = *line;
        sim->connection_used[line->connection] = 0;
        line->connection = -1;
    }
    if (one_in (sim, 2) || sim->gone_count >= sim->line_count)
        bury_gone (sim, -1);
}

/* A program ends, and starts anew with nothing. */
static void event_restart (sim_t *sim)
{
    actor_t *actor = any_actor (sim);
    actor->life = any_number (sim) | 1;
    forget_held (actor, actor->worker != ZQB1);
    actor->moved = 0;
    actor->is_new = actor->is_another = 1;
    move_actor (sim, actor);
    memset (actor->recent, 0, sizeof actor->recent);
    actor->next_id += RECENT;
    say (sim, "    %u is restarted\n", (unsigned) actor_number (sim, actor));
}

/* ---- time, and the host */

static void check_next (sim_t *sim)
{
    if (sim->model && !(sim->traits & CROWD) && zqb__engine_next (&sim->engine) != model_next (sim->model))
        violated (sim, "the engine wants to be called at %llu, the model at %llu",
                  (unsigned long long) zqb__engine_next (&sim->engine), (unsigned long long) model_next (sim->model));
}

static void tell_which_request (sim_t *sim, const zqb__request_t *request)
{
    const zqb__peer_t *client = request->lane ? request->lane->client : NULL;
    zqb__body_t body = zqb__stored_body (&request->body);
    uint64_t value;
    if (!client)
        violated (sim, "it is time for a request that nobody wants");
    else
        model_request_is_due (sim->model, client == &sim->engine.nobody ? UINT32_MAX : peer_address (client),
                              request->id, request->arrived,
                              !request->worker && request->extra->aside == ZQB__FOLLOWING,
                              look_at_body (&body, &value));
}

static void tell_whose_it_is (sim_t *sim, zqb__timer_t *timer)
{
    if (timer->kind == ZQB__TIMER_REQUEST)
        tell_which_request (sim, ZQB__OF (zqb__extra_t, timer, timer)->request);
    else if (timer->kind == ZQB__TIMER_WORKER)
        model_is_due (sim->model, DUE_WORKER, peer_address (ZQB__OF (zqb__worker_t, timer, timer)->peer));
    else if (timer->kind == ZQB__TIMER_SERVICE) {
        const zqb__service_t *service = ZQB__OF (zqb__service_t, timer, timer);
        model_is_due (sim->model, DUE_SERVICE, (uint32_t) number_of_name (sim, service->name, service->name_size));
    } else if (timer->kind == ZQB__TIMER_SCALE) {
        const zqb__service_t *service = ZQB__OF (zqb__watch_t, timer, timer)->service;
        model_is_due (sim->model, DUE_SCALE, (uint32_t) number_of_name (sim, service->name, service->name_size));
    } else
        model_is_due (sim->model, DUE_PEER, peer_address (ZQB__OF (zqb__peer_t, timer, timer)));
}

/* As zqb__engine_tick, and the model is told in which order those come who are due at the same time. */
static void tell_what_is_due (sim_t *sim)
{
    zqb__timer_t *timer;
    while ((timer = zqb__heap_due (&sim->engine.timers, sim->engine.now)) != NULL) {
        if (sim->model)
            tell_whose_it_is (sim, timer);
        zqb__engine_due (&sim->engine, timer);
    }
    zqb__engine_bury (&sim->engine);
}

static void tick (sim_t *sim)
{
    step (sim);
    say (sim, "    tick at %llu\n", (unsigned long long) sim->now);
    tell_what_is_due (sim);
    if (modelled (sim))
        model_tick (sim->model);
    check_agreement (sim);
    check_next (sim);
}

static void event_jump (sim_t *sim)
{
    uint64_t beat = sim->limits.heartbeat == UINT64_MAX ? 1000000 : sim->limits.heartbeat;
    pass_time (sim, beat / 2 + any_number (sim) % (beat * (one_in (sim, 16) ? 100 : 2)));
    tick (sim);
}

static int handler (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) request, (void) reply, (void) arg;
    return 0; /* never called: the sink serves */
}

static void event_handle (sim_t *sim)
{
    int service = one_in (sim, 8) ? MMI_FROM : (int) below (sim, sim->service_count);
    int set = one_in (sim, 3);
    if (!one_in (sim, sim->handlers))
        return;
    step (sim);
    say (sim, "    handler of %d: %s\n", service, set ? "set" : "removed");
    int result = zqb__engine_handle (&sim->engine, sim->names[service], set ? handler : NULL, NULL) == 0 ? 0 : errno;
    if (modelled (sim) && model_handle (sim->model, service, set) != result)
        violated (sim, "setting a handler: %s", strerror (result));
    check_agreement (sim);
}

static size_t choose_any (const zqb_worker_info_t *workers, size_t count, void *arg)
{
    (void) workers, (void) count, (void) arg;
    return 0; /* never called: the sink chooses */
}

static void event_policy (sim_t *sim)
{
    int service = (int) more_below (sim, sim->service_count), policy = (int) more_below (sim, 5);
    step (sim);
    say (sim, "    policy of %d: %d\n", service, policy);
    int result = zqb__engine_policy (&sim->engine, sim->names[service], policy, choose_any, NULL) == 0 ? 0 : errno;
    if (modelled (sim) && model_policy (sim->model, service, policy) != result)
        violated (sim, "setting a policy: %s", strerror (result));
    check_agreement (sim);
}

static void on_scale (const zqb_scale_t *scale, void *arg)
{
    (void) scale, (void) arg; /* never called: the sink is told */
}

/* The host wants to know how many workers a service should have, or does not any more. */
static void event_scale (sim_t *sim)
{
    int service = (int) more_below (sim, sim->service_count), ends = more_one_in (sim, 3);
    zqb_scale_options_t options;
    memset (&options, 0, sizeof options);
    options.min = 1 + (int) more_below (sim, 4);
    options.max = options.min + (int) more_below (sim, 8);
    options.queue_per_worker = (int) more_below (sim, 4);
    options.wait_ms = (int) more_below (sim, 1000) - 1;
    options.idle_ms = (int) more_below (sim, 1000);
    step (sim);
    say (sim, "    the workers of %d: %d to %d\n", service, ends ? 0 : options.min, ends ? 0 : options.max);
    int result = 0;
    if (ends)
        zqb__engine_unscale (&sim->engine, sim->names[service]);
    else
        result = zqb__engine_scale (&sim->engine, sim->names[service], &options, on_scale, NULL) == 0 ? 0 : errno;
    if (modelled (sim)
        && model_scale (sim->model, service, (uint32_t) options.min, ends ? 0 : (uint32_t) options.max) != result)
        violated (sim, "scaling: %s", strerror (result));
    check_agreement (sim);
}

/* The host has one worker of a service drained, or all, or one that there is not. */
static void event_host_drains (sim_t *sim)
{
    int service = (int) more_below (sim, sim->service_count);
    uint64_t number = more_one_in (sim, 3) ? 0 : sim->engine.worker_number - more_below (sim, 8);
    step (sim);
    say (sim, "    the host drains %llu of %d\n", (unsigned long long) number, service);
    int result = zqb__engine_drain (&sim->engine, sim->names[service], number) == 0 ? 0 : errno;
    if (modelled (sim) && model_drain (sim->model, service, number) != result)
        violated (sim, "draining: %s", strerror (result));
    check_agreement (sim);
}

static void event_limit (sim_t *sim)
{
    int service = (int) below (sim, sim->service_count);
    uint64_t limit = (1 + (uint64_t) below (sim, 20000)) * MICROSECONDS + MICROSECOND_OF_LIMITS;
    if (one_in (sim, 2))
        limit = UINT64_MAX;
    step (sim);
    say (sim, "    time limit of %d: %llu\n", service, (unsigned long long) limit);
    int result = zqb__engine_limit (&sim->engine, sim->names[service], limit) == 0 ? 0 : errno;
    if (modelled (sim) && model_limit (sim->model, service, limit) != result)
        violated (sim, "setting a time limit: %s", strerror (result));
    check_agreement (sim);
}

/* The broker stood still, and goes on some time later. */
static void event_pause (sim_t *sim, void (*engine_does) (zqb__engine_t *), void (*model_does) (model_t *))
{
    step (sim);
    engine_does (&sim->engine);
    if (modelled (sim))
        model_does (sim->model);
    check_agreement (sim);
}

/* The rules as the engine has them. NULL: there is no memory for them. */
static zqb__rules_t *read_rules (sim_t *sim, const rules_t *rules)
{
    int line;
    size_t size = write_rules (&sim->people, rules, sim->rules_text, RULES_SIZE - 1);
    zqb__rules_t *made = zqb__rules_new ();
    sim->rules_text[size] = 0;
    const char *wrong = made ? zqb__rules_read (made, sim->rules_text, size, &line) : NULL;
    say (sim, "    rules:\n%s", sim->rules_text);
    if (!wrong)
        return made;
    if (!(sim->traits & FAILS))
        violated (sim, "line %d of the rules: %s", line, wrong);
    zqb__rules_free (made);
    return NULL;
}

static named_t services_of (sim_t *sim)
{
    named_t named = {sim->names, sim->name_sizes, {0}, 0};
    for (int i = 0; i < SERVICES_MOST; i++)
        if (i < (int) sim->service_count || (i >= MMI_FROM && i < MMI_FROM + 3)
            || (i >= PATTERNS_FROM && i < MMI_FROM && has (sim, PATTERNS)))
            named.numbers[named.count++] = i;
    return named;
}

/* Most are welcome, and of most things the host says that they are for the rules to say. */
static void draw_host (sim_t *sim)
{
    for (int i = 0; has (sim, WELCOME) && i < PERSONS * PLACES; i++)
        sim->host.unwelcome[i / PLACES][i % PLACES] = (unsigned char) people_one_in (sim, 8);
    signed char *says = sim->host.says[0][0][0];
    for (size_t i = 0; has (sim, ACCESS) && i < sizeof sim->host.says; i++)
        says[i] = (signed char) (people_below (sim, 8) ? -1 : (int) people_below (sim, 2));
}

/* There are other rules, or none any more, or only the host is of another mind, as it may be with them. Not in the
   middle of a crowd: the model does not know of whom the engine remembers nothing, and so not in which order it looks
   at their requests. */
static void change_rules (sim_t *sim)
{
    rules_t rules;
    named_t named = services_of (sim);
    int same = !has (sim, RULES) || people_one_in (sim, 5), none = !same && people_one_in (sim, 5);
    zqb__rules_t *made = NULL;
    draw_rules (&sim->people, &rules, &named);
    if (!same && !none && (made = read_rules (sim, &rules)) == NULL)
        return;
    draw_host (sim);
    say (sim, "    %s\n", same ? "the host is of another mind" : none ? "no rules" : "other rules");
    step (sim);
    if (same)
        zqb__engine_access_changed (&sim->engine);
    else
        zqb__engine_rules (&sim->engine, made);
    if (sim->model && !same)
        model_rules (sim->model, none ? NULL : &rules);
    if (modelled (sim))
        model_access (sim->model, &sim->host);
    check_agreement (sim);
}

/* ---- events: what may happen, and how often, of which each seed makes something else */

#define EVENTS(X)                                                                                                  \
    X (client, 60, event_client (sim, 0)) X (late, 1, event_client (sim, !(sim->traits & CROWD)))                  \
    X (reply, 60, event_answer (sim, REPLY)) X (partial, 8, event_answer (sim, PARTIAL))                           \
    X (error, 4, event_answer (sim, ERROR)) X (stale, 6, event_stale (sim))                                        \
    X (ready, 10, event_worker (sim, READY)) X (heartbeat, 10, event_worker (sim, HEARTBEAT))                      \
    X (disconnect, 3, event_worker (sim, DISCONNECT)) X (malformed, 2, event_malformed (sim))                      \
    X (later, 1, event_of_later_version (sim)) X (down, 2, event_down (sim)) X (lost, 1, event_lost (sim))         \
    X (flush, 20, event_flush (sim)) X (gone, 4, event_gone (sim)) X (restart, 1, event_restart (sim))             \
    X (tick, 16, tick (sim)) X (jump, 2, event_jump (sim)) X (handle, 3, event_handle (sim)) X (limit, 1, event_limit (sim)) \
    X (pause, 1, event_pause (sim, zqb__engine_pause, model_pause)) X (go_on, 4, event_pause (sim, zqb__engine_go_on, model_go_on))

enum {
#define X(name, weight, action) EVENT_##name,
    EVENTS (X)
#undef X
    EVENT_COUNT
};

static const unsigned char event_weights[EVENT_COUNT] = {
#define X(name, weight, action) weight,
    EVENTS (X)
#undef X
};

static const char *const event_names[EVENT_COUNT] = {
#define X(name, weight, action) #name,
    EVENTS (X)
#undef X
};

/* What only happens with one of the features. */
static void feature_happens (sim_t *sim)
{
    switch (more_below (sim, 10)) {
        case 0:
        case 1:
        case 2: event_answer (sim, has (sim, PROGRESSES) ? PROGRESS : PARTIAL); break;
        case 3:
        case 4: if (has (sim, REFUSALS)) event_answer (sim, ERROR); break;
        case 5: if (has (sim, WINDOWS)) event_more (sim); break;
        case 6: if (has (sim, DRAINS)) event_drain (sim); break;
        case 7: if (has (sim, POLICIES)) event_policy (sim); break;
        case 8: if (has (sim, SCALES)) event_scale (sim); break;
        default: if (has (sim, MISSES)) event_missed (sim); break;
    }
}

static void happen (sim_t *sim)
{
    int event = sim->events[any_number (sim) >> 56];
    if (has (sim, ALL_FEATURES) && more_one_in (sim, sim->rarity))
        event = EVENT_COUNT;
    say (sim, "%llu %s\n", (unsigned long long) sim->progress->event,
         event == EVENT_COUNT ? "a feature" : event_names[event]);
    pass_time (sim, below (sim, sim->pace));
    if (has (sim, CHANGES) && !(sim->traits & CROWD) && people_one_in (sim, sim->changes))
        change_rules (sim);
    switch (event) {
#define X(name, weight, action)                                                                                    \
    case EVENT_##name:                                                                                             \
        action;                                                                                                    \
        break;
        EVENTS (X)
#undef X
        default: feature_happens (sim); break;
    }
    if (sim->options->walk && sim->progress->event % sim->options->walk == 0)
        check_structure (sim);
}

/* ---- the making of a world */

static void draw_events (sim_t *sim)
{
    uint32_t weights[EVENT_COUNT], sum = 0, at = 0;
    for (int i = 0; i < EVENT_COUNT; i++)
        sum += weights[i] = (uint32_t) event_weights[i] << below (sim, 5);
    for (int i = 0; i < EVENT_COUNT; i++) {
        uint32_t share = weights[i] * 256 / sum + (i == EVENT_client);
        for (; share > 0 && at < 256; share--)
            sim->events[at++] = (unsigned char) i;
    }
    for (; at < 256; at++) /* what the rounding left: all in turn, so that none is missing */
        sim->events[at] = (unsigned char) (at % EVENT_COUNT);
}

static int draw_limit (sim_t *sim, uint32_t most)
{
    return one_in (sim, 3) && !(sim->traits & CROWD) ? 1 + (int) below (sim, most) : INT_MAX;
}

static uint64_t draw_size (sim_t *sim, uint32_t most)
{
    return one_in (sim, 4) ? 1 + (uint64_t) below (sim, most) : (uint64_t) 64 << 20;
}

static void draw_times (sim_t *sim, zqb__limits_t *limits)
{
    limits->heartbeat = one_in (sim, 16) ? UINT64_MAX : (1 + (uint64_t) below (sim, 10000)) * MICROSECONDS;
    limits->expiry =
        limits->heartbeat == UINT64_MAX || one_in (sim, 16) ? UINT64_MAX : limits->heartbeat * (1 + below (sim, 4));
    limits->no_worker =
        one_in (sim, 8) ? UINT64_MAX : (uint64_t)below (sim, 20000) * MICROSECONDS + MICROSECOND_OF_SERVICES;
    limits->credit = one_in (sim, 4) ? 0 : 1000 * (1 + (uint64_t) below (sim, 5000));
}

static void draw_limits (sim_t *sim)
{
    zqb__limits_t *limits = &sim->limits;
    memset (limits, 0, sizeof *limits);
    draw_times (sim, limits);
    limits->attempts = one_in (sim, 8) ? INT_MAX : 1 + (int) below (sim, 4);
    limits->services = draw_limit (sim, 6);
    limits->workers = draw_limit (sim, 12);
    limits->clients = draw_limit (sim, 10);
    limits->requests = draw_limit (sim, 60);
    limits->queue = draw_limit (sim, 20);
    limits->no_worker_queue = draw_limit (sim, 12);
    limits->outstanding = draw_limit (sim, 10);
    limits->frames = one_in (sim, 4) ? 1 + (uint64_t) below (sim, 8) : 1000;
    limits->message = draw_size (sim, 1000);
    limits->bytes = draw_size (sim, 10000);
    if (limits->requests == INT_MAX && !(sim->traits & (FULL | CROWD)))
        limits->requests = 300; /* or else a service without workers fills our memory, and the model's patience */
}

/* In milliseconds or some more of them. */
static void draw_more_limits (sim_t *sim)
{
    zqb__limits_t *limits = &sim->limits;
    limits->ageing = has (sim, AGEING) ? 1 + more_below (sim, 1u << more_below (sim, 24)) : UINT64_MAX;
    limits->rest_failures = has (sim, RESTS) ? 1 + (int) more_below (sim, 5) : INT_MAX;
    limits->rest = (1 + (uint64_t) more_below (sim, 10000)) * MICROSECONDS;
    limits->slow = has (sim, RESTS) && more_one_in (sim, 2) ? more_below (sim, 1u << more_below (sim, 20)) : UINT64_MAX;
}

/* Anything below that power of two, or no limit. */
static uint64_t draw_rate (sim_t *sim, uint32_t bits)
{
    return people_below (sim, 2) ? 1 + people_below (sim, 1u << people_below (sim, bits + 1)) : 0;
}

/* From few requests to many in the time of a run. Of who is forgotten nothing is remembered, which in crowds the model
   does not know. */
static void draw_shares (sim_t *sim)
{
    zqb__limits_t *limits = &sim->limits;
    if (!has (sim, SHARES))
        return;
    limits->user_outstanding = people_below (sim, 2) ? 1 + people_below (sim, 16) : 0;
    if (sim->traits & CROWD)
        return;
    limits->user_requests = draw_rate (sim, 12);
    limits->user_bytes = draw_rate (sim, 24);
    limits->client_requests = draw_rate (sim, 10);
    limits->client_bytes = draw_rate (sim, 22);
}

static model_limits_t limits_of_model (const zqb__limits_t *limits, uint32_t features)
{
    model_limits_t copy = {limits->heartbeat, limits->expiry, limits->no_worker, limits->credit, limits->attempts,
                           limits->services, limits->workers, limits->clients, limits->requests, limits->queue,
                           limits->no_worker_queue, limits->outstanding, limits->frames, limits->message, limits->bytes,
                           limits->ageing, limits->rest, limits->slow, limits->rest_failures,
                           (features & OUTCOMES) != 0, (features & FILTERS) != 0, ZQB__HAND_BYTES,
                           limits->user_outstanding, limits->user_requests, limits->user_bytes,
                           limits->client_requests, limits->client_bytes, (features & USERS) != 0,
                           (features & WELCOME) != 0};
    return copy;
}

static void draw_roles (sim_t *sim, actor_t *actor)
{
    static const int clients[] = {ZQB1, ZQB1, MDP01, MDP02}, workers[] = {ZQB1, ZQB1, MDP01, MDP01_WORDS, MDP02},
                     backends[] = {LRU, PPP, PPP_WORDS};
    int is_client = one_in (sim, sim->traits & CROWD ? 1 : 2), is_worker = !is_client || one_in (sim, 8);
    actor->port = one_in (sim, 5) ? is_client ? 1 : 2 : 0;
    actor->client = !is_client ? -1 : actor->port ? LRU : clients[below (sim, 4)];
    actor->worker = !is_worker || actor->port == 1 ? -1
                    : actor->port                  ? backends[below (sim, 3)]
                                                   : workers[below (sim, 5)];
    int speaks_both = actor->client == ZQB1 || actor->worker == ZQB1;
    if (actor->client >= 0 && actor->worker >= 0 && speaks_both && !(sim->traits & CHAMELEONS))
        actor->client = actor->worker = ZQB1;
}

static void teach_to_refuse (sim_t *sim)
{
    for (uint32_t i = 0; i < sim->actor_count; i++) {
        actor_t *actor = &sim->actors[i];
        if (actor->port || actor->worker < 0)
            continue;
        actor->worker = ZQB1;
        actor->client = actor->client < 0 ? -1 : ZQB1;
    }
    sim->service_count = 1;
}

static void draw_actors (sim_t *sim)
{
    uint32_t proxies = sim->traits & CROWD ? 1 : one_in (sim, 3) ? 1 + below (sim, 3) : 0;
    sim->actors = (actor_t *) must (calloc (sim->actor_count, sizeof *sim->actors));
    for (uint32_t i = 0; i < sim->actor_count; i++) {
        actor_t *actor = &sim->actors[i];
        draw_roles (sim, actor);
        actor->life = any_number (sim) | 1;
        actor->person = has (sim, USERS) ? draw_person (sim) : ANONYMOUS;
        actor->fixed = one_in (sim, 4);
        actor->line = actor->port == 0 && proxies && one_in (sim, 2) ? below (sim, proxies) : proxies + i;
    }
    sim->proxy_count = proxies;
    sim->line_count = sim->actor_count + proxies;
    sim->lines = (line_t *) must (calloc (sim->line_count, sizeof *sim->lines));
    for (uint32_t i = 0; i < sim->line_count; i++) {
        sim->lines[i].connection = -1;
        sim->lines[i].port = i < proxies ? 0 : sim->actors[i - proxies].port;
    }
    sim->connection_used = (unsigned char *) must (calloc (sim->line_count + 1, 1));
    sim->gone = (line_t *) must (calloc (sim->line_count + 1, sizeof *sim->gone));
}

/* All of the last with digits, all of some of them, and one whose whole name is an asterisk. */
static void draw_patterns (sim_t *sim)
{
    static const char *const patterns[MMI_FROM - PATTERNS_FROM] = {"svc-*",   "svc-0*", "svc-00*", "svc-01*",
                                                                   "svc-00x*", "*",      "s*",      "svc-1*"};
    sim->service_count = sim->service_count < PATTERNS_FROM ? sim->service_count : PATTERNS_FROM;
    for (int i = PATTERNS_FROM; i < MMI_FROM; i++) {
        strcpy (sim->names[i], patterns[i - PATTERNS_FROM]);
        sim->name_sizes[i] = (uint8_t) strlen (patterns[i - PATTERNS_FROM]);
    }
}

static void draw_names (sim_t *sim)
{
    for (int i = 0; i < SERVICES_MOST; i++) {
        size_t size = one_in (sim, 4) ? 6 + below (sim, 250) : 6;
        memset (sim->names[i], 'x', sizeof sim->names[i]);
        memcpy (sim->names[i], i < MMI_FROM ? "svc-" : "mmi.", 4);
        sim->names[i][4] = (char) ('0' + i / 10);
        sim->names[i][5] = (char) ('0' + i % 10);
        sim->names[i][size] = 0;
        sim->name_sizes[i] = (uint8_t) size;
    }
    if (has (sim, PATTERNS))
        draw_patterns (sim);
}

/* In crowds more peers are idle than the engine remembers, and the model remembers all. So that it makes no difference,
   nobody changes his dialect there, sends late, or comes back to an address after another. */
static void draw_traits (sim_t *sim)
{
    sim->traits = one_in (sim, 2) ? PACKS : 0;
    sim->traits |= one_in (sim, 200) ? CROWD : 0;
    sim->traits |= one_in (sim, 4) && !(sim->traits & CROWD) ? CHAMELEONS : 0;
    sim->traits |= one_in (sim, 3) ? MMI : 0;
    sim->traits |= one_in (sim, 50) ? FULL : 0;
    sim->traits |= sim->options->seed % 8 == 7 ? FAILS : 0;
    sim->actor_count = sim->traits & CROWD  ? 1500 + below (sim, 4500)
                       : sim->traits & FULL ? 40 + below (sim, 200)
                                            : 2 + below (sim, 30);
    sim->service_count = 1 + below (sim, one_in (sim, 8) ? 20 : 4);
    sim->pace = 16u << below (sim, 12);
    sim->trouble = 1u << below (sim, 8);
    sim->handlers = 1u << below (sim, 8);
}

/* A fourth of the seeds has none of the features, and some have them all. */
static void draw_features (sim_t *sim)
{
    uint32_t kind = more_below (sim, 8), rare = 1 + more_below (sim, 5);
    sim->features = kind == 2 ? ALL_FEATURES : 0;
    for (uint32_t feature = 1; kind > 2 && feature < ALL_FEATURES; feature *= 2)
        sim->features |= more_one_in (sim, rare + 1) ? feature : 0;
    sim->rarity = 2u << more_below (sim, 6);
    sim->patience = 2u << more_below (sim, 5); /* at most STUBBORN */
}

/* Half of the seeds have none of these. */
static void draw_people (sim_t *sim)
{
    uint32_t kind = people_below (sim, 8);
    sim->user_count = 1 + people_below (sim, IN_PROCESS - USERS_FROM);
    sim->changes = 16u << people_below (sim, 8);
    memset (sim->host.says, -1, sizeof sim->host.says);
    if (kind < 4)
        return;
    sim->features |= kind == 4 || people_below (sim, 8) ? USERS : 0;
    sim->features |= kind == 4 || people_below (sim, 3) ? RULES : 0;
    sim->features |= kind == 4 || people_one_in (sim, 3) ? ACCESS : 0;
    sim->features |= kind == 4 || people_one_in (sim, 3) ? WELCOME : 0;
    sim->features |= kind == 4 || people_below (sim, 2) ? SHARES : 0;
}

static void draw_world (sim_t *sim)
{
    sim->chance.state = sim->options->seed * 0x9e3779b97f4a7c15u;
    sim->more.state = ~sim->options->seed * 0xbf58476d1ce4e5b9u;
    sim->people.state = ~sim->options->seed * 0x94d049bb133111ebu;
    draw_traits (sim);
    draw_features (sim);
    draw_people (sim);
    sim->features &= (uint32_t) sim->options->features;
    draw_events (sim);
    draw_limits (sim);
    draw_more_limits (sim);
    draw_shares (sim);
    draw_actors (sim);
    if (is_stubborn (sim))
        teach_to_refuse (sim);
    draw_names (sim);
    sim->now = one_in (sim, 2) ? 0 : any_number (sim) >> 20;
    pass_time (sim, 1);
    zqb__list_init (&sim->dirty);
    open_entry (sim, 0, 0); /* number 0 is nobody's */
}

static int open_engine (sim_t *sim)
{
    zqb__sink_t sink = {sim,  sink_send,   sink_serve, sink_dead, sink_log, NULL,
                        NULL, sink_choose, sink_scale, NULL,      NULL,     NULL};
    if (has (sim, FILTERS))
        sink.filter = sink_filter;
    if (has (sim, OUTCOMES))
        sink.outcome = sink_outcome;
    if (has (sim, USERS))
        sink.identify = sink_identify;
    if (has (sim, ACCESS))
        sink.access = sink_access;
    if (has (sim, WELCOME))
        sink.welcome = sink_welcome;
    uint64_t key = any_number (sim);
    if (zqb__engine_init (&sim->engine, &sim->limits, &sink, key, sim->now) != 0) {
        if (memory.alive || !memory.failed)
            violated (sim, "init failed, and left memory behind");
        memory.fails_one_in = 0;
        if (zqb__engine_init (&sim->engine, &sim->limits, &sink, key, sim->now) != 0)
            return -1;
    }
    if (sim->traits & MMI)
        sim->engine.mmi.handler = handler;
    return 0;
}

static void open_world (sim_t *sim)
{
    memset (&memory, 0, sizeof memory);
    memory.chance.state = ~sim->options->seed;
    large_alive = 0;
    draw_world (sim);
    if (sim->traits & FAILS)
        memory.fails_one_in = 4u << below (sim, 8);
    uint32_t fails = memory.fails_one_in;
    if (open_engine (sim) != 0)
        violated (sim, "init failed");
    memory.fails_one_in = fails;
    model_limits_t limits = limits_of_model (&sim->limits, sim->features);
    limits.identifies &= !(sim->traits & CROWD);
    if (!(sim->traits & FAILS))
        sim->model = model_new (&limits, sim->actor_count * VERSIONS, sim->traits & MMI, sim->now, sim->names,
                                sim->name_sizes);
}

static void finish (sim_t *sim)
{
    bury_gone (sim, -1);
    check_structure (sim);
    step (sim);
    say (sim, "the end\n");
    zqb__engine_finish (&sim->engine);
    if (modelled (sim))
        model_finish (sim->model);
    check_agreement (sim);
    event_flush (sim);
    if (sim->progress->wrong[0])
        return;
    zqb__engine_close (&sim->engine);
    if (memory.alive)
        violated (sim, "%lld allocations were not freed", (long long) memory.alive);
    if (large_alive)
        violated (sim, "%lld large frames were not closed", (long long) large_alive);
}

static void close_world (sim_t *sim)
{
    if (sim->model)
        model_free (sim->model);
    for (uint32_t i = 0; i < sim->actor_count; i++) {
        free (sim->actors[i].held);
        free (sim->actors[i].later);
    }
    free (sim->actors);
    free (sim->lines);
    free (sim->connection_used);
    free (sim->gone);
    free (sim->outputs);
    free (sim->entries);
}

int sim_run (const sim_options_t *options, sim_progress_t *progress)
{
    sim_t *sim = (sim_t *) must (calloc (1, sizeof *sim));
    for (size_t i = 0; i < PATTERN_SIZE && !pattern[1]; i++)
        pattern[i] = (unsigned char) (i * 2654435761u >> 13);
    sim->options = options;
    sim->progress = progress;
    progress->event = 0;
    progress->seed = options->seed;
    open_world (sim);
    if (has (sim, CHANGES) && people_below (sim, 2))
        change_rules (sim);
    while (progress->event < options->events && !progress->wrong[0]) {
        progress->event++;
        happen (sim);
    }
    if (!progress->wrong[0]) {
        progress->event++;
        finish (sim);
    }
    close_world (sim);
    free (sim);
    return progress->wrong[0] ? -1 : 0;
}
