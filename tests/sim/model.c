/*  See model.h. Read it beside the manual of zqbroker.h: each function is a sentence of it. */

#include "model.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers in a row: of requests in a queue, of workers of a service. */
typedef struct row_t {
    int *at;
    size_t count, capacity;
} row_t;

/* Priorities, from the lowest; who refused something; one-way requests of clients that are gone are nobody's. */
enum { RANKS = 9, NORMAL = 4, REFUSALS_MOST = 8, SLOTS = 4096, NOBODY = -2, MORES_MOST = 32 };
/* Where a request is. All of these but RUNNING count as queued. */
enum { UNUSED, QUEUED, DELAYED, PINNED, FOLLOWING, SURVEYING, RUNNING };
/* Why nobody wants it any more. */
enum { WANTED, IS_CANCELLED, IS_EXPIRED, IS_GONE };

typedef struct request_t {
    int state, service, name, client; /* -1: nobody wants the answer */
    int person;       /* whose it is */
    int worker; /* whose hand or list it is in; -1: none */
    int rank, attempts, gathers, fate;
    int mores;        /* so often its worker was told of parts that were read, less the parts that came since */
    int named;        /* its worker hears what it calls the service */
    int key;          /* others with this one join it; 0: none */
    uint64_t fronted; /* when it came among those of its lane that are not queued */
    uint64_t id, token, accepted, arrived; /* that is later if it was delayed */
    uint64_t begins, ends, timer; /* begins: 0 at once; the others: NEVER none */
    asked_t asked;
    row_t followers;
    int leader;
    uint64_t refused_by[REFUSALS_MOST];
    int refusals;
    int survey;   /* of one that is a part of it; -1 */
    row_t parts;  /* of one: those that have not ended */
    int asked_of, answered;
    body_t body, gathered;
} request_t;

typedef struct service_t {
    int known, handler, policy;
    uint64_t made; /* which of all services was made when */
    uint64_t alone_since, timer, limit;
    row_t queue; /* by arrival; what was given back is first */
    row_t ranked[RANKS]; /* the same by priority, in the order in which each client's has its turn */
    row_t turns[RANKS];  /* clients that have something in it */
    row_t hasty; /* of those queued: what does not wait without a worker */
    row_t delayed, workers;
    int pinned;
    int *slots; /* whose is what; NULL none */
    uint64_t watched;            /* when it is looked at how many workers it should have */
    uint32_t least, most, told;  /* of these; most 0: nobody wants to know */
} service_t;

/* The requests of a client for a service with a priority: which, and how many. The order of these is that in which what
   it had is given up when it is lost. An empty one is kept if it was the last that it used. */
typedef struct lane_t {
    uint64_t which, made;
    int count;
} lane_t;

/* When what somebody has asked for, and the bytes of it, are paid for, in nanoseconds. */
typedef struct account_t {
    uint64_t requests, bytes;
} account_t;

typedef struct peer_t {
    uint32_t address, former;
    lane_t *lanes;
    size_t lane_count, lane_capacity;
    uint64_t lane; /* the last that it used */
    uint64_t life, said_life;
    int person;
    account_t own, account; /* the latter of one who is no user */
    int place; /* where its connection leads, if it has one */
    int connection, dialect[2], outstanding, failed;
    uint64_t timer; /* so long it may take to come back */
    uint64_t packed; /* replies that wait to be sent */
    uint64_t asked;  /* requests that do: the last in its hand */
    int given_up;    /* it did not come back */
    struct {
        int service; /* -1: it is none */
        int adapts;
        uint32_t credit;
        int level;      /* where it stands in the order of choice; -1: no room */
        int64_t placed; /* whoever came to a level first has waited longest there */
        uint64_t number; /* in order of registration */
        row_t pins[RANKS]; /* what waits for it */
        int slots, draining;
        int failures, rests, resting, probation;
        uint64_t rested;
        uint64_t served, failed, slow;
        uint64_t told, heard, timer, beat, expiry;
        uint64_t bytes, since, busy, done;
        row_t hand;
    } worker;
} peer_t;

/* What the engine did in a tick, in its order. A request is who asked, and what for: it has no other name. */
typedef struct due_t {
    int kind, number, done, follows;
    uint64_t id, arrived;
    body_t body;
} due_t;

struct model_t {
    model_limits_t limits;
    counters_t counters;
    uint64_t now, order;
    const output_t *outputs;
    size_t count, next;
    char verdict[512];
    int mmi, paused, ending;
    int may_wait; /* there was a request that asked for its time */
    service_t services[SERVICES_MOST];
    peer_t *peers;
    int peer_count;
    int *peer_at; /* by address; -1 nobody */
    uint32_t addresses;
    request_t *requests;
    int request_count, request_capacity;
    uint64_t worker_number;
    row_t unused, failed;
    account_t accounts[PERSONS];
    const rules_t *rules; /* NULL: none */
    rules_t own_rules;
    host_t host;
    due_t *due;
    size_t due_count, due_capacity;
    char (*names)[256];
    const uint8_t *name_sizes;
};

const char *const command_names[] = {"?",     "READY",     "REQUEST",    "PARTIAL", "REPLY",
                                     "ERROR", "HEARTBEAT", "DISCONNECT", "CANCEL",  "PROGRESS", "MORE",
                                     "DRAIN", "dead letter", "filter", "outcome", "choice", "scale",
                                     "question who it is"};

const char *const place_names[PLACES] = {"", "here", "there"};
const char *const user_names[PERSONS] = {NULL, "ann", "anna", "bob", "bo*", "-", "@inproc", NULL};

enum { NO_FORMER = UINT32_MAX >> 1 };

/* ---- rows */

static void *must_have (void *memory)
{
    if (!memory)
        abort (); /* the model's own memory never fails; nothing can be told without it */
    return memory;
}

static void row_insert (row_t *row, size_t place, int value)
{
    if (row->count == row->capacity) {
        row->capacity = row->capacity ? row->capacity * 2 : 8;
        row->at = (int *) must_have (realloc (row->at, row->capacity * sizeof *row->at));
    }
    memmove (row->at + place + 1, row->at + place, (row->count - place) * sizeof *row->at);
    row->at[place] = value;
    row->count++;
}

static void row_append (row_t *row, int value)
{
    row_insert (row, row->count, value);
}

static void row_remove (row_t *row, int value)
{
    size_t place = 0;
    while (place < row->count && row->at[place] != value)
        place++;
    if (place == row->count)
        return;
    row->count--;
    memmove (row->at + place, row->at + place + 1, (row->count - place) * sizeof *row->at);
}

/* ---- bodies */

body_t body_join (body_t first, body_t second)
{
    body_t both = {first.fold, first.frames + second.frames, first.bytes + second.bytes};
    for (uint64_t i = 0; i < second.frames; i++)
        both.fold *= 0x100000001b3u;
    both.fold += second.fold;
    return both;
}

static body_t fold_values (const uint64_t *values, int count)
{
    body_t body = {0, 1, 0};
    for (int i = 0; i < count; i++)
        body.fold = (body.fold ^ values[i]) * 0x9e3779b97f4a7c15u;
    return body;
}

body_t body_of_worker (const uint64_t values[7])
{
    return fold_values (values, 7);
}

body_t body_of_service (const uint64_t values[4])
{
    return fold_values (values, 4);
}

static int body_same (body_t a, body_t b)
{
    return a.fold == b.fold && a.frames == b.frames && a.bytes == b.bytes;
}

/* ---- expectations */

static void say_output (char *text, size_t size, const output_t *o)
{
    if (o->served)
        snprintf (text, size, "a handler of service %d, body %llx", o->service, (unsigned long long) o->body.fold);
    else
        snprintf (text, size,
                  "%s to %s at %u: status %d, service %d, user %d, id %llx, text %llx, body %llx (%d frames, %d bytes)",
                  command_names[o->type], o->side == WORKER ? "worker" : "client", (unsigned) o->address, o->status,
                  o->service, o->user, (unsigned long long) o->id, (unsigned long long) o->text,
                  (unsigned long long) o->body.fold, (int) o->body.frames, (int) o->body.bytes);
}

static void differs (model_t *model, const output_t *mine, const output_t *theirs)
{
    char wanted[200] = "nothing", got[200] = "nothing";
    if (model->verdict[0])
        return;
    if (mine)
        say_output (wanted, sizeof wanted, mine);
    if (theirs)
        say_output (got, sizeof got, theirs);
    snprintf (model->verdict, sizeof model->verdict, "output %d: the model says %s; the engine said %s",
              (int) model->next, wanted, got);
}

static const output_t *look_ahead (const model_t *model)
{
    return model->next < model->count ? &model->outputs[model->next] : NULL;
}

/* Which of the two says less is said by `learns`: tokens are the engine's to choose. */
static int output_same (const output_t *mine, const output_t *theirs)
{
    int learns = mine->type == REQUEST && mine->side == WORKER;
    return mine->served == theirs->served && mine->service == theirs->service && mine->user == theirs->user
           && body_same (mine->body, theirs->body) && mine->credit == theirs->credit
           && memcmp (&mine->seen, &theirs->seen, sizeof mine->seen) == 0
           && (mine->served
               || (mine->code == theirs->code && mine->deadline_ms == theirs->deadline_ms
                   && mine->window == theirs->window && mine->progress.has == theirs->progress.has
                   && mine->progress.done == theirs->progress.done && mine->progress.total == theirs->progress.total
                   && mine->address == theirs->address && mine->side == theirs->side && mine->type == theirs->type
                   && mine->status == theirs->status && mine->text == theirs->text
                   && (learns || mine->id == theirs->id)));
}

/* The engine's version of an output, or NULL if it is not what should come now. */
static const output_t *expect (model_t *model, const output_t *mine)
{
    const output_t *theirs = look_ahead (model);
    if (!theirs || !output_same (mine, theirs)) {
        differs (model, mine, theirs);
        return NULL;
    }
    model->next++;
    return theirs;
}

void model_expect (model_t *model, const output_t *outputs, size_t count, uint64_t now)
{
    model->outputs = outputs;
    model->count = count;
    model->next = 0;
    model->now = now;
}

const char *model_verdict (model_t *model)
{
    if (model->next < model->count)
        differs (model, NULL, look_ahead (model));
    return model->verdict[0] ? model->verdict : NULL;
}

const counters_t *model_counters (const model_t *model)
{
    return &model->counters;
}

/* ---- sending */

static uint64_t after (uint64_t now, uint64_t span)
{
    return span >= NEVER - now ? NEVER : now + span;
}

static int is_worker (const peer_t *peer)
{
    return peer->worker.service >= 0;
}

static int has_heartbeats (int dialect)
{
    return dialect != LRU;
}

static int has_partials (int dialect)
{
    return dialect == ZQB1 || dialect == MDP02;
}

static int has_disconnect (int dialect)
{
    return dialect == ZQB1 || dialect == MDP01 || dialect == MDP01_WORDS || dialect == MDP02;
}

static int can_say (int dialect, int type)
{
    switch (type) {
        case PARTIAL: return has_partials (dialect);
        case ERROR:
        case CANCEL:
        case PROGRESS:
        case MORE:
        case DRAIN: return dialect == ZQB1;
        case HEARTBEAT: return has_heartbeats (dialect);
        case DISCONNECT: return has_disconnect (dialect);
        default: return 1;
    }
}

static void place (model_t *model, peer_t *peer);

static void fail (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    if (peer->failed)
        return;
    peer->failed = 1;
    row_append (&model->failed, number);
    if (is_worker (peer))
        place (model, peer);
}

/* -1: it could not be reached. Whoever has no word for it was told all that it can be told. */
static int tell (model_t *model, int to, output_t *mine)
{
    peer_t *peer = &model->peers[to];
    if (peer->failed)
        return -1;
    if (!can_say (peer->dialect[mine->side], mine->type))
        return 0;
    if (mine->side == WORKER)
        peer->worker.told = model->now;
    mine->address = peer->address;
    const output_t *theirs = expect (model, mine);
    int result = theirs ? theirs->result : SENT;
    if (theirs)
        mine->id = theirs->id;
    if (theirs && theirs->packed && result == SENT && mine->type == REPLY)
        peer->packed++;
    if (theirs && theirs->packed && result == SENT && mine->type == REQUEST)
        peer->asked++;
    if (result == SENT || (result == NOT_READ && mine->type == HEARTBEAT))
        return 0;
    model->counters.unsendable++;
    fail (model, to);
    return -1;
}

static output_t output (int side, int type, uint64_t id)
{
    output_t mine;
    memset (&mine, 0, sizeof mine);
    mine.side = side;
    mine.type = type;
    mine.id = id;
    mine.service = -1;
    return mine;
}

static void send_away (model_t *model, int peer, int status)
{
    output_t mine = output (WORKER, DISCONNECT, 0);
    mine.status = status;
    tell (model, peer, &mine);
}

/* ---- services */

static service_t *require_service (model_t *model, int number)
{
    service_t *service = &model->services[number];
    if (service->known)
        return service;
    if (model->counters.services >= (uint64_t) model->limits.services)
        return NULL;
    service->known = 1;
    service->made = ++model->order;
    service->alone_since = model->now;
    service->timer = service->limit = service->watched = NEVER;
    model->counters.services++;
    return service;
}

/* A service with neither workers nor requests nor a handler is forgotten; queued requests do not wait for ever. */
static void settle (model_t *model, int number)
{
    service_t *service = &model->services[number];
    if (service->workers.count || service->handler)
        return;
    if (service->queue.count) {
        uint64_t arrived = model->requests[service->queue.at[0]].arrived;
        uint64_t since = arrived > service->alone_since ? arrived : service->alone_since;
        if (service->timer == NEVER)
            service->timer = after (since, model->limits.no_worker);
        return;
    }
    if (service->limit != NEVER || service->policy || service->most || service->delayed.count)
        return;
    service->known = 0;
    service->timer = NEVER;
    free (service->slots);
    service->slots = NULL;
    model->counters.services--;
}

/* 0 to 7 are told apart; then 8 to 15 are as good as each other, 16 to 31, ... */
static int level_of (size_t load)
{
    int level = 0;
    if (load < 8)
        return (int) load;
    for (size_t from = 16; from <= load && level < 13; from *= 2)
        level++;
    return 8 + level;
}

/* However many it may hold, behind large bodies nothing waits. One that rests gets nothing, and then one. */
static int has_room (const peer_t *peer, uint64_t hand)
{
    size_t load = peer->worker.hand.count;
    if (peer->failed || load >= peer->worker.credit || peer->worker.resting)
        return 0;
    return load == 0 || (peer->worker.bytes < hand && !peer->worker.probation);
}

/* Where it stands in the order of choice. */
static int choice_level (const peer_t *peer, int policy)
{
    switch (policy) {
        case LEAST: return (int) ((uint64_t) peer->worker.hand.count * 22 / peer->worker.credit);
        case ROUND_ROBIN: return 0;
        default: return level_of (peer->worker.hand.count);
    }
}

static void stand_last (model_t *model, peer_t *peer, int policy)
{
    peer->worker.placed = policy == MRU ? -(int64_t) ++model->order : (int64_t) ++model->order;
}

/* The load of a worker has changed. */
static void place (model_t *model, peer_t *peer)
{
    int policy = model->services[peer->worker.service].policy;
    int level = has_room (peer, model->limits.hand) ? choice_level (peer, policy) : -1;
    if (level != peer->worker.level)
        stand_last (model, peer, policy);
    peer->worker.level = level;
}

/* Whether a worker comes before another in the order of choice. */
static int comes_before (const peer_t *a, const peer_t *b)
{
    return a->worker.level != b->worker.level ? a->worker.level < b->worker.level
                                              : a->worker.placed < b->worker.placed;
}

/* The first in the order of choice that has room and comes behind another, or, behind -1, of all; -1: none. */
static int next_choice (const model_t *model, const service_t *service, int behind)
{
    int best = -1;
    for (size_t i = 0; i < service->workers.count; i++) {
        int number = service->workers.at[i];
        const peer_t *peer = &model->peers[number];
        if (peer->worker.level >= 0 && (behind < 0 || comes_before (&model->peers[behind], peer))
            && (best < 0 || comes_before (peer, &model->peers[best])))
            best = number;
    }
    return best;
}

/* The host is shown the workers, which must be as they are, and chooses. */
static body_t look_of_worker (const model_t *model, const peer_t *peer)
{
    size_t load = peer->worker.hand.count;
    uint64_t values[7] = {peer->worker.number, load,                 peer->worker.credit,
                          peer->worker.served, peer->worker.failed,  peer->worker.slow,
                          load ? 0 : model->now - peer->worker.since};
    return body_of_worker (values);
}

static int ask_host (model_t *model, const service_t *service)
{
    int worker = -1, chosen = -1;
    output_t mine = output (CLIENT, CHOICE, 0);
    const output_t *theirs = look_ahead (model);
    mine.service = (int) (service - model->services);
    for (uint64_t i = 0; i < 64 && (worker = next_choice (model, service, worker)) >= 0; i++) {
        const peer_t *peer = &model->peers[worker];
        mine.body = body_join (mine.body, look_of_worker (model, peer));
        if (chosen < 0 || (theirs && theirs->credit == i))
            chosen = worker;
    }
    mine.credit = theirs ? theirs->credit : 0;
    expect (model, &mine);
    return chosen;
}

/* The first in the order of choice; -1: nobody has room. */
static int choose (model_t *model, const service_t *service)
{
    if (model->paused || next_choice (model, service, -1) < 0)
        return -1;
    return service->policy == CUSTOM ? ask_host (model, service) : next_choice (model, service, -1);
}

/* ---- credit that follows the pace of a worker */

/* As many as it does in the time of limits.credit, by the average since the last look, which was that time ago, or a
   millisecond, or four hands; at most doubled at once. */
static void adapt (model_t *model, peer_t *peer)
{
    uint64_t span = model->limits.credit < 1000000 ? model->limits.credit : 1000000;
    int enough = peer->worker.busy * 1000 >= span || peer->worker.done >= 4 * (uint64_t) peer->worker.credit;
    if (!peer->worker.adapts || peer->failed || !peer->worker.credit || peer->worker.done == 0 || !enough)
        return;
    uint64_t pace = peer->worker.busy * 1000 / peer->worker.done;
    uint64_t worth = model->limits.credit / (pace ? pace : 1);
    if (worth > 2 * (uint64_t) peer->worker.credit)
        worth = 2 * (uint64_t) peer->worker.credit;
    peer->worker.credit = worth < 1 ? 1 : worth > 1000 ? 1000 : (uint32_t) worth;
    peer->worker.busy = peer->worker.done = 0;
}

static void count_done (model_t *model, peer_t *peer)
{
    peer->worker.served++;
    if (peer->worker.since != model->now) {
        adapt (model, peer);
        peer->worker.busy += model->now - peer->worker.since;
        peer->worker.since = model->now;
    }
    peer->worker.done++;
}

static void begin_work (model_t *model, peer_t *peer)
{
    adapt (model, peer);
    peer->worker.since = model->now;
}

/* ---- requests */

static int new_request (model_t *model)
{
    if (model->unused.count)
        return model->unused.at[--model->unused.count];
    if (model->request_count == model->request_capacity) {
        size_t before = (size_t) model->request_capacity, capacity = before ? before * 2 : 64;
        model->requests =
            (request_t *) must_have (realloc (model->requests, capacity * sizeof *model->requests));
        memset (model->requests + before, 0, (capacity - before) * sizeof *model->requests);
        model->request_capacity = (int) capacity;
    }
    return model->request_count++;
}

static uint64_t lane_of (const model_t *model, int service, int rank)
{
    return model->services[service].made * RANKS + (uint64_t) rank;
}

static lane_t *find_lane (peer_t *peer, uint64_t which)
{
    for (size_t i = 0; i < peer->lane_count; i++)
        if (peer->lanes[i].which == which)
            return &peer->lanes[i];
    return NULL;
}

static void rest_lane (peer_t *peer, lane_t *lane)
{
    if (!lane || lane->count || lane->which == peer->lane)
        return;
    size_t behind = (size_t) (peer->lanes + --peer->lane_count - lane);
    memmove (lane, lane + 1, behind * sizeof *lane);
}

static void use_lane (model_t *model, int client, int service, int rank)
{
    peer_t *peer = &model->peers[client < 0 ? 0 : client];
    uint64_t which = lane_of (model, service, rank), before = peer->lane;
    if (client < 0)
        return;
    if (!find_lane (peer, which)) {
        if (peer->lane_count == peer->lane_capacity) {
            peer->lane_capacity = peer->lane_capacity ? peer->lane_capacity * 2 : 4;
            peer->lanes = (lane_t *) must_have (realloc (peer->lanes, peer->lane_capacity * sizeof *peer->lanes));
        }
        peer->lanes[peer->lane_count].which = which;
        peer->lanes[peer->lane_count].made = ++model->order;
        peer->lanes[peer->lane_count++].count = 0;
    }
    peer->lane = which;
    if (before != which)
        rest_lane (peer, find_lane (peer, before));
}

/* It is the client's from now on, there. */
static void attach (model_t *model, request_t *request, int client)
{
    request->client = client;
    request->fronted = ++model->order;
    if (client < 0)
        return;
    peer_t *peer = &model->peers[client];
    find_lane (peer, lane_of (model, request->service, request->rank))->count++;
    if (peer->outstanding++ == 0)
        model->counters.clients++;
}

static void detach (model_t *model, request_t *request)
{
    int client = request->client;
    if (client == -1)
        return;
    request->client = -1;
    if (client < 0)
        return;
    peer_t *peer = &model->peers[client];
    lane_t *lane = find_lane (peer, lane_of (model, request->service, request->rank));
    lane->count--;
    rest_lane (peer, lane);
    if (--peer->outstanding == 0)
        model->counters.clients--;
}

/* What was gathered of a reply is no longer kept. */
static void forget_parts (model_t *model, request_t *request)
{
    if (request->gathers)
        model->counters.bytes -= request->gathered.bytes;
    request->gathers = 0;
}

static void forget (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    detach (model, request);
    forget_parts (model, request);
    model->counters.bytes -= request->body.bytes;
    request->state = UNUSED;
    request->timer = NEVER;
    request->key = 0;
    row_append (&model->unused, number);
}

/* When something happens to it: its deadline is over, or it may begin. */
static void set_request_timer (request_t *request)
{
    request->timer = request->ends;
    if (request->state == DELAYED && request->begins < request->timer)
        request->timer = request->begins;
}

/* ---- queues */

/* The first that a client has queued for a service with a priority; -1: nothing. */
static int first_of (const model_t *model, const service_t *service, int client, int rank)
{
    const row_t *ranked = &service->ranked[rank];
    for (size_t i = 0; i < ranked->count; i++)
        if (model->requests[ranked->at[i]].client == client)
            return ranked->at[i];
    return -1;
}

/* From nowhere into a state that counts as queued. */
static void enter (model_t *model, int number, int state)
{
    request_t *request = &model->requests[number];
    service_t *service = &model->services[request->service];
    request->state = state;
    model->counters.queued++;
    model->counters.delayed += state == DELAYED;
    model->counters.following += state == FOLLOWING;
    service->pinned += state == PINNED;
    if (state == DELAYED)
        row_append (&service->delayed, number);
}

static void leave (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    service_t *service = &model->services[request->service];
    int state = request->state;
    model->counters.queued--;
    model->counters.delayed -= state == DELAYED;
    model->counters.following -= state == FOLLOWING;
    service->pinned -= state == PINNED;
    if (state == DELAYED)
        row_remove (&service->delayed, number);
    if (state == QUEUED)
        request->fronted = ++model->order;
}

/* Into and out of what the requests of a priority have: one's own are in order there. */
static void line_up (model_t *model, int number, int at_head)
{
    const request_t *request = &model->requests[number];
    service_t *service = &model->services[request->service];
    row_t *turns = &service->turns[request->rank], *ranked = &service->ranked[request->rank];
    int client = request->client, had = first_of (model, service, client, request->rank) >= 0;
    row_insert (ranked, at_head ? 0 : ranked->count, number);
    if (at_head)
        row_remove (turns, client);
    if (at_head || !had)
        row_insert (turns, at_head ? 0 : turns->count, client);
}

static void fall_out (model_t *model, int number)
{
    const request_t *request = &model->requests[number];
    service_t *service = &model->services[request->service];
    row_remove (&service->ranked[request->rank], number);
    if (first_of (model, service, request->client, request->rank) < 0)
        row_remove (&service->turns[request->rank], request->client);
}

/* One who had nothing queued has the last turn; one who got something back has the first. */
static void enqueue (model_t *model, int number, int at_head)
{
    row_t *queue = &model->services[model->requests[number].service].queue;
    row_t *hasty = &model->services[model->requests[number].service].hasty;
    row_insert (queue, at_head ? 0 : queue->count, number);
    if (model->requests[number].asked.fail_fast)
        row_insert (hasty, at_head ? 0 : hasty->count, number);
    line_up (model, number, at_head);
    enter (model, number, QUEUED);
}

static void dequeue (model_t *model, int number)
{
    row_remove (&model->services[model->requests[number].service].queue, number);
    row_remove (&model->services[model->requests[number].service].hasty, number);
    fall_out (model, number);
    leave (model, number);
}

/* It waits for its time. */
static void delay (model_t *model, int number, uint64_t begins)
{
    model->requests[number].begins = begins;
    enter (model, number, DELAYED);
    set_request_timer (&model->requests[number]);
}

/* It waits for one worker. */
static void pin (model_t *model, int number, int worker, int at_head)
{
    row_t *pins = &model->peers[worker].worker.pins[model->requests[number].rank];
    row_insert (pins, at_head ? 0 : pins->count, number);
    model->requests[number].worker = worker;
    enter (model, number, PINNED);
}

static void take_back (model_t *model, int number)
{
    peer_t *peer = &model->peers[model->requests[number].worker];
    row_remove (&peer->worker.hand, number);
    peer->worker.bytes -= model->requests[number].body.bytes;
    model->requests[number].worker = -1;
    model->counters.running--;
}

/* Out of wherever it is. */
static void take_out (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    switch (request->state) {
        case RUNNING: take_back (model, number); break;
        case QUEUED: dequeue (model, number); break;
        case PINNED:
            row_remove (&model->peers[request->worker].worker.pins[request->rank], number);
            request->worker = -1;
            leave (model, number);
            break;
        case FOLLOWING:
            row_remove (&model->requests[request->leader].followers, number);
            leave (model, number);
            break;
        default: leave (model, number); break;
    }
}

/* A client had its turn. */
static void to_the_end (row_t *turns, int client)
{
    size_t before = turns->count;
    row_remove (turns, client);
    if (turns->count < before)
        row_append (turns, client);
}

static void had_turn (model_t *model, const request_t *request)
{
    to_the_end (&model->services[request->service].turns[request->rank], request->client);
}

/* ---- ends */

/* What the client hears of an end: nothing if it wants no answer, and of a part of a survey the reply alone, as a part.
   -1: there is no client any more. */
static int tell_client (model_t *model, request_t *request, const output_t *answer)
{
    output_t mine = *answer;
    if (request->client == -1)
        return -1;
    if (request->asked.one_way)
        return 0;
    mine.id = request->id;
    mine.service = request->name;
    if (request->survey >= 0) {
        if (mine.type != REPLY)
            return 0;
        mine.type = PARTIAL;
        mine.id = model->requests[request->survey].id;
        model->requests[request->survey].answered++;
    }
    return tell (model, request->client, &mine);
}

static uint64_t *fate_counter (model_t *model, int fate)
{
    return fate == IS_CANCELLED ? &model->counters.cancelled
           : fate == IS_EXPIRED ? &model->counters.expired
                                : &model->counters.client_gone;
}

/* The host hears of what became of it. */
static void report (model_t *model, const request_t *request, const output_t *answer)
{
    output_t mine = output (CLIENT, OUTCOME, 0);
    if (!model->limits.reports || request->client == -1)
        return;
    mine.service = request->name;
    mine.status = request->fate == IS_CANCELLED ? CANCELLED
                  : request->fate == IS_EXPIRED ? EXPIRED
                  : request->fate == IS_GONE    ? GONE
                  : answer->type == ERROR       ? answer->status
                                                : 0;
    mine.credit = (uint32_t) request->attempts;
    mine.id = model->now - request->accepted;
    expect (model, &mine);
}

/* One is over that is nowhere any more. */
static void close_request (model_t *model, int number, const output_t *answer, uint64_t *outcome)
{
    request_t *request = &model->requests[number];
    if (!request->fate && tell_client (model, request, answer) != 0)
        request->fate = IS_GONE;
    ++*(request->fate ? fate_counter (model, request->fate) : outcome);
    report (model, request, answer);
    forget (model, number);
}

/* As whose request it is told to others: who is no user is nobody. */
static int told_user (int person)
{
    return user_names[person] ? person : ANONYMOUS;
}

static void settle_survey (model_t *model, int number);

/* It is over, with one outcome, and so are those that have joined it. */
static void end_request (model_t *model, int number, const output_t *answer, uint64_t *outcome)
{
    int survey = model->requests[number].survey;
    row_t followers = model->requests[number].followers;
    int attempts = model->requests[number].attempts;
    memset (&model->requests[number].followers, 0, sizeof followers);
    if (survey >= 0)
        row_remove (&model->requests[survey].parts, number);
    close_request (model, number, answer, outcome);
    for (size_t i = 0; i < followers.count; i++) {
        leave (model, followers.at[i]);
        model->requests[followers.at[i]].attempts = attempts;
        close_request (model, followers.at[i], answer, outcome);
    }
    free (followers.at);
    if (survey >= 0)
        settle_survey (model, survey);
}

static void end_with (model_t *model, int number, int status, uint64_t *outcome)
{
    output_t answer = output (CLIENT, ERROR, 0);
    answer.status = status;
    end_request (model, number, &answer, outcome);
}

/* When nobody is asked any more: how many answered. */
static void settle_survey (model_t *model, int number)
{
    request_t *survey = &model->requests[number];
    output_t answer = output (CLIENT, REPLY, 0);
    if (survey->state != SURVEYING || survey->parts.count)
        return;
    answer.progress.has = 1;
    answer.progress.done = (uint64_t) survey->answered;
    answer.progress.total = (uint64_t) survey->asked_of;
    leave (model, number);
    end_request (model, number, &answer, &model->counters.replied);
}

/* Too many workers were lost over it: the host gets it. */
static void die (model_t *model, int number)
{
    output_t mine = output (CLIENT, DEAD_LETTER, 0);
    mine.service = model->requests[number].name;
    mine.user = told_user (model->requests[number].person);
    mine.body = model->requests[number].body;
    expect (model, &mine);
    end_with (model, number, LOST, &model->counters.dead);
}

/* ---- to workers and back */

static int attempts_most (const model_t *model, const request_t *request)
{
    uint32_t own = request->asked.attempts;
    return own == 0 ? model->limits.attempts : own == 65535 ? INT_MAX : (int) own;
}

/* Behind the first attempt the pause that it asked for, behind each other twice that of the one before. */
static uint64_t pause_of (const request_t *request)
{
    uint64_t pause = (uint64_t) request->asked.backoff_ms * 1000;
    uint64_t most = request->asked.backoff_max_ms ? (uint64_t) request->asked.backoff_max_ms * 1000 : 60000000;
    if (request->attempts < 1)
        return 0;
    for (int i = 1; i < request->attempts && pause < most; i++)
        pause *= 2;
    return pause < most ? pause : most;
}

/* Its priority has risen, or it has another client: it is behind the others of that one and priority. */
static void change_lane (model_t *model, int number, int client, int rank)
{
    request_t *request = &model->requests[number];
    int queued = request->state == QUEUED;
    if (request->state == PINNED && rank != request->rank) {
        row_remove (&model->peers[request->worker].worker.pins[request->rank], number);
        row_append (&model->peers[request->worker].worker.pins[rank], number);
    }
    if (queued)
        fall_out (model, number);
    use_lane (model, client, request->service, rank);
    detach (model, request);
    request->rank = rank;
    attach (model, request, client);
    if (queued)
        line_up (model, number, 0);
}

/* It is as urgent as the most urgent of those that have joined it. */
static void heed_followers (model_t *model, int number)
{
    const request_t *request = &model->requests[number];
    int rank = request->rank;
    for (size_t i = 0; i < request->followers.count; i++)
        if (model->requests[request->followers.at[i]].rank > rank)
            rank = model->requests[request->followers.at[i]].rank;
    if (rank > request->rank)
        change_lane (model, number, request->client, rank);
}

/* Its worker will not do it. */
static void retry (model_t *model, int number)
{
    heed_followers (model, number);
    uint64_t pause = pause_of (&model->requests[number]);
    model->counters.requeued++;
    if (pause)
        delay (model, number, after (model->now, pause));
    else
        enqueue (model, number, 1);
}

/* Its worker is lost. */
static void give_back (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    take_back (model, number);
    forget_parts (model, request);
    if (request->client == -1 || model->ending)
        end_with (model, number, CANCELLED, &model->counters.cancelled);
    else if (request->survey >= 0)
        end_with (model, number, LOST, &model->counters.failed);
    else if (request->attempts >= attempts_most (model, request))
        die (model, number);
    else
        retry (model, number);
}

static void set_worker_timer (model_t *model, peer_t *peer);

static void hand_over (model_t *model, int number, int worker)
{
    peer_t *peer = &model->peers[worker];
    request_t *request = &model->requests[number];
    int was_queued = request->state == QUEUED;
    take_out (model, number);
    if (was_queued)
        had_turn (model, request);
    if (peer->worker.hand.count == 0)
        begin_work (model, peer);
    row_append (&peer->worker.hand, number);
    if (peer->worker.hand.count == 1 && model->services[peer->worker.service].limit != NEVER)
        set_worker_timer (model, peer);
    peer->worker.bytes += request->body.bytes;
    if (model->services[peer->worker.service].policy == ROUND_ROBIN)
        peer->worker.level = -1;
    place (model, peer);
    request->worker = worker;
    request->state = RUNNING;
    set_request_timer (request);
    model->counters.running++;
}

/* Whether its client says MORE. */
static int has_window (const model_t *model, const request_t *request)
{
    return request->client >= 0 && model->peers[request->client].dialect[CLIENT] == ZQB1 && request->survey < 0
           && !request->asked.one_way;
}

/* What its worker is told of a request. */
static output_t brief (const model_t *model, const request_t *request)
{
    output_t mine = output (WORKER, REQUEST, 0);
    uint64_t ends = request->survey < 0 ? request->ends : model->requests[request->survey].ends;
    uint64_t left = ends > model->now ? ends - model->now : 0;
    mine.user = told_user (request->person);
    mine.body = request->body;
    mine.window = has_window (model, request);
    if (ends != NEVER)
        mine.deadline_ms = left ? (uint32_t) ((left + 999) / 1000) : 1;
    return mine;
}

/* One that cannot be given stays first in the queue. */
static void assign (model_t *model, int number, int worker)
{
    output_t mine = brief (model, &model->requests[number]);
    int was_pinned = model->requests[number].state == PINNED;
    if (model->requests[number].named)
        mine.service = model->requests[number].name;
    hand_over (model, number, worker);
    if (tell (model, worker, &mine) == 0) {
        model->requests[number].attempts++;
        model->requests[number].token = mine.id;
        return;
    }
    take_back (model, number);
    if (was_pinned)
        pin (model, number, worker, 1);
    else
        enqueue (model, number, 1);
}

/* Whether a worker gets requests at all, now or later. */
static int is_for_use (const peer_t *peer)
{
    return !peer->failed && peer->worker.credit > 0;
}

/* Whose requests of a slot are, from when it is first asked for. */
static int owner_of_slot (model_t *model, service_t *service, int slot)
{
    int least = -1;
    if (!service->slots) {
        service->slots = (int *) must_have (malloc (SLOTS * sizeof *service->slots));
        memset (service->slots, 0xff, SLOTS * sizeof *service->slots);
    }
    if (service->slots[slot] >= 0)
        return service->slots[slot];
    for (size_t i = 0; i < service->workers.count; i++) {
        const peer_t *peer = &model->peers[service->workers.at[i]];
        if (is_for_use (peer) && (least < 0 || peer->worker.slots < model->peers[least].worker.slots))
            least = service->workers.at[i];
    }
    if (least >= 0)
        model->peers[least].worker.slots++;
    return service->slots[slot] = least;
}

static void give_up_slots (model_t *model, int worker)
{
    service_t *service = &model->services[model->peers[worker].worker.service];
    for (int i = 0; model->peers[worker].worker.slots && i < SLOTS; i++)
        if (service->slots[i] == worker) {
            service->slots[i] = -1;
            model->peers[worker].worker.slots--;
        }
}

static int was_refused_by (const request_t *request, const peer_t *peer)
{
    for (int i = 0; i < request->refusals; i++)
        if (request->refused_by[i] == peer->worker.number)
            return 1;
    return 0;
}

/* The first that takes requests and has not refused this one; -1: there is none. */
static int who_else (const model_t *model, const request_t *request)
{
    const service_t *service = &model->services[request->service];
    for (size_t i = 0; i < service->workers.count; i++) {
        const peer_t *peer = &model->peers[service->workers.at[i]];
        if (is_for_use (peer) && !was_refused_by (request, peer))
            return service->workers.at[i];
    }
    return -1;
}

/* Who gets one that was refused: the first with room that did not, or the first that did not; -1: all did. */
static int who_did_not_refuse (const model_t *model, const service_t *service, const request_t *request)
{
    int worker = -1;
    while ((worker = next_choice (model, service, worker)) >= 0)
        if (!was_refused_by (request, &model->peers[worker]))
            return worker;
    return who_else (model, request);
}

/* Some requests are for some workers only. */
static void assign_or_pin (model_t *model, service_t *service, int number, int chosen)
{
    request_t *request = &model->requests[number];
    int wanted = -1;
    if (request->refusals)
        wanted = who_did_not_refuse (model, service, request);
    else if (request->asked.affinity)
        wanted = owner_of_slot (model, service, request->asked.affinity - 1);
    if (wanted < 0)
        wanted = chosen;
    if (model->peers[wanted].worker.level >= 0) {
        assign (model, number, wanted);
        return;
    }
    take_out (model, number);
    had_turn (model, request);
    pin (model, number, wanted, 0);
}

/* A worker has room: what waits for it comes first, the highest priority in front. */
static void serve_pins (model_t *model, int worker)
{
    peer_t *peer = &model->peers[worker];
    for (int rank = RANKS - 1; rank >= 0 && !model->paused; rank--)
        while (peer->worker.pins[rank].count && has_room (peer, model->limits.hand))
            assign (model, peer->worker.pins[rank].at[0], worker);
}

/* The worker takes no more: what waits for it goes back, in order. */
static void unpin (model_t *model, int worker)
{
    for (int rank = 0; rank < RANKS; rank++) {
        row_t *pins = &model->peers[worker].worker.pins[rank];
        while (pins->count) {
            int number = pins->at[pins->count - 1];
            take_out (model, number);
            if (model->requests[number].survey >= 0)
                end_with (model, number, LOST, &model->counters.failed);
            else
                enqueue (model, number, 1);
        }
    }
}

/* The next of all: of the highest priority, which rises with time. */
static int first_in_turn (const model_t *model, const service_t *service)
{
    uint64_t highest = 0;
    int first = -1;
    for (int rank = RANKS - 1; rank >= 0; rank--) {
        if (!service->turns[rank].count)
            continue;
        int number = first_of (model, service, service->turns[rank].at[0], rank);
        uint64_t waited = model->now - model->requests[number].arrived;
        uint64_t height = (uint64_t) rank + (model->limits.ageing == NEVER ? 0 : waited / model->limits.ageing);
        if (first < 0 || height > highest) {
            first = number;
            highest = height;
        }
    }
    return first;
}

static void dispatch (model_t *model, int number)
{
    service_t *service = &model->services[number];
    int worker;
    while (service->queue.count && (worker = choose (model, service)) >= 0)
        assign_or_pin (model, service, first_in_turn (model, service), worker);
    settle (model, number);
}

/* ---- workers */

/* When it is looked at again: to send it a heartbeat, or to see whether it fell silent. */
static void set_worker_timer (model_t *model, peer_t *peer)
{
    uint64_t beat = after (peer->worker.told, peer->worker.beat);
    uint64_t silent = after (peer->worker.heard, peer->worker.expiry);
    uint64_t hangs = after (peer->worker.since, model->services[peer->worker.service].limit);
    if (beat <= model->now)
        beat = after (model->now, peer->worker.beat);
    if (silent <= model->now)
        silent = after (model->now, 1000);
    if (hangs <= model->now)
        hangs = after (model->now, 1000);
    uint64_t next = peer->worker.hand.count == 0 && silent < beat ? silent : beat;
    if (!has_heartbeats (peer->dialect[WORKER]))
        next = NEVER;
    if (peer->worker.hand.count && hangs < next)
        next = hangs;
    if (peer->worker.resting && peer->worker.rested < next)
        next = peer->worker.rested;
    if (next != NEVER)
        peer->worker.timer = next;
}

/* It hears from us as often as it wants to, and may be silent for longer than others if it speaks less often. */
static void set_beat (model_t *model, peer_t *peer, uint32_t heartbeat_ms)
{
    const model_limits_t *limits = &model->limits;
    uint64_t own = (uint64_t) heartbeat_ms * 1000;
    peer->worker.beat = limits->heartbeat;
    peer->worker.expiry = limits->expiry;
    if (heartbeat_ms == 0)
        peer->worker.expiry = NEVER;
    else if (heartbeat_ms != UINT32_MAX && own < limits->heartbeat)
        peer->worker.beat = own;
    else if (heartbeat_ms != UINT32_MAX && own > limits->heartbeat && limits->expiry != NEVER)
        peer->worker.expiry = own * (limits->expiry / limits->heartbeat);
}

static void add_worker (model_t *model, int number, int service, const command_t *ready)
{
    peer_t *peer = &model->peers[number];
    uint32_t credit = peer->dialect[WORKER] == ZQB1 ? ready->credit : 1;
    row_t hand = peer->worker.hand, pins[RANKS];
    memcpy (pins, peer->worker.pins, sizeof pins);
    memset (&peer->worker, 0, sizeof peer->worker);
    memcpy (peer->worker.pins, pins, sizeof pins);
    peer->worker.hand = hand;
    peer->worker.number = ++model->worker_number;
    peer->worker.service = service;
    peer->worker.credit = credit ? credit : 1;
    peer->worker.adapts = credit == 0 && model->limits.credit;
    set_beat (model, peer, ready->heartbeat_ms);
    peer->worker.level = -1;
    place (model, peer);
    peer->worker.told = peer->worker.heard = peer->worker.since = model->now;
    peer->worker.timer = NEVER;
    row_append (&model->services[service].workers, number);
    model->services[service].timer = NEVER;
    model->counters.workers++;
    set_worker_timer (model, peer);
}

static void lost_last (model_t *model, int number);

/* What it held goes back, the oldest to the head, behind which is what waited for it. */
static void remove_worker (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    int service = peer->worker.service;
    give_up_slots (model, number);
    peer->worker.service = -1;
    peer->asked = 0;
    peer->worker.timer = NEVER;
    row_remove (&model->services[service].workers, number);
    if (model->services[service].workers.count == 0)
        model->services[service].alone_since = model->now;
    model->counters.workers--;
    unpin (model, number);
    while (peer->worker.hand.count)
        give_back (model, peer->worker.hand.at[peer->worker.hand.count - 1]);
    if (!model->services[service].workers.count)
        lost_last (model, service);
    dispatch (model, service);
}

static void lose_worker (model_t *model, int number)
{
    model->counters.workers_lost++;
    remove_worker (model, number);
}

/* ---- workers that leave, and services that are left */

static int is_served (const model_t *model, int number)
{
    const service_t *service = &model->services[number];
    return service->known && (service->workers.count || service->handler);
}

/* Whether a name is of those that a pattern stands for; patterns end with an asterisk. */
static int stands_for (const model_t *model, int pattern, int name)
{
    size_t most = model->name_sizes[pattern] - 1u;
    return model->names[pattern][most] == '*' && most <= model->name_sizes[name]
           && memcmp (model->names[pattern], model->names[name], most) == 0;
}

/* Who serves a name: the service that is called so, or the longest pattern. */
static int route (const model_t *model, int name)
{
    int best = -1;
    if (is_served (model, name) || name >= MMI_FROM)
        return name;
    for (int i = 0; i < MMI_FROM; i++)
        if (is_served (model, i) && stands_for (model, i, name)
            && (best < 0 || model->name_sizes[i] > model->name_sizes[best]))
            best = i;
    return best < 0 ? name : best;
}

/* The one that others of the same user with a key join; -1: nobody. */
static int find_leader (const model_t *model, int service, int name, int key, int person)
{
    for (int i = 0; i < model->request_count && key; i++)
        if (model->requests[i].state && model->requests[i].key == key && model->requests[i].name == name
            && model->requests[i].service == service && model->requests[i].person == person)
            return i;
    return -1;
}

static void change_service (model_t *model, int number, int to)
{
    request_t *request = &model->requests[number];
    int client = request->client;
    use_lane (model, client, to, request->rank);
    detach (model, request);
    request->service = to;
    request->named = 1;
    attach (model, request, client);
}

/* It goes to the end of another queue, and who follows it goes with it. */
static void move_request (model_t *model, int number, int to)
{
    request_t *request = &model->requests[number];
    take_out (model, number);
    change_service (model, number, to);
    enqueue (model, number, 0);
    for (size_t i = 0; i < request->followers.count; i++)
        change_service (model, request->followers.at[i], to);
    int key = request->key;
    request->key = 0;
    if (find_leader (model, to, request->name, key, request->person) < 0)
        request->key = key;
}

static void serve_queued (model_t *model, int number);

/* What waits at a service that nobody serves, and would be served elsewhere, goes there. */
static void reroute (model_t *model, int number)
{
    const row_t *queue = &model->services[number].queue;
    if (is_served (model, number))
        return;
    for (size_t i = 0; i < queue->count;) {
        int request = queue->at[i], to = route (model, model->requests[request].name);
        if (to == number || !is_served (model, to)) {
            i++;
            continue;
        }
        move_request (model, request, to);
        serve_queued (model, to);
        dispatch (model, to);
    }
}

/* The service that was made next after another; -1: there is none. */
static int made_after (const model_t *model, uint64_t made)
{
    int next = -1;
    for (int i = 0; i < SERVICES_MOST; i++)
        if (model->services[i].known && model->services[i].made > made
            && (next < 0 || model->services[i].made < model->services[next].made))
            next = i;
    return next;
}

/* A service has its first worker. */
static void got_first (model_t *model)
{
    int number;
    for (uint64_t made = 0; (number = made_after (model, made)) >= 0;) {
        made = model->services[number].made;
        if (!model->services[number].queue.count || is_served (model, number))
            continue;
        reroute (model, number);
        settle (model, number);
    }
}

static void lost_last (model_t *model, int number)
{
    const row_t *hasty = &model->services[number].hasty;
    reroute (model, number);
    while (!is_served (model, number) && hasty->count) {
        int request = hasty->at[0];
        take_out (model, request);
        end_with (model, request, NO_WORKER, &model->counters.expired);
    }
}

/* One of another dialect that was to leave has nothing more to do. Whether it is gone. */
static int has_left (model_t *model, int number)
{
    const peer_t *peer = &model->peers[number];
    if (!peer->worker.draining || peer->worker.hand.count || peer->dialect[WORKER] == ZQB1)
        return 0;
    model->counters.workers_left++;
    send_away (model, number, 0);
    remove_worker (model, number);
    return 1;
}

/* A worker has one less to do. */
static void free_hand (model_t *model, int number)
{
    int service = model->peers[number].worker.service;
    if (has_left (model, number))
        return;
    serve_pins (model, number);
    dispatch (model, service);
}

static void drain (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    int service = peer->worker.service;
    output_t mine = output (WORKER, DRAIN, 0);
    peer->worker.draining = 1;
    peer->worker.credit = 0;
    place (model, peer);
    give_up_slots (model, number);
    unpin (model, number);
    tell (model, number, &mine);
    if (!has_left (model, number))
        dispatch (model, service);
}

/* ---- who may do what */

static int means (const names_t *names, const char *name, size_t size)
{
    if (names->star ? size < names->size : size != names->size)
        return 0;
    for (size_t i = 0; i < names->size; i++)
        if (names->text[i] != name[i])
            return 0;
    return 1;
}

/* Whether there is a name that both mean. */
static int have_common (const names_t *a, const names_t *b)
{
    for (size_t i = 0; i < a->size && i < b->size; i++)
        if (a->text[i] != b->text[i])
            return 0;
    return a->size == b->size || (a->size < b->size ? a->star : b->star);
}

static int is_meant (const who_t *who, int person)
{
    const char *name = user_names[person];
    if (who->kind == NO_USER)
        return !name;
    if (who->kind == NEIGHBOURS)
        return person == IN_PROCESS;
    return name && means (&who->users, name, strlen (name));
}

static int is_about (const rules_t *rules, const rule_t *rule, int person)
{
    int found = 0;
    if (rule->who.kind != A_GROUP)
        return is_meant (&rule->who, person);
    for (int i = 0; i < rules->member_count[rule->who.group]; i++)
        found |= is_meant (&rules->members[rule->who.group][i], person);
    return found;
}

/* To ask for mmi is to manage; who may call what is written as mmi may do that, too. */
static int has_action (const rule_t *rule, int action)
{
    int names_mmi = rule->services.size >= 4 && memcmp (rule->services.text, "mmi.", 4) == 0;
    return (rule->actions & action) != 0 || (action == MAY_MANAGE && (rule->actions & MAY_CALL) && names_mmi);
}

/* The first rule says that is about it. Who serves a pattern serves all its names: a rule allows it that allows them
   all, and one denies it that denies any. */
static int rules_allow (const rules_t *rules, int person, int action, const names_t *service)
{
    for (int i = 0; i < rules->count; i++) {
        const rule_t *rule = &rules->rules[i];
        int touches = have_common (&rule->services, service);
        int covers = touches && (!service->star || (rule->services.star && rule->services.size <= service->size));
        if (has_action (rule, action) && is_about (rules, rule, person) && (rule->allow ? covers : touches))
            return rule->allow;
    }
    return 0;
}

static int may (const model_t *model, const peer_t *peer, int action, int service)
{
    int person = peer->person, place = peer->connection >= 0 && person != IN_PROCESS ? peer->place : UNKNOWN;
    int says = model->host.says[person][place][action / 2][service];
    names_t name = {model->names[service], model->name_sizes[service], 0};
    if (model->host.unwelcome[person][place])
        return 0;
    if (says >= 0)
        return says;
    if (action == MAY_SERVE && name.text[name.size - 1] == '*') {
        name.size--;
        name.star = 1;
    }
    return !model->rules || rules_allow (model->rules, person, action, &name);
}

static int may_ask (const model_t *model, int client, int service, int survey)
{
    return may (model, &model->peers[client], survey || service >= MMI_FROM ? MAY_MANAGE : MAY_CALL, service);
}

/* ---- how much somebody may do */

/* What a user has, over all his connections; or somebody who is none, by himself. */
static uint64_t outstanding_of (const model_t *model, int client)
{
    uint64_t count = 0;
    int person = model->peers[client].person;
    for (int i = 0; i < model->request_count; i++) {
        const request_t *request = &model->requests[i];
        count += request->state && request->client != -1
                 && (user_names[person] ? request->person == person : request->client == client);
    }
    return count;
}

static int has_too_many (const model_t *model, int client, uint64_t more)
{
    uint64_t most = model->limits.user_outstanding;
    return most && outstanding_of (model, client) + more > most;
}

enum { SECOND = 1000000000 };

/* So much of what he may do in a second is paid for later; of that which he did not use, a second's is left. */
static void pay (uint64_t *paid, uint64_t now, uint64_t used, uint64_t rate)
{
    if (!rate)
        return;
    if (*paid + SECOND < now)
        *paid = now - SECOND;
    *paid += used * SECOND / rate;
}

/* Whether not all is paid for; of what is not limited, all is. */
static int owes (const account_t *account, uint64_t now)
{
    return account->requests > now || account->bytes > now;
}

/* Where it counts that a client, or his user, has asked for enough; NULL: he has not, and it counts. */
static uint64_t *has_enough (model_t *model, int client, uint64_t bytes)
{
    const model_limits_t *limits = &model->limits;
    peer_t *peer = &model->peers[client];
    account_t *account = user_names[peer->person] ? &model->accounts[peer->person] : &peer->account;
    uint64_t now = model->now * 1000;
    if (owes (&peer->own, now))
        return &model->counters.refused_client_rate;
    if (has_too_many (model, client, 1))
        return &model->counters.refused_user;
    if (owes (account, now))
        return &model->counters.refused_rate;
    pay (&peer->own.requests, now, 1, limits->client_requests);
    pay (&peer->own.bytes, now, bytes, limits->client_bytes);
    pay (&account->requests, now, 1, limits->user_requests);
    pay (&account->bytes, now, bytes, limits->user_bytes);
    return NULL;
}

/* ---- what clients say */

static void refuse_with (model_t *model, int client, const command_t *command, output_t *mine, uint64_t *counter)
{
    mine->id = command->id;
    ++*counter;
    if (!command->asked.one_way)
        tell (model, client, mine);
}

static void refuse (model_t *model, int client, const command_t *command, int status, uint64_t *counter)
{
    output_t mine = output (CLIENT, ERROR, 0);
    mine.status = status;
    refuse_with (model, client, command, &mine, counter);
}

/* What has no number of its own is not found. */
static int find_request (const model_t *model, int client, uint64_t id)
{
    for (int i = 0; i < model->request_count; i++) {
        const request_t *request = &model->requests[i];
        if (request->state && request->client == client && request->id == id && !request->asked.one_way
            && request->survey < 0)
            return i;
    }
    return -1;
}

/* Where it counts that a body is too large; NULL: it is not. */
static uint64_t *too_large (model_t *model, body_t body)
{
    if (body.frames > model->limits.frames)
        return &model->counters.refused_frames;
    return body.bytes > model->limits.message ? &model->counters.refused_large : NULL;
}

static int too_many_bytes (const model_t *model, uint64_t more)
{
    uint64_t most = model->limits.bytes, now = model->counters.bytes;
    return now >= most ? more > 0 : more > most - now;
}

/* Where it counts that there is no room; NULL: there is. */
static uint64_t *is_full (model_t *model, const peer_t *client, body_t body)
{
    const model_limits_t *limits = &model->limits;
    counters_t *counters = &model->counters;
    if (counters->queued + counters->running >= (uint64_t) limits->requests)
        return &counters->refused_requests;
    if (client->outstanding >= limits->outstanding)
        return &counters->refused_outstanding;
    if (client->outstanding == 0 && counters->clients >= (uint64_t) limits->clients)
        return &counters->refused_clients;
    return too_many_bytes (model, body.bytes) ? &counters->refused_bytes : NULL;
}

/* A handler does it; what it answered is not for the model to say. */
static uint64_t *serve (model_t *model, int name, int person, body_t body, output_t *answer)
{
    output_t mine = output (CLIENT, 0, 0);
    mine.served = 1;
    mine.service = name;
    mine.user = told_user (person);
    mine.body = body;
    const output_t *theirs = expect (model, &mine);
    *answer = output (CLIENT, theirs ? theirs->type : REPLY, 0);
    answer->service = name;
    answer->body = theirs ? theirs->reply : body;
    answer->text = theirs ? theirs->text : 0;
    answer->status = answer->type == ERROR ? FAILED : 0;
    return answer->type == ERROR ? &model->counters.failed : &model->counters.replied;
}

/* A survey of a handler: as if one worker were asked. */
static int tell_survey (model_t *model, int client, output_t answer)
{
    output_t end = output (CLIENT, REPLY, answer.id);
    int answered = answer.type == REPLY;
    end.service = answer.service;
    end.progress.has = 1;
    end.progress.total = 1;
    end.progress.done = (uint64_t) answered;
    answer.type = PARTIAL;
    if (answered && tell (model, client, &answer) != 0)
        return -1;
    return tell (model, client, &end);
}

static void serve_here (model_t *model, int client, const command_t *command)
{
    output_t answer, mine = output (CLIENT, OUTCOME, 0);
    model->counters.accepted++;
    uint64_t *outcome = serve (model, command->service, model->peers[client].person, command->body, &answer);
    answer.id = command->id;
    int gone = 0;
    if (command->asked.survey && !command->asked.one_way)
        gone = tell_survey (model, client, answer) != 0;
    else if (!command->asked.one_way)
        gone = tell (model, client, &answer) != 0;
    ++*(gone ? &model->counters.client_gone : outcome);
    mine.service = command->service;
    mine.credit = 1;
    mine.status = gone ? GONE : answer.status;
    if (model->limits.reports)
        expect (model, &mine);
}

enum { OF_ITS_OWN, FOLLOWS, ASKED };

/* It is accepted, and nowhere yet. */
static int make_request (model_t *model, int client, int service, const command_t *command, int kind)
{
    int number = new_request (model), priority = command->asked.priority;
    request_t *request = &model->requests[number];
    row_t followers = request->followers, parts = request->parts;
    memset (request, 0, sizeof *request);
    followers.count = parts.count = 0;
    request->followers = followers;
    request->parts = parts;
    request->state = QUEUED;
    request->service = service;
    request->name = command->service;
    request->person = model->peers[client].person;
    request->named = service != command->service;
    request->asked = command->asked;
    request->worker = request->survey = -1;
    request->rank = NORMAL + (priority < -NORMAL ? -NORMAL : priority > NORMAL ? NORMAL : priority);
    request->id = command->id;
    request->accepted = request->arrived = model->now;
    request->ends = request->timer = NEVER;
    model->may_wait |= command->asked.deadline_ms || command->asked.delay_ms || command->asked.backoff_ms;
    if (command->asked.deadline_ms)
        request->ends = model->now + (uint64_t) command->asked.deadline_ms * 1000;
    if (kind != OF_ITS_OWN)
        request->asked.affinity = 0;
    if (kind == OF_ITS_OWN)
        request->key = command->asked.unique;
    if (kind != FOLLOWS)
        request->body = command->body;
    use_lane (model, client, service, request->rank);
    attach (model, request, client);
    model->counters.accepted++;
    model->counters.bytes += request->body.bytes;
    return number;
}

/* When it is to begin at the earliest; 0: at once. */
static uint64_t begins (const model_t *model, const command_t *command)
{
    uint64_t span = command->asked.delay_ms;
    return span ? model->now + span * 1000 : 0;
}

static size_t waiting_at (const service_t *service)
{
    return service->queue.count + service->delayed.count + (size_t) service->pinned;
}

static void take_request (model_t *model, int client, int service, const command_t *command)
{
    int number = make_request (model, client, service, command, OF_ITS_OWN);
    uint64_t at = begins (model, command);
    if (at)
        delay (model, number, at);
    else
        enqueue (model, number, 0);
    set_request_timer (&model->requests[number]);
    dispatch (model, service);
}

static void accept_request (model_t *model, int client, int number, const command_t *command)
{
    service_t *service = require_service (model, number);
    if (!service) {
        refuse (model, client, command, QUEUE_FULL, &model->counters.refused_services);
        return;
    }
    int full = waiting_at (service) >= (size_t) model->limits.queue;
    int alone = !service->workers.count && waiting_at (service) >= (size_t) model->limits.no_worker_queue;
    int may_wait = command->asked.delay_ms || command->asked.affinity;
    int someone = !model->paused && next_choice (model, service, -1) >= 0 && !may_wait;
    if ((!full && !alone) || someone)
        take_request (model, client, number, command);
    else if (full)
        refuse (model, client, command, QUEUE_FULL, &model->counters.refused_queue);
    else
        refuse (model, client, command, NO_WORKER, &model->counters.refused_no_worker);
}

/* ---- unique: requests that do the same as another */

static void begin_request (model_t *model, int number);

static void follow (model_t *model, int leader, int client, const command_t *command)
{
    int number = make_request (model, client, model->requests[leader].service, command, FOLLOWS);
    int rank = model->requests[number].rank;
    uint64_t at = begins (model, command);
    model->requests[number].leader = leader;
    row_append (&model->requests[leader].followers, number);
    enter (model, number, FOLLOWING);
    set_request_timer (&model->requests[number]);
    request_t *request = &model->requests[leader];
    if (request->state == RUNNING)
        return;
    if (rank > request->rank)
        change_lane (model, leader, request->client, rank);
    if (request->state != DELAYED || at >= request->begins || request->attempts)
        return;
    request->begins = at;
    set_request_timer (request);
    if (!at)
        begin_request (model, leader);
}

/* Its client wants it no more: the first that joined it takes its place. What is left of it is returned. */
static int promote (model_t *model, int number)
{
    request_t *request = &model->requests[number], *heir;
    int next = request->followers.at[0], queued = request->state == QUEUED;
    output_t more = output (WORKER, MORE, request->token);
    heir = &model->requests[next];
    take_out (model, next);
    if (queued) {
        row_remove (&model->services[request->service].hasty, number);
        fall_out (model, number);
    }
    if (request->state == PINNED && heir->rank != request->rank) {
        row_remove (&model->peers[request->worker].worker.pins[request->rank], number);
        row_append (&model->peers[request->worker].worker.pins[heir->rank], number);
    }
    request_t before = *request;
    request->client = heir->client, heir->client = before.client;
    request->rank = heir->rank, heir->rank = before.rank;
    request->id = heir->id, heir->id = before.id;
    request->name = heir->name, heir->name = before.name;
    request->named = heir->named, heir->named = before.named;
    request->ends = heir->ends, heir->ends = before.ends;
    request->accepted = heir->accepted, heir->accepted = before.accepted;
    heir->attempts = before.attempts;
    request->asked.one_way = heir->asked.one_way, heir->asked.one_way = before.asked.one_way;
    request->asked.fail_fast = heir->asked.fail_fast, heir->asked.fail_fast = before.asked.fail_fast;
    heir->timer = NEVER;
    request->fronted = ++model->order;
    heir->fronted = ++model->order;
    if (queued && request->asked.fail_fast)
        row_append (&model->services[request->service].hasty, number);
    if (queued)
        line_up (model, number, 0);
    set_request_timer (request);
    if (request->state != RUNNING) {
        heed_followers (model, number);
        return next;
    }
    more.credit = has_window (model, request) ? 32 : 65535;
    tell (model, request->worker, &more);
    return next;
}

/* ---- surveys */

static void ask_worker (model_t *model, int survey, int worker, const command_t *command)
{
    const request_t *request = &model->requests[survey];
    int number = make_request (model, request->client, request->service, command, ASKED);
    model->requests[number].survey = survey;
    row_append (&model->requests[survey].parts, number);
    model->requests[survey].asked_of++;
    pin (model, number, worker, 0);
    serve_pins (model, worker);
}

static size_t takers (const model_t *model, const service_t *service)
{
    size_t count = 0;
    for (size_t i = 0; i < service->workers.count; i++)
        count += is_for_use (&model->peers[service->workers.at[i]]) != 0;
    return count;
}

static void begin_survey (model_t *model, int client, int number, const command_t *command)
{
    const service_t *service = &model->services[number];
    const model_limits_t *limits = &model->limits;
    counters_t *counters = &model->counters;
    uint64_t workers = service->known ? takers (model, service) : 0;
    uint64_t *counter = !workers ? &counters->refused_no_worker
                        : counters->queued + counters->running + workers >= (uint64_t) limits->requests
                            ? &counters->refused_requests
                        : (uint64_t) model->peers[client].outstanding + workers >= (uint64_t) limits->outstanding
                            ? &counters->refused_outstanding
                        : too_many_bytes (model, command->body.bytes * workers) ? &counters->refused_bytes
                        : has_too_many (model, client, workers + 1)             ? &counters->refused_user
                                                                                : NULL;
    if (counter) {
        refuse (model, client, command, workers ? QUEUE_FULL : NO_WORKER, counter);
        return;
    }
    int survey = make_request (model, client, number, command, FOLLOWS);
    command_t each = *command;
    memset (&each.asked, 0, sizeof each.asked);
    each.asked.priority = command->asked.priority;
    each.asked.one_way = command->asked.one_way;
    for (size_t i = 0; i < service->workers.count; i++)
        if (is_for_use (&model->peers[service->workers.at[i]]))
            ask_worker (model, survey, service->workers.at[i], &each);
    enter (model, survey, SURVEYING);
    set_request_timer (&model->requests[survey]);
    settle_survey (model, survey);
}

/* ---- requests that nobody wants any more */

/* A running one goes on for nobody: its worker is told, and its client if its time is over. */
static void let_run (model_t *model, int number, int fate)
{
    request_t *request = &model->requests[number];
    output_t sorry = output (CLIENT, ERROR, 0), mine = output (WORKER, CANCEL, request->token);
    sorry.status = EXPIRED;
    if (fate == IS_EXPIRED)
        tell_client (model, request, &sorry);
    request->fate = fate;
    report (model, request, &sorry);
    tell (model, request->worker, &mine);
    request->key = 0;
    request->timer = NEVER;
    detach (model, request);
}

/* One that is nowhere ends; its client is told only if its time is over. */
static void drop (model_t *model, int number, int fate)
{
    if (fate != IS_EXPIRED)
        model->requests[number].fate = fate;
    end_with (model, number, EXPIRED, &model->counters.expired);
}

static void abandon_survey (model_t *model, int survey, int fate)
{
    row_t *parts = &model->requests[survey].parts;
    while (parts->count) {
        int number = parts->at[0], runs = model->requests[number].state == RUNNING;
        row_remove (parts, number);
        if (runs)
            let_run (model, number, fate);
        else
            take_out (model, number);
        model->requests[number].survey = -1;
        model->requests[number].fate = fate;
        if (!runs)
            drop (model, number, fate);
    }
    model->requests[survey].fate = fate == IS_EXPIRED ? WANTED : fate;
    settle_survey (model, survey);
}

/* Nobody wants it: others may, or else a queued one is dropped, and a running one finished for nobody. */
static void abandon (model_t *model, int number, int fate)
{
    if (model->requests[number].survey >= 0)
        number = model->requests[number].survey;
    request_t *request = &model->requests[number];
    int service = request->service;
    if (request->followers.count)
        drop (model, promote (model, number), fate);
    else if (request->state == RUNNING)
        let_run (model, number, fate);
    else if (request->state == SURVEYING)
        abandon_survey (model, number, fate);
    else {
        take_out (model, number);
        drop (model, number, fate);
    }
    settle (model, service);
}

/* ---- requests that have to wait */

static void serve_queued (model_t *model, int number)
{
    service_t *service = &model->services[number];
    while (service->handler && service->queue.count) {
        output_t answer;
        int first = service->queue.at[0];
        take_out (model, first);
        const request_t *request = &model->requests[first];
        uint64_t *outcome = serve (model, request->name, request->person, request->body, &answer);
        end_request (model, first, &answer, outcome);
    }
}

/* Its time has come. */
static void begin_request (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    int service = request->service;
    take_out (model, number);
    request->arrived = model->now;
    request->begins = 0;
    enqueue (model, number, request->attempts > 0);
    set_request_timer (request);
    if (!is_served (model, service))
        lost_last (model, service);
    serve_queued (model, service);
    dispatch (model, service);
}

/* ---- what is asked for */

static int has_handler (const model_t *model, int service)
{
    return model->services[service].known ? model->services[service].handler : service >= MMI_FROM && model->mmi;
}

/* The host sees it, and may change what it asks for. 1: it refused it. */
static int filter (model_t *model, int client, command_t *command)
{
    output_t mine = output (CLIENT, FILTER, 0), refusal = output (CLIENT, ERROR, 0);
    asked_t *asked = &command->asked;
    mine.service = command->service;
    mine.user = told_user (model->peers[client].person);
    mine.body = command->body;
    mine.seen = *asked;
    mine.seen.unique = mine.seen.affinity = mine.seen.one_way = mine.seen.survey = 0;
    const output_t *theirs = look_ahead (model);
    mine.text = theirs ? theirs->text : 0;
    theirs = expect (model, &mine);
    if (!theirs)
        return 0;
    asked->priority = theirs->asked.priority;
    asked->deadline_ms = theirs->asked.deadline_ms;
    asked->delay_ms = theirs->asked.delay_ms;
    asked->attempts = theirs->asked.attempts;
    asked->backoff_ms = theirs->asked.backoff_ms;
    asked->backoff_max_ms = theirs->asked.backoff_max_ms;
    asked->fail_fast = theirs->asked.fail_fast;
    refusal.status = REFUSED;
    refusal.text = theirs->text;
    if (theirs->result)
        refuse_with (model, client, command, &refusal, &model->counters.refused_filter);
    return theirs->result;
}

static void on_request (model_t *model, int client, const command_t *asked)
{
    uint64_t *counter;
    command_t command = *asked;
    int service = route (model, command.service), leader, person = model->peers[client].person;
    if (command.again && find_request (model, client, command.id) >= 0)
        model->counters.joined++;
    else if (!may_ask (model, client, command.service, command.asked.survey))
        refuse (model, client, &command, DENIED, &model->counters.denied_call);
    else if ((counter = too_large (model, command.body)) != NULL)
        refuse (model, client, &command, REFUSED, counter);
    else if ((counter = is_full (model, &model->peers[client], command.body)) != NULL)
        refuse (model, client, &command, QUEUE_FULL, counter);
    else if ((counter = has_enough (model, client, command.body.bytes)) != NULL)
        refuse (model, client, &command, QUEUE_FULL, counter);
    else if (has_handler (model, service))
        serve_here (model, client, &command);
    else if (model->limits.filters && filter (model, client, &command))
        return;
    else if (command.asked.survey)
        begin_survey (model, client, service, &command);
    else if (command.asked.fail_fast && !is_served (model, service))
        refuse (model, client, &command, NO_WORKER, &model->counters.refused_no_worker);
    else if ((leader = find_leader (model, service, command.service, command.asked.unique, person)) >= 0)
        follow (model, leader, client, &command);
    else
        accept_request (model, client, service, &command);
}

static void on_cancel (model_t *model, int client, const command_t *command)
{
    int number = find_request (model, client, command->id);
    if (number >= 0)
        abandon (model, number, IS_CANCELLED);
}

static void on_more (model_t *model, int client, const command_t *command)
{
    int number = find_request (model, client, command->id);
    if (number < 0 || model->requests[number].state != RUNNING || model->requests[number].mores == MORES_MOST)
        return;
    model->requests[number].mores++;
    output_t mine = output (WORKER, MORE, model->requests[number].token);
    mine.credit = command->credit;
    tell (model, model->requests[number].worker, &mine);
}

/* ---- what workers say */

static void refuse_worker (model_t *model, int peer, uint64_t *counter)
{
    ++*counter;
    send_away (model, peer, REFUSED);
}

/* The life of another user is another's. */
static int find_life (const model_t *model, uint64_t life, int person)
{
    for (int i = 0; i < model->peer_count; i++)
        if (model->peers[i].life == life && model->peers[i].person == person)
            return i;
    return -1;
}

/* He comes from another address than before: what he was there is over. */
static void succeed (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    int former = peer->said_life && !peer->life ? find_life (model, peer->said_life, peer->person) : -1;
    if (former < 0)
        return;
    if (is_worker (&model->peers[former]))
        remove_worker (model, former);
    model->peers[former].life = 0;
    peer->life = peer->said_life;
}

static void deny_worker (model_t *model, int peer)
{
    model->counters.denied_serve++;
    send_away (model, peer, DENIED);
}

static void on_ready (model_t *model, int peer, const command_t *command)
{
    succeed (model, peer);
    if (is_worker (&model->peers[peer]))
        remove_worker (model, peer);
    if (model->peers[peer].failed)
        return; /* it could not be told that a request of its own is dead: it is lost itself */
    if (command->service >= MMI_FROM)
        refuse_worker (model, peer, &model->counters.refused_name);
    else if (!may (model, &model->peers[peer], MAY_SERVE, command->service))
        deny_worker (model, peer);
    else if (model->counters.workers >= (uint64_t) model->limits.workers)
        refuse_worker (model, peer, &model->counters.refused_workers);
    else if (!require_service (model, command->service))
        refuse_worker (model, peer, &model->counters.refused_services);
    else if (model->services[command->service].handler)
        refuse_worker (model, peer, &model->counters.refused_name);
    else {
        add_worker (model, peer, command->service, command);
        if (model->services[command->service].workers.count == 1)
            got_first (model);
        dispatch (model, command->service);
    }
}

/* What it holds under that token; -1: nothing, which is counted. */
static int held (model_t *model, int number, uint64_t token)
{
    const peer_t *peer = &model->peers[number];
    if (!is_worker (peer)) {
        model->counters.bad_state++;
        send_away (model, number, 0);
        return -1;
    }
    for (size_t i = 0; i < peer->worker.hand.count; i++)
        if (model->requests[peer->worker.hand.at[i]].token == token)
            return peer->worker.hand.at[i];
    model->counters.stale++;
    return -1;
}

/* It failed too often: it gets nothing for a while, which is twice as long as the last time. */
static void rest (model_t *model, peer_t *peer)
{
    int doublings = peer->worker.rests < 4 ? peer->worker.rests : 4;
    model->counters.rested++;
    peer->worker.rested = after (model->now, model->limits.rest << doublings);
    peer->worker.resting = peer->worker.probation = 1;
    peer->worker.failures = 0;
    peer->worker.rests++;
    set_worker_timer (model, peer);
}

static void judge (model_t *model, peer_t *peer, int has_failed)
{
    int slow = model->now - peer->worker.since > model->limits.slow;
    peer->worker.failed += (uint64_t) has_failed;
    peer->worker.slow += (uint64_t) slow;
    if (!has_failed && !slow)
        peer->worker.failures = peer->worker.probation = peer->worker.rests = 0;
    else if (!peer->worker.resting
             && (++peer->worker.failures >= model->limits.rest_failures || peer->worker.probation))
        rest (model, peer);
}

static void done (model_t *model, int number, output_t *answer, uint64_t *outcome)
{
    int worker = model->requests[number].worker;
    int is_wanted = model->requests[number].client != -1;
    take_back (model, number);
    if (is_wanted) /* else it may have been told to end it */
        judge (model, &model->peers[worker], answer->type == ERROR);
    count_done (model, &model->peers[worker]);
    place (model, &model->peers[worker]);
    end_request (model, number, answer, outcome);
    free_hand (model, worker);
}

static void failed (model_t *model, int number, uint64_t text, uint32_t code)
{
    output_t answer = output (CLIENT, ERROR, 0);
    answer.status = FAILED;
    answer.text = text;
    answer.code = code;
    done (model, number, &answer, &model->counters.failed);
}

static void refused (model_t *model, int number, uint64_t *counter)
{
    ++*counter;
    failed (model, number, TEXT_OF_BROKER, 0);
}

/* Clients that have no partial replies get all parts as one. -1: it is refused. */
static int gather (model_t *model, int number, body_t part)
{
    request_t *request = &model->requests[number];
    if (too_many_bytes (model, part.bytes)) {
        refused (model, number, &model->counters.refused_bytes);
        return -1;
    }
    model->counters.bytes += part.bytes;
    request->gathered = request->gathers ? body_join (request->gathered, part) : part;
    request->gathers = 1;
    uint64_t *counter = too_large (model, request->gathered);
    if (!counter)
        return 0;
    refused (model, number, counter);
    return -1;
}

/* To the client, and to all that have joined it, in order. */
static void share (model_t *model, int number, const output_t *answer)
{
    request_t *request = &model->requests[number];
    tell_client (model, request, answer);
    for (size_t i = 0; i < request->followers.count; i++)
        tell_client (model, &model->requests[request->followers.at[i]], answer);
}

static int gathers (const model_t *model, const request_t *request)
{
    return request->survey >= 0
           || (request->client >= 0 && !has_partials (model->peers[request->client].dialect[CLIENT]));
}

static void on_partial (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number < 0 || model->requests[number].client == -1)
        return;
    output_t answer = output (CLIENT, PARTIAL, 0);
    model->counters.partials++;
    if (model->requests[number].mores > 0)
        model->requests[number].mores--;
    answer.body = command->body;
    uint64_t *counter = too_large (model, command->body);
    if (counter)
        refused (model, number, counter);
    else if (gathers (model, &model->requests[number]))
        gather (model, number, command->body);
    else
        share (model, number, &answer);
}

static void on_progress (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number < 0 || model->requests[number].client == -1)
        return;
    output_t answer = output (CLIENT, PROGRESS, 0);
    model->counters.progress++;
    answer.text = command->text;
    answer.progress = command->progress;
    answer.progress.has = 1; /* 0 of 0, if the worker does not say */
    share (model, number, &answer);
}

static void on_reply (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number < 0)
        return;
    request_t *request = &model->requests[number];
    output_t answer = output (CLIENT, REPLY, 0);
    answer.body = command->body;
    if (request->gathers && request->gathered.bytes && request->client != -1) {
        if (gather (model, number, command->body) != 0)
            return;
        answer.body = request->gathered;
    }
    uint64_t *counter = too_large (model, answer.body);
    if (counter)
        refused (model, number, counter);
    else
        done (model, number, &answer, &model->counters.replied);
}

/* The next behind a worker that takes requests and has not refused this one; -1: there is none. */
static int next_behind (const model_t *model, const request_t *request, const service_t *service, int worker)
{
    size_t at = 0, count = service->workers.count;
    while (at < count && service->workers.at[at] != worker)
        at++;
    for (size_t i = 1; i < count; i++) {
        int other = service->workers.at[(at + i) % count];
        if (is_for_use (&model->peers[other]) && !was_refused_by (request, &model->peers[other]))
            return other;
    }
    return -1;
}

/* To the first that has room and has not refused it, or it waits for the next of these. */
static void pass_on (model_t *model, int number, int refuser)
{
    const service_t *service = &model->services[model->requests[number].service];
    int worker = -1;
    while (!model->paused && (worker = next_choice (model, service, worker)) >= 0)
        if (!was_refused_by (&model->requests[number], &model->peers[worker]))
            break;
    if (worker < 0)
        worker = next_behind (model, &model->requests[number], service, refuser);
    pin (model, number, worker, 0);
    serve_pins (model, worker);
}

/* It is not for that worker, and was not tried. */
static void on_refused (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    int worker = request->worker;
    model->counters.given_back++;
    take_back (model, number);
    forget_parts (model, request);
    request->attempts--;
    model->peers[worker].worker.since = model->now;
    place (model, &model->peers[worker]);
    if (request->client != -1)
        request->refused_by[request->refusals++] = model->peers[worker].worker.number;
    if (request->client == -1 || request->survey >= 0 || request->refusals == REFUSALS_MOST
        || who_else (model, request) < 0)
        end_with (model, number, REFUSED, &model->counters.failed);
    else
        pass_on (model, number, worker);
    free_hand (model, worker);
}

static void on_error (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number < 0)
        return;
    if (command->refuses)
        on_refused (model, number);
    else
        failed (model, number, command->text, command->code);
}

static void on_heartbeat (model_t *model, int peer)
{
    if (is_worker (&model->peers[peer]))
        return;
    model->counters.bad_state++;
    send_away (model, peer, 0);
}

static void on_drain (model_t *model, int peer)
{
    if (is_worker (&model->peers[peer]))
        drain (model, peer);
    else
        on_heartbeat (model, peer);
}

/* What he has not begun was not tried. */
static void on_disconnect (model_t *model, int peer, const command_t *command)
{
    const row_t *hand = &model->peers[peer].worker.hand;
    if (!is_worker (&model->peers[peer])) {
        model->counters.bad_state++;
        return;
    }
    for (size_t i = 0; command->unbegun && i < hand->count; i++)
        model->requests[hand->at[i]].attempts--;
    model->counters.workers_left++;
    remove_worker (model, peer);
}

void model_receive (model_t *model, int peer, const command_t *command)
{
    model->peers[peer].worker.heard = model->now;
    switch (command->type) {
        case READY: on_ready (model, peer, command); break;
        case REQUEST: on_request (model, peer, command); break;
        case PARTIAL: on_partial (model, peer, command); break;
        case REPLY: on_reply (model, peer, command); break;
        case ERROR: on_error (model, peer, command); break;
        case HEARTBEAT: on_heartbeat (model, peer); break;
        case DISCONNECT: on_disconnect (model, peer, command); break;
        case CANCEL: on_cancel (model, peer, command); break;
        case PROGRESS: on_progress (model, peer, command); break;
        case MORE: on_more (model, peer, command); break;
        case DRAIN: on_drain (model, peer); break;
        default: break;
    }
    model_bury (model);
}

void model_malformed (model_t *model, int number, int side)
{
    peer_t *peer = &model->peers[number];
    int as_worker = is_worker (peer) || (side == WORKER && peer->dialect[WORKER] != ZQB1);
    output_t mine = output (CLIENT, ERROR, 0);
    mine.status = MALFORMED;
    if (is_worker (peer))
        lose_worker (model, number);
    if (as_worker)
        send_away (model, number, MALFORMED);
    else
        tell (model, number, &mine);
    model_bury (model);
}

/* It may have been a reply: what a worker holds goes back, and it goes; of LRU it stays, as it is ready for more. */
void model_missed (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    int is_lru = peer->dialect[WORKER] == LRU;
    if (!is_worker (peer))
        return;
    while (is_lru && peer->worker.hand.count)
        give_back (model, peer->worker.hand.at[peer->worker.hand.count - 1]);
    if (is_lru) {
        place (model, peer);
        free_hand (model, number);
    } else {
        lose_worker (model, number);
        send_away (model, number, 0);
    }
    model_bury (model);
}

/* ---- who is lost */

/* What is wanted though its client is gone is nobody's. */
static void orphan (model_t *model, int client)
{
    for (int i = 0; i < SERVICES_MOST; i++)
        for (int rank = 0; rank < RANKS; rank++) {
            row_t *ranked = &model->services[i].ranked[rank];
            size_t left = ranked->count;
            for (size_t at = 0; left > 0; left--) {
                const request_t *request = &model->requests[ranked->at[at]];
                if (request->client == client && request->asked.one_way)
                    change_lane (model, ranked->at[at], NOBODY, rank);
                else
                    at++;
            }
        }
    for (int i = 0; i < model->request_count; i++)
        if (model->requests[i].state && model->requests[i].client == client && model->requests[i].asked.one_way)
            change_lane (model, i, NOBODY, model->requests[i].rank);
}

/* The first request of a lane: those that are not queued come first, as they came there; -1: none. */
static int first_of_lane (const model_t *model, int client, uint64_t which)
{
    int first = -1;
    for (int i = 0; i < model->request_count; i++) {
        const request_t *request = &model->requests[i];
        if (request->state && request->state != QUEUED && request->client == client
            && lane_of (model, request->service, request->rank) == which
            && (first < 0 || request->fronted < model->requests[first].fronted))
            first = i;
    }
    for (int i = 0; i < SERVICES_MOST && first < 0; i++)
        for (int rank = 0; rank < RANKS; rank++)
            if (model->services[i].known && lane_of (model, i, rank) == which)
                first = first_of (model, &model->services[i], client, rank);
    return first;
}

static void lose_client (model_t *model, int client)
{
    peer_t *peer = &model->peers[client];
    orphan (model, client);
    while (peer->outstanding) {
        size_t i = 0;
        while (peer->lanes[i].count == 0)
            i++;
        abandon (model, first_of_lane (model, client, peer->lanes[i].which), IS_GONE);
    }
}

/* Replies that were packed and not sent were not given, and requests not tried. */
static void drop_packed (model_t *model, peer_t *peer)
{
    const row_t *hand = &peer->worker.hand;
    for (size_t i = hand->count; is_worker (peer) && peer->asked && i-- > 0; peer->asked--)
        model->requests[hand->at[i]].attempts--;
    peer->asked = 0;
    model->counters.replied -= peer->packed;
    model->counters.client_gone += peer->packed;
    peer->packed = 0;
}

/* Clients of ZQB/1 are waited for as long as a silent worker; all others are lost with their connection. */
static int waits_for (const model_t *model, peer_t *peer)
{
    uint64_t until = after (model->now, model->limits.expiry);
    if (!peer->life || is_worker (peer) || peer->given_up || until == NEVER)
        return 0;
    if (peer->outstanding && peer->timer == NEVER)
        peer->timer = until;
    return 1;
}

/* What follows when peers could not be reached, in that order. */
void model_bury (model_t *model)
{
    while (model->failed.count) {
        int number = model->failed.at[0];
        peer_t *peer = &model->peers[number];
        drop_packed (model, peer);
        if (!waits_for (model, peer))
            lose_client (model, number);
        if (is_worker (peer))
            lose_worker (model, number);
        peer->failed = 0;
        row_remove (&model->failed, number);
    }
}

void model_lost (model_t *model, int peer)
{
    model->counters.unsendable++;
    fail (model, peer);
    model_bury (model);
}

void model_flushed (model_t *model, int peer)
{
    model->peers[peer].packed = model->peers[peer].asked = 0;
}

void model_disconnected (model_t *model, int connection)
{
    for (int i = 0; i < model->peer_count; i++) {
        peer_t *peer = &model->peers[i];
        if (peer->connection != connection)
            continue;
        peer->connection = -1;
        if (!waits_for (model, peer))
            fail (model, i);
    }
}

static int matters (const peer_t *peer)
{
    return is_worker (peer) || peer->outstanding || peer->packed;
}

void model_order_failed (model_t *model, const uint32_t *addresses, size_t count)
{
    row_t theirs = {NULL, 0, 0};
    for (size_t i = 0; i < count; i++) {
        int number = model_find (model, addresses[i]);
        size_t before = model->failed.count;
        if (number >= 0)
            row_remove (&model->failed, number);
        if (model->failed.count == before)
            snprintf (model->verdict, sizeof model->verdict, "the engine gave up %u, the model did not",
                      (unsigned) addresses[i]);
        else
            row_append (&theirs, number);
    }
    for (size_t i = 0; i < model->failed.count; i++) {
        peer_t *peer = &model->peers[model->failed.at[i]];
        peer->failed = 0;
        if (matters (peer))
            snprintf (model->verdict, sizeof model->verdict, "the model gives up %u, the engine did not",
                      (unsigned) peer->address);
    }
    free (model->failed.at);
    model->failed = theirs;
}

/* ---- time */

static void worker_due (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    output_t beat = output (WORKER, HEARTBEAT, 0);
    int due = model->now >= after (peer->worker.told, peer->worker.beat);
    peer->worker.timer = NEVER;
    uint64_t limit = model->services[peer->worker.service].limit;
    int silent =
        has_heartbeats (peer->dialect[WORKER]) && model->now >= after (peer->worker.heard, peer->worker.expiry);
    if (peer->worker.hand.count ? model->now >= after (peer->worker.since, limit) : silent) {
        lose_worker (model, number);
        send_away (model, number, 0);
        return;
    }
    if (peer->worker.resting && model->now >= peer->worker.rested) {
        peer->worker.resting = 0;
        place (model, peer);
        serve_pins (model, number);
        dispatch (model, peer->worker.service);
    }
    if (!due || tell (model, number, &beat) == 0)
        set_worker_timer (model, peer);
}

static int waited_too_long (const model_t *model, const service_t *service)
{
    return service->queue.count && !service->workers.count
           && model->now >= after (model->requests[service->queue.at[0]].arrived, model->limits.no_worker);
}

static void service_due (model_t *model, int number)
{
    service_t *service = &model->services[number];
    service->timer = NEVER;
    while (waited_too_long (model, service)) {
        int oldest = service->queue.at[0];
        take_out (model, oldest);
        end_with (model, oldest, NO_WORKER, &model->counters.expired);
    }
    settle (model, number);
}

/* How many it should have is for the rules to say, which are not modelled; that it is another number than before, and
   how things are, is checked. */
static void scale_due (model_t *model, int number)
{
    service_t *service = &model->services[number];
    output_t mine = output (CLIENT, SCALE, 0);
    const output_t *theirs = look_ahead (model);
    uint64_t values[4] = {service->queue.count, 0, 0, 0};
    service->watched = after (model->now, 100000);
    if (!theirs || theirs->type != SCALE || theirs->service != number || theirs->credit == service->told)
        return;
    if (service->queue.count)
        values[1] = model->now - model->requests[service->queue.at[0]].arrived;
    for (size_t i = 0; i < service->workers.count; i++) {
        const peer_t *peer = &model->peers[service->workers.at[i]];
        values[peer->worker.hand.count ? 3 : 2] += is_for_use (peer) != 0;
    }
    mine.service = number;
    mine.body = body_of_service (values);
    mine.credit = theirs->credit < service->least ? service->least
                  : theirs->credit > service->most ? service->most
                                                   : theirs->credit;
    service->told = theirs->credit;
    expect (model, &mine);
}

static void request_due (model_t *model, int number)
{
    if (model->now >= model->requests[number].ends)
        abandon (model, number, IS_EXPIRED);
    else
        begin_request (model, number);
}

uint64_t model_next (const model_t *model)
{
    uint64_t next = NEVER;
    for (int i = 0; i < SERVICES_MOST; i++) {
        const service_t *service = &model->services[i];
        if (service->known && service->timer < next)
            next = service->timer;
        if (service->known && service->watched < next)
            next = service->watched;
    }
    for (int i = 0; i < model->peer_count; i++) {
        const peer_t *peer = &model->peers[i];
        if (peer->timer < next)
            next = peer->timer;
        if (is_worker (peer) && peer->worker.timer < next)
            next = peer->worker.timer;
    }
    for (int i = 0; i < model->request_count && model->may_wait; i++)
        if (model->requests[i].state && model->requests[i].timer < next)
            next = model->requests[i].timer;
    return next;
}

static due_t *new_due (model_t *model, int kind, int number)
{
    if (model->due_count == model->due_capacity) {
        model->due_capacity = model->due_capacity ? model->due_capacity * 2 : 16;
        model->due = (due_t *) must_have (realloc (model->due, model->due_capacity * sizeof *model->due));
    }
    due_t *due = &model->due[model->due_count++];
    memset (due, 0, sizeof *due);
    due->kind = kind;
    due->number = number;
    return due;
}

void model_is_due (model_t *model, int kind, uint32_t whose)
{
    int number = kind == DUE_SERVICE || kind == DUE_SCALE ? (int) whose : model_find (model, whose);
    if (number >= 0)
        new_due (model, kind, number);
}

void model_request_is_due (model_t *model, uint32_t whose, uint64_t id, uint64_t arrived, int follows, body_t body)
{
    due_t *due = new_due (model, DUE_REQUEST, whose == UINT32_MAX ? NOBODY : model_find (model, whose));
    due->id = id;
    due->arrived = arrived;
    due->follows = follows;
    due->body = body;
}

/* Which request is meant, whose time this is; -1: none. */
static int find_due (const model_t *model, const due_t *due, uint64_t at)
{
    for (int i = 0; i < model->request_count; i++) {
        const request_t *request = &model->requests[i];
        if (request->state && request->timer == at && request->client == due->number && request->id == due->id
            && request->arrived == due->arrived && (request->state == FOLLOWING) == due->follows
            && body_same (request->body, due->body))
            return i;
    }
    return -1;
}

/* When something is to happen: the time of a worker, of a service, of a peer that may come back. */
static uint64_t timer_of (const model_t *model, const due_t *due)
{
    int number = due->number;
    switch (due->kind) {
        case DUE_WORKER: return is_worker (&model->peers[number]) ? model->peers[number].worker.timer : NEVER;
        case DUE_SERVICE: return model->services[number].known ? model->services[number].timer : NEVER;
        case DUE_SCALE: return model->services[number].known ? model->services[number].watched : NEVER;
        default: return model->peers[number].timer;
    }
}

/* Of all that is due at the same time, what the engine took first; NULL: it took none of it. */
static due_t *next_due (model_t *model, uint64_t at)
{
    for (size_t i = 0; i < model->due_count; i++) {
        due_t *due = &model->due[i];
        if (due->done || (due->kind == DUE_REQUEST ? find_due (model, due, at) < 0 : timer_of (model, due) != at))
            continue;
        due->done = 1;
        return due;
    }
    return NULL;
}

static void peer_due (model_t *model, int number)
{
    model->peers[number].timer = NEVER;
    model->peers[number].given_up = 1;
    fail (model, number);
}

static void do_due (model_t *model, const due_t *due, uint64_t at)
{
    switch (due->kind) {
        case DUE_WORKER: worker_due (model, due->number); break;
        case DUE_SERVICE: service_due (model, due->number); break;
        case DUE_SCALE: scale_due (model, due->number); break;
        case DUE_REQUEST: request_due (model, find_due (model, due, at)); break;
        default: peer_due (model, due->number); break;
    }
}

/* Of peers without a purpose the engine knows the latest only: the others' time does not come. Whether it is one. */
static int was_forgotten (model_t *model, uint64_t at)
{
    for (int i = 0; i < model->peer_count; i++)
        if (model->peers[i].timer == at && !matters (&model->peers[i])) {
            model->peers[i].timer = NEVER;
            return 1;
        }
    return 0;
}

void model_tick (model_t *model)
{
    uint64_t at;
    while ((at = model_next (model)) <= model->now && at != NEVER) {
        due_t *due = next_due (model, at);
        if (!due && was_forgotten (model, at))
            continue;
        if (!due) {
            snprintf (model->verdict, sizeof model->verdict, "something was due at %llu, and the engine did nothing",
                      (unsigned long long) at);
            break;
        }
        do_due (model, due, at);
    }
    model->due_count = 0;
    model_bury (model);
}

/* ---- the host */

int model_limit (model_t *model, int number, uint64_t limit)
{
    service_t *service = require_service (model, number);
    if (!service)
        return ENOSPC;
    service->limit = limit;
    for (size_t i = 0; i < service->workers.count; i++)
        set_worker_timer (model, &model->peers[service->workers.at[i]]);
    settle (model, number);
    return 0;
}

int model_handle (model_t *model, int number, int handler)
{
    service_t *service = require_service (model, number);
    if (!service)
        return ENOSPC;
    if (service->workers.count)
        return EADDRINUSE;
    service->handler = handler;
    serve_queued (model, number);
    if (handler)
        got_first (model);
    settle (model, number);
    model_bury (model);
    return 0;
}

int model_policy (model_t *model, int number, int policy)
{
    service_t *service = require_service (model, number);
    if (!service)
        return ENOSPC;
    service->policy = policy;
    for (size_t i = 0; i < service->workers.count; i++)
        model->peers[service->workers.at[i]].worker.level = -1;
    for (size_t i = 0; i < service->workers.count; i++)
        place (model, &model->peers[service->workers.at[i]]);
    settle (model, number);
    return 0;
}

int model_scale (model_t *model, int number, uint32_t least, uint32_t most)
{
    service_t *service = most ? require_service (model, number) : &model->services[number];
    if (!service)
        return ENOSPC;
    if (!service->known)
        return 0;
    service->least = least;
    service->most = most;
    service->told = 0;
    service->watched = most ? model->now : NEVER;
    if (!most)
        settle (model, number);
    return 0;
}

int model_drain (model_t *model, int number, uint64_t which)
{
    row_t workers = {NULL, 0, 0};
    int found = 0;
    for (size_t i = 0; model->services[number].known && i < model->services[number].workers.count; i++)
        row_append (&workers, model->services[number].workers.at[i]);
    for (size_t i = 0; i < workers.count; i++) {
        const peer_t *peer = &model->peers[workers.at[i]];
        if (which && peer->worker.number != which)
            continue;
        found = 1;
        if (!peer->worker.draining)
            drain (model, workers.at[i]);
    }
    free (workers.at);
    model_bury (model);
    return found ? 0 : ENOENT;
}

/* Workers that may serve no more go, and none of them gets what another held. */
static void deny_workers (model_t *model)
{
    row_t denied = {NULL, 0, 0};
    int number;
    for (uint64_t made = 0; (number = made_after (model, made)) >= 0;) {
        const row_t *workers = &model->services[number].workers;
        made = model->services[number].made;
        for (size_t i = 0; i < workers->count; i++) {
            peer_t *peer = &model->peers[workers->at[i]];
            if (may (model, peer, MAY_SERVE, number))
                continue;
            peer->worker.credit = 0;
            place (model, peer);
            row_append (&denied, workers->at[i]);
        }
    }
    for (size_t i = 0; i < denied.count; i++) {
        deny_worker (model, denied.at[i]);
        remove_worker (model, denied.at[i]);
    }
    free (denied.at);
}

/* What a survey asks for goes with it, and what is nobody's stays. */
static int may_stay (const model_t *model, const request_t *request)
{
    return request->client < 0 || request->survey >= 0
           || may_ask (model, request->client, request->name, request->state == SURVEYING);
}

/* Where a request is among all: by service, by lane, and what is queued behind the others. */
typedef struct standing_t {
    uint64_t place[4];
    int number;
} standing_t;

static int compare_standing (const void *a, const void *b)
{
    const standing_t *x = (const standing_t *) a, *y = (const standing_t *) b;
    int i = 0;
    while (i < 3 && x->place[i] == y->place[i])
        i++;
    return x->place[i] < y->place[i] ? -1 : x->place[i] > y->place[i];
}

static standing_t standing (model_t *model, int number, uint64_t at)
{
    const request_t *request = &model->requests[number];
    lane_t *lane = find_lane (&model->peers[request->client], lane_of (model, request->service, request->rank));
    standing_t of = {{model->services[request->service].made, lane->made, request->state == QUEUED, at}, number};
    return of;
}

/* Those that may not stay, in order: how many. */
static size_t list_denied (model_t *model, standing_t *denied)
{
    size_t count = 0;
    for (int i = 0; i < model->request_count; i++) {
        const request_t *request = &model->requests[i];
        if (request->state && request->state != QUEUED && !may_stay (model, request))
            denied[count++] = standing (model, i, request->fronted);
    }
    for (int i = 0; i < SERVICES_MOST * RANKS; i++) {
        const row_t *ranked = &model->services[i / RANKS].ranked[i % RANKS];
        for (size_t at = 0; at < ranked->count; at++)
            if (!may_stay (model, &model->requests[ranked->at[at]]))
                denied[count++] = standing (model, ranked->at[at], at);
    }
    qsort (denied, count, sizeof *denied, compare_standing);
    return count;
}

static void deny_request (model_t *model, int number)
{
    output_t sorry = output (CLIENT, ERROR, 0);
    if (!model->requests[number].state || may_stay (model, &model->requests[number]))
        return;
    sorry.status = DENIED;
    model->counters.denied_call++;
    tell_client (model, &model->requests[number], &sorry);
    abandon (model, number, IS_CANCELLED);
}

/* Who had joined one that ends takes its place, and may have to end as well. */
static void deny_requests (model_t *model)
{
    size_t count, most = (size_t) model->request_count + 1;
    standing_t *denied = (standing_t *) must_have (malloc (most * sizeof *denied));
    while ((count = list_denied (model, denied)) > 0)
        for (size_t i = 0; i < count; i++)
            deny_request (model, denied[i].number);
    free (denied);
}

void model_rules (model_t *model, const rules_t *rules)
{
    model->rules = rules ? &model->own_rules : NULL;
    if (rules)
        model->own_rules = *rules;
}

void model_access (model_t *model, const host_t *host)
{
    model->host = *host;
    deny_workers (model);
    deny_requests (model);
    model_bury (model);
}

void model_pause (model_t *model)
{
    model->paused = 1;
}

/* Services in the order in which they were made. */
void model_go_on (model_t *model)
{
    int number;
    model->paused = 0;
    for (uint64_t made = 0; (number = made_after (model, made)) >= 0;) {
        made = model->services[number].made;
        for (size_t i = 0; i < model->services[number].workers.count; i++)
            serve_pins (model, model->services[number].workers.at[i]);
        dispatch (model, number);
    }
    model_bury (model);
}

static void finish_service (model_t *model, int number)
{
    service_t *service = &model->services[number];
    service->handler = 0;
    service->limit = NEVER;
    service->policy = BY_LOAD;
    service->most = 0;
    service->watched = NEVER;
    while (service->workers.count) {
        send_away (model, service->workers.at[0], 0);
        remove_worker (model, service->workers.at[0]);
    }
    while (service->queue.count || service->delayed.count) {
        int first = service->queue.count ? service->queue.at[0] : service->delayed.at[0];
        take_out (model, first);
        end_with (model, first, CANCELLED, &model->counters.cancelled);
    }
    if (service->known)
        settle (model, number);
}

/* Nobody gets anything more to do, workers are sent away, and who waits is told. */
void model_finish (model_t *model)
{
    int number;
    model->ending = 1;
    for (int i = 0; i < model->peer_count; i++) {
        model->peers[i].worker.credit = 0;
        model->peers[i].worker.adapts = 0;
        if (is_worker (&model->peers[i]))
            place (model, &model->peers[i]);
    }
    while ((number = made_after (model, 0)) >= 0)
        finish_service (model, number);
    model_bury (model);
}

/* ---- peers */

int model_find (const model_t *model, uint32_t address)
{
    return address < model->addresses ? model->peer_at[address] : -1;
}

static int is_known (const model_t *model, int person)
{
    for (int i = 0; i < model->peer_count; i++)
        if (model->peers[i].person == person)
            return 1;
    for (int i = 0; i < model->request_count; i++)
        if (model->requests[i].state && model->requests[i].client != -1 && model->requests[i].person == person)
            return 1;
    return 0;
}

/* The engine asks who somebody is. What it knows of a user who has neither peers nor requests it may forget. */
static void identify (model_t *model, int person)
{
    output_t mine = output (CLIENT, IDENTIFY, 0);
    mine.user = person;
    const output_t *theirs = model->limits.identifies ? expect (model, &mine) : NULL;
    if (!theirs || theirs->result || !user_names[person])
        return;
    if (is_known (model, person))
        snprintf (model->verdict, sizeof model->verdict, "user %d was forgotten, who has peers, or requests", person);
    memset (&model->accounts[person], 0, sizeof model->accounts[person]);
}

static int new_peer (model_t *model, uint32_t address, int person)
{
    peer_t *peer = &model->peers[model->peer_count];
    memset (peer, 0, sizeof *peer);
    peer->address = address;
    peer->person = person;
    peer->former = NO_FORMER;
    peer->connection = peer->dialect[CLIENT] = peer->dialect[WORKER] = -1;
    peer->worker.service = -1;
    peer->timer = peer->worker.timer = NEVER;
    model->peer_at[address] = model->peer_count;
    return model->peer_count++;
}

/* Known by its life, it has a new address. */
static void move_peer (model_t *model, int number, uint32_t address)
{
    peer_t *peer = &model->peers[number];
    model->peer_at[peer->address] = -1;
    peer->former = peer->address;
    peer->address = address;
    peer->connection = -1;
    model->peer_at[address] = number;
}

/* Another has the address now: nobody waits for what the one before had asked for, or will do what he had to do. */
static void replace_peer (model_t *model, int number)
{
    fail (model, number); /* nothing of that reaches the other */
    drop_packed (model, &model->peers[number]);
    lose_client (model, number);
    if (is_worker (&model->peers[number]))
        lose_worker (model, number);
    model->peers[number].failed = 0;
    row_remove (&model->failed, number);
    model->peers[number].life = 0;
    model_bury (model);
}

static void take_life (const model_t *model, peer_t *peer)
{
    if (peer->said_life && !peer->life && find_life (model, peer->said_life, peer->person) < 0)
        peer->life = peer->said_life;
}

/* What still comes from the address before is his, too, and he does not move back for it. */
int model_peer (model_t *model, uint32_t address, uint64_t life, int person)
{
    int number = model_find (model, address);
    if (number < 0)
        identify (model, person);
    if (number < 0 && life && (number = find_life (model, life, person)) >= 0 && is_worker (&model->peers[number]))
        number = -1; /* a worker is where it registered */
    else if (number >= 0 && model->peers[number].address != address && model->peers[number].former != address)
        move_peer (model, number, address);
    if (number < 0)
        number = new_peer (model, address, person);
    peer_t *peer = &model->peers[number];
    peer->said_life = life;
    if (life && peer->life && peer->life != life)
        replace_peer (model, number);
    take_life (model, peer);
    peer->timer = NEVER;
    peer->given_up = 0;
    return number;
}

/* Another has the connection now: nothing of what the one before had is his. */
void model_recognise (model_t *model, int number, int person)
{
    peer_t *peer = &model->peers[number];
    identify (model, person);
    if (peer->person == person)
        return;
    replace_peer (model, number);
    peer->person = person;
    memset (&peer->account, 0, sizeof peer->account);
    memset (&peer->own, 0, sizeof peer->own);
    take_life (model, peer);
}

int model_connection (const model_t *model, int peer)
{
    return model->peers[peer].connection;
}

void model_set_connection (model_t *model, int peer, int connection, int place)
{
    model->peers[peer].place = place;
    model->peers[peer].connection = connection;
}

/* A worker is answered in the dialect of its READY. */
void model_set_dialect (model_t *model, int number, int dialect, int side, int type)
{
    peer_t *peer = &model->peers[number];
    if (dialect == ZQB1)
        peer->dialect[CLIENT] = peer->dialect[WORKER] = ZQB1;
    else if (side == CLIENT || !is_worker (peer) || type == READY)
        peer->dialect[side] = dialect;
}

int model_dialect (const model_t *model, int peer, int side)
{
    return model->peers[peer].dialect[side];
}

int model_has_worker (const model_t *model, int peer)
{
    return is_worker (&model->peers[peer]);
}

model_t *model_new (const model_limits_t *limits, uint32_t addresses, int mmi, uint64_t now, char (*names)[256],
                    const uint8_t *name_sizes)
{
    model_t *model = (model_t *) must_have (calloc (1, sizeof *model));
    model->limits = *limits;
    model->now = now;
    model->mmi = mmi;
    model->names = names;
    model->name_sizes = name_sizes;
    model->addresses = addresses;
    model->peers = (peer_t *) must_have (malloc (addresses * sizeof *model->peers));
    model->peer_at = (int *) must_have (malloc (addresses * sizeof *model->peer_at));
    for (uint32_t i = 0; i < addresses; i++)
        model->peer_at[i] = -1;
    for (int i = 0; i < SERVICES_MOST; i++)
        model->services[i].timer = NEVER;
    memset (model->host.says, -1, sizeof model->host.says);
    return model;
}

void model_free (model_t *model)
{
    for (int i = 0; i < model->peer_count; i++) {
        free (model->peers[i].worker.hand.at);
        free (model->peers[i].lanes);
        for (int rank = 0; rank < RANKS; rank++)
            free (model->peers[i].worker.pins[rank].at);
    }
    for (int i = 0; i < SERVICES_MOST; i++) {
        free (model->services[i].queue.at);
        free (model->services[i].hasty.at);
        free (model->services[i].delayed.at);
        free (model->services[i].workers.at);
        free (model->services[i].slots);
        for (int rank = 0; rank < RANKS; rank++) {
            free (model->services[i].ranked[rank].at);
            free (model->services[i].turns[rank].at);
        }
    }
    for (int i = 0; i < model->request_count; i++) {
        free (model->requests[i].followers.at);
        free (model->requests[i].parts.at);
    }
    free (model->unused.at);
    free (model->failed.at);
    free (model->due);
    free (model->requests);
    free (model->peer_at);
    free (model->peers);
    free (model);
}
