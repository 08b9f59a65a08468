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

typedef struct request_t {
    int used, service, client, worker; /* -1: nobody */
    int attempts, cancelled, gathers;
    uint64_t id, token, arrived;
    body_t body, gathered;
} request_t;

typedef struct service_t {
    int known, handler;
    uint64_t made; /* which of all services was made when */
    uint64_t alone_since, timer, limit;
    row_t queue; /* by arrival; what was given back is first */
    row_t turns; /* clients that have something in it */
    row_t workers;
} service_t;

typedef struct peer_t {
    uint32_t address, former;
    uint64_t life, said_life;
    int connection, dialect[2], outstanding, failed;
    uint64_t timer; /* so long it may take to come back */
    uint64_t packed; /* replies that wait to be sent */
    uint64_t asked;  /* requests that do: the last in its hand */
    int given_up;    /* it did not come back */
    struct {
        int service; /* -1: it is none */
        int adapts;
        uint32_t credit;
        int level;       /* of its load; -1: no room */
        uint64_t placed; /* whoever came to a level first has waited longest there */
        uint64_t told, heard, timer, beat, expiry;
        uint64_t bytes, since, busy, done;
        row_t hand;
    } worker;
} peer_t;

struct model_t {
    model_limits_t limits;
    counters_t counters;
    uint64_t now, order;
    const output_t *outputs;
    size_t count, next;
    char verdict[512];
    int mmi, paused, ending;
    service_t services[SERVICES_MOST];
    peer_t *peers;
    int peer_count;
    int *peer_at; /* by address; -1 nobody */
    uint32_t addresses;
    request_t *requests;
    int request_count, request_capacity;
    row_t unused, failed;
    row_t due; /* what the engine did in this tick, in its order: number and kind */
};

const char *const command_names[] = {"?",     "READY",     "REQUEST",    "PARTIAL", "REPLY",
                                     "ERROR", "HEARTBEAT", "DISCONNECT", "CANCEL",  "dead letter"};

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
                  "%s to %s at %u: status %d, service %d, id %llx, text %llx, body %llx (%d frames, %d bytes)",
                  command_names[o->type], o->side == WORKER ? "worker" : "client", (unsigned) o->address, o->status,
                  o->service, (unsigned long long) o->id, (unsigned long long) o->text,
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
    return mine->served == theirs->served && mine->service == theirs->service && body_same (mine->body, theirs->body)
           && (mine->served
               || (mine->address == theirs->address && mine->side == theirs->side && mine->type == theirs->type
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
        case ERROR: return dialect == ZQB1;
        case HEARTBEAT: return has_heartbeats (dialect);
        case DISCONNECT: return has_disconnect (dialect);
        default: return 1;
    }
}

static void fail (model_t *model, int peer)
{
    if (model->peers[peer].failed)
        return;
    model->peers[peer].failed = 1;
    row_append (&model->failed, peer);
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
    service->timer = service->limit = NEVER;
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
    if (service->limit != NEVER)
        return;
    service->known = 0;
    service->timer = NEVER;
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

/* However many it may hold, behind large bodies nothing waits. */
static int has_room (const model_t *model, const peer_t *peer)
{
    size_t load = peer->worker.hand.count;
    return !peer->failed && load < peer->worker.credit && (load == 0 || peer->worker.bytes < model->limits.hand);
}

/* The load of a worker has changed. */
static void place (model_t *model, peer_t *peer)
{
    int level = has_room (model, peer) ? level_of (peer->worker.hand.count) : -1;
    if (level != peer->worker.level)
        peer->worker.placed = ++model->order;
    peer->worker.level = level;
}

/* The least loaded, and of these the one that has waited longest; -1: nobody has room. */
static int choose (const model_t *model, const service_t *service)
{
    int best = -1, best_level = INT_MAX;
    for (size_t i = 0; i < service->workers.count && !model->paused; i++) {
        int number = service->workers.at[i];
        const peer_t *peer = &model->peers[number];
        int level = has_room (model, peer) ? level_of (peer->worker.hand.count) : INT_MAX;
        if (level < best_level
            || (level != INT_MAX && level == best_level && peer->worker.placed < model->peers[best].worker.placed)) {
            best = number;
            best_level = level;
        }
    }
    return best;
}

/* ---- credit that follows the pace of a worker */

/* As many as it does in the time of limits.credit, by the average since the last look, which was that time ago, or a
   millisecond, or four hands; at most doubled at once. */
static void adapt (model_t *model, peer_t *peer)
{
    uint64_t span = model->limits.credit < 1000000 ? model->limits.credit : 1000000;
    int enough = peer->worker.busy * 1000 >= span || peer->worker.done >= 4 * (uint64_t) peer->worker.credit;
    if (!peer->worker.adapts || peer->failed || peer->worker.done == 0 || !enough)
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
        model->request_capacity = model->request_capacity ? model->request_capacity * 2 : 64;
        model->requests = (request_t *) must_have (
            realloc (model->requests, (size_t) model->request_capacity * sizeof *model->requests));
    }
    return model->request_count++;
}

static void detach (model_t *model, request_t *request)
{
    if (request->client < 0)
        return;
    if (--model->peers[request->client].outstanding == 0)
        model->counters.clients--;
    request->client = -1;
}

/* What was gathered of a reply is no longer kept. */
static void forget_parts (model_t *model, request_t *request)
{
    if (request->gathers)
        model->counters.bytes -= request->gathered.bytes;
    request->gathers = 0;
}

/* It is over, with one outcome. */
static void end_request (model_t *model, int number, output_t *answer, uint64_t *outcome)
{
    request_t *request = &model->requests[number];
    answer->id = request->id;
    answer->service = request->service;
    if (request->cancelled)
        model->counters.cancelled++;
    else if (request->client < 0 || tell (model, request->client, answer) != 0)
        model->counters.client_gone++;
    else
        ++*outcome;
    detach (model, request);
    forget_parts (model, request);
    model->counters.bytes -= request->body.bytes;
    request->used = 0;
    row_append (&model->unused, number);
}

static void end_with (model_t *model, int number, int status, uint64_t *outcome)
{
    output_t answer = output (CLIENT, ERROR, 0);
    answer.status = status;
    end_request (model, number, &answer, outcome);
}

/* The first that a client has queued for a service; -1: nothing. */
static int first_of (const model_t *model, const service_t *service, int client)
{
    for (size_t i = 0; i < service->queue.count; i++)
        if (model->requests[service->queue.at[i]].client == client)
            return service->queue.at[i];
    return -1;
}

/* One who had nothing queued has the last turn; one who got something back has the first. */
static void enqueue (model_t *model, int number, int at_head)
{
    service_t *service = &model->services[model->requests[number].service];
    int client = model->requests[number].client, had = first_of (model, service, client) >= 0;
    row_insert (&service->queue, at_head ? 0 : service->queue.count, number);
    model->counters.queued++;
    if (at_head)
        row_remove (&service->turns, client);
    if (at_head || !had)
        row_insert (&service->turns, at_head ? 0 : service->turns.count, client);
}

static void dequeue (model_t *model, int number)
{
    service_t *service = &model->services[model->requests[number].service];
    int client = model->requests[number].client;
    row_remove (&service->queue, number);
    model->counters.queued--;
    if (first_of (model, service, client) < 0)
        row_remove (&service->turns, client);
}

/* A client had its turn. */
static void to_the_end (row_t *turns, int client)
{
    size_t before = turns->count;
    row_remove (turns, client);
    if (turns->count < before)
        row_append (turns, client);
}

static void set_worker_timer (model_t *model, peer_t *peer);

static void hand_over (model_t *model, int number, int worker)
{
    peer_t *peer = &model->peers[worker];
    dequeue (model, number);
    to_the_end (&model->services[peer->worker.service].turns, model->requests[number].client);
    if (peer->worker.hand.count == 0)
        begin_work (model, peer);
    row_append (&peer->worker.hand, number);
    if (peer->worker.hand.count == 1 && model->services[peer->worker.service].limit != NEVER)
        set_worker_timer (model, peer);
    peer->worker.bytes += model->requests[number].body.bytes;
    place (model, peer);
    model->requests[number].worker = worker;
    model->counters.running++;
}

static void take_back (model_t *model, int number)
{
    peer_t *peer = &model->peers[model->requests[number].worker];
    row_remove (&peer->worker.hand, number);
    peer->worker.bytes -= model->requests[number].body.bytes;
    model->requests[number].worker = -1;
    model->counters.running--;
}

/* One that cannot be given stays first in the queue. */
static void assign (model_t *model, int number, int worker)
{
    output_t mine = output (WORKER, REQUEST, 0);
    mine.body = model->requests[number].body;
    hand_over (model, number, worker);
    if (tell (model, worker, &mine) == 0) {
        model->requests[number].attempts++;
        model->requests[number].token = mine.id;
        return;
    }
    take_back (model, number);
    enqueue (model, number, 1);
}

static void dispatch (model_t *model, int number)
{
    service_t *service = &model->services[number];
    int worker;
    while (service->queue.count && (worker = choose (model, service)) >= 0)
        assign (model, first_of (model, service, service->turns.at[0]), worker);
    settle (model, number);
}

/* Too many workers were lost over it: the host gets it. */
static void die (model_t *model, int number)
{
    output_t mine = output (CLIENT, DEAD_LETTER, 0);
    mine.service = model->requests[number].service;
    mine.body = model->requests[number].body;
    expect (model, &mine);
    end_with (model, number, LOST, &model->counters.dead);
}

/* Its worker is lost. */
static void give_back (model_t *model, int number)
{
    request_t *request = &model->requests[number];
    take_back (model, number);
    forget_parts (model, request);
    if (request->client < 0)
        end_with (model, number, CANCELLED, &model->counters.client_gone);
    else if (model->ending)
        end_with (model, number, CANCELLED, &model->counters.cancelled);
    else if (request->attempts >= model->limits.attempts)
        die (model, number);
    else {
        enqueue (model, number, 1);
        model->counters.requeued++;
    }
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
    row_t hand = peer->worker.hand;
    memset (&peer->worker, 0, sizeof peer->worker);
    hand.count = 0;
    peer->worker.hand = hand;
    peer->worker.service = service;
    peer->worker.credit = credit ? credit : 1;
    peer->worker.adapts = credit == 0 && model->limits.credit;
    set_beat (model, peer, ready->heartbeat_ms);
    peer->worker.level = -1;
    place (model, peer);
    peer->worker.told = peer->worker.heard = model->now;
    peer->worker.timer = NEVER;
    row_append (&model->services[service].workers, number);
    model->services[service].timer = NEVER;
    model->counters.workers++;
    set_worker_timer (model, peer);
}

/* What it held goes back, the oldest to the head. */
static void remove_worker (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    int service = peer->worker.service;
    peer->worker.service = -1;
    peer->asked = 0;
    peer->worker.timer = NEVER;
    row_remove (&model->services[service].workers, number);
    if (model->services[service].workers.count == 0)
        model->services[service].alone_since = model->now;
    model->counters.workers--;
    while (peer->worker.hand.count)
        give_back (model, peer->worker.hand.at[peer->worker.hand.count - 1]);
    dispatch (model, service);
}

static void lose_worker (model_t *model, int number)
{
    model->counters.workers_lost++;
    remove_worker (model, number);
}

/* ---- what clients say */

static void refuse (model_t *model, int client, uint64_t id, int status, uint64_t *counter)
{
    output_t mine = output (CLIENT, ERROR, id);
    mine.status = status;
    ++*counter;
    tell (model, client, &mine);
}

static int find_request (const model_t *model, int client, uint64_t id)
{
    for (int i = 0; i < model->request_count; i++)
        if (model->requests[i].used && model->requests[i].client == client && model->requests[i].id == id)
            return i;
    return -1;
}

/* Where it counts that a body is too large; NULL: it is not. */
static uint64_t *too_large (model_t *model, body_t body)
{
    if (body.frames > model->limits.frames)
        return &model->counters.refused_frames;
    return body.bytes > model->limits.message ? &model->counters.refused_large : NULL;
}

static int too_many_bytes (const model_t *model, body_t body)
{
    uint64_t most = model->limits.bytes, now = model->counters.bytes;
    return now >= most ? body.bytes > 0 : body.bytes > most - now;
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
    return too_many_bytes (model, body) ? &counters->refused_bytes : NULL;
}

/* A handler does it; what it answered is not for the model to say. */
static uint64_t *serve (model_t *model, int service, body_t body, output_t *answer)
{
    output_t mine = output (CLIENT, 0, 0);
    mine.served = 1;
    mine.service = service;
    mine.body = body;
    const output_t *theirs = expect (model, &mine);
    *answer = output (CLIENT, theirs ? theirs->type : REPLY, 0);
    answer->service = service;
    answer->body = theirs ? theirs->reply : body;
    answer->text = theirs ? theirs->text : 0;
    answer->status = answer->type == ERROR ? FAILED : 0;
    return answer->type == ERROR ? &model->counters.failed : &model->counters.replied;
}

static void serve_here (model_t *model, int client, const command_t *command)
{
    output_t answer;
    model->counters.accepted++;
    uint64_t *outcome = serve (model, command->service, command->body, &answer);
    answer.id = command->id;
    ++*(tell (model, client, &answer) == 0 ? outcome : &model->counters.client_gone);
}

static void take_request (model_t *model, int client, const command_t *command)
{
    int number = new_request (model);
    request_t *request = &model->requests[number];
    memset (request, 0, sizeof *request);
    request->used = 1;
    request->service = command->service;
    request->client = client;
    request->worker = -1;
    request->id = command->id;
    request->arrived = model->now;
    request->body = command->body;
    model->counters.accepted++;
    model->counters.bytes += command->body.bytes;
    if (model->peers[client].outstanding++ == 0)
        model->counters.clients++;
    enqueue (model, number, 0);
    dispatch (model, command->service);
}

static void accept_request (model_t *model, int client, const command_t *command)
{
    service_t *service = require_service (model, command->service);
    int nobody = service && choose (model, service) < 0;
    if (!service)
        refuse (model, client, command->id, QUEUE_FULL, &model->counters.refused_services);
    else if (nobody && service->queue.count >= (size_t) model->limits.queue)
        refuse (model, client, command->id, QUEUE_FULL, &model->counters.refused_queue);
    else if (nobody && !service->workers.count && service->queue.count >= (size_t) model->limits.no_worker_queue)
        refuse (model, client, command->id, NO_WORKER, &model->counters.refused_no_worker);
    else
        take_request (model, client, command);
}

static int has_handler (const model_t *model, int service)
{
    return model->services[service].known ? model->services[service].handler : service >= MMI_FROM && model->mmi;
}

static void on_request (model_t *model, int client, const command_t *command)
{
    uint64_t *counter;
    if (command->again && find_request (model, client, command->id) >= 0)
        model->counters.joined++;
    else if ((counter = too_large (model, command->body)) != NULL)
        refuse (model, client, command->id, REFUSED, counter);
    else if ((counter = is_full (model, &model->peers[client], command->body)) != NULL)
        refuse (model, client, command->id, QUEUE_FULL, counter);
    else if (has_handler (model, command->service))
        serve_here (model, client, command);
    else
        accept_request (model, client, command);
}

/* Nobody wants it: a queued one is dropped, a running one finished for nobody. */
static void abandon (model_t *model, int number)
{
    int service = model->requests[number].service, queued = model->requests[number].worker < 0;
    if (queued)
        dequeue (model, number);
    detach (model, &model->requests[number]);
    if (!queued)
        return;
    end_with (model, number, CANCELLED, &model->counters.client_gone);
    settle (model, service);
}

static void on_cancel (model_t *model, int client, const command_t *command)
{
    int number = find_request (model, client, command->id);
    if (number < 0)
        return;
    model->requests[number].cancelled = 1;
    abandon (model, number);
}

/* ---- what workers say */

static void refuse_worker (model_t *model, int peer, uint64_t *counter)
{
    ++*counter;
    send_away (model, peer, REFUSED);
}

static int find_life (const model_t *model, uint64_t life)
{
    for (int i = 0; i < model->peer_count; i++)
        if (model->peers[i].life == life)
            return i;
    return -1;
}

/* He comes from another address than before: what he was there is over. */
static void succeed (model_t *model, int number)
{
    peer_t *peer = &model->peers[number];
    int former = peer->said_life && !peer->life ? find_life (model, peer->said_life) : -1;
    if (former < 0)
        return;
    if (is_worker (&model->peers[former]))
        remove_worker (model, former);
    model->peers[former].life = 0;
    peer->life = peer->said_life;
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
    else if (model->counters.workers >= (uint64_t) model->limits.workers)
        refuse_worker (model, peer, &model->counters.refused_workers);
    else if (!require_service (model, command->service))
        refuse_worker (model, peer, &model->counters.refused_services);
    else if (model->services[command->service].handler)
        refuse_worker (model, peer, &model->counters.refused_name);
    else {
        add_worker (model, peer, command->service, command);
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

static void done (model_t *model, int number, output_t *answer, uint64_t *outcome)
{
    int worker = model->requests[number].worker, service = model->requests[number].service;
    take_back (model, number);
    count_done (model, &model->peers[worker]);
    place (model, &model->peers[worker]);
    end_request (model, number, answer, outcome);
    dispatch (model, service);
}

static void failed (model_t *model, int number, uint64_t text)
{
    output_t answer = output (CLIENT, ERROR, 0);
    answer.status = FAILED;
    answer.text = text;
    done (model, number, &answer, &model->counters.failed);
}

static void refused (model_t *model, int number, uint64_t *counter)
{
    ++*counter;
    failed (model, number, TEXT_OF_BROKER);
}

/* Clients that have no partial replies get all parts as one. -1: it is refused. */
static int gather (model_t *model, int number, body_t part)
{
    request_t *request = &model->requests[number];
    if (too_many_bytes (model, part)) {
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

static void on_partial (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number < 0 || model->requests[number].client < 0)
        return;
    request_t *request = &model->requests[number];
    output_t answer = output (CLIENT, PARTIAL, request->id);
    model->counters.partials++;
    answer.service = request->service;
    answer.body = command->body;
    uint64_t *counter = too_large (model, command->body);
    if (counter)
        refused (model, number, counter);
    else if (has_partials (model->peers[request->client].dialect[CLIENT]))
        tell (model, request->client, &answer);
    else
        gather (model, number, command->body);
}

static void on_reply (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number < 0)
        return;
    request_t *request = &model->requests[number];
    output_t answer = output (CLIENT, REPLY, 0);
    answer.body = command->body;
    if (request->gathers && request->gathered.bytes && request->client >= 0) {
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

static void on_error (model_t *model, int peer, const command_t *command)
{
    int number = held (model, peer, command->id);
    if (number >= 0)
        failed (model, number, command->text);
}

static void on_heartbeat (model_t *model, int peer)
{
    if (is_worker (&model->peers[peer]))
        return;
    model->counters.bad_state++;
    send_away (model, peer, 0);
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

/* ---- who is lost */

static void lose_client (model_t *model, int client)
{
    for (int i = 0; i < model->request_count; i++)
        if (model->requests[i].used && model->requests[i].client == client)
            abandon (model, i);
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
    int silent = has_heartbeats (peer->dialect[WORKER]) && model->now >= after (peer->worker.heard, peer->worker.expiry);
    if (peer->worker.hand.count ? model->now >= after (peer->worker.since, limit) : silent) {
        lose_worker (model, number);
        send_away (model, number, 0);
    } else if (!due || tell (model, number, &beat) == 0)
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
        dequeue (model, oldest);
        end_with (model, oldest, NO_WORKER, &model->counters.expired);
    }
    settle (model, number);
}

uint64_t model_next (const model_t *model)
{
    uint64_t next = NEVER;
    for (int i = 0; i < SERVICES_MOST; i++)
        if (model->services[i].known && model->services[i].timer < next)
            next = model->services[i].timer;
    for (int i = 0; i < model->peer_count; i++) {
        const peer_t *peer = &model->peers[i];
        if (peer->timer < next)
            next = peer->timer;
        if (is_worker (peer) && peer->worker.timer < next)
            next = peer->worker.timer;
    }
    return next;
}

void model_is_due (model_t *model, int kind, uint32_t whose)
{
    int number = kind == DUE_SERVICE ? (int) whose : model_find (model, whose);
    if (number >= 0)
        row_append (&model->due, DUE_KINDS * number + kind);
}

/* When something is to happen: the time of a worker, of a service, of a peer that may come back. */
static uint64_t timer_of (const model_t *model, int due)
{
    int number = due / DUE_KINDS;
    switch (due % DUE_KINDS) {
        case DUE_WORKER: return is_worker (&model->peers[number]) ? model->peers[number].worker.timer : NEVER;
        case DUE_SERVICE: return model->services[number].known ? model->services[number].timer : NEVER;
        default: return model->peers[number].timer;
    }
}

/* Of all that is due at the same time, what the engine took first; -1: it took none of it. */
static int next_due (model_t *model, uint64_t at)
{
    for (size_t i = 0; i < model->due.count; i++)
        if (timer_of (model, model->due.at[i]) == at) {
            int due = model->due.at[i];
            row_remove (&model->due, due);
            return due;
        }
    return -1;
}

static void peer_due (model_t *model, int number)
{
    model->peers[number].timer = NEVER;
    model->peers[number].given_up = 1;
    fail (model, number);
}

static void do_due (model_t *model, int due)
{
    switch (due % DUE_KINDS) {
        case DUE_WORKER: worker_due (model, due / DUE_KINDS); break;
        case DUE_SERVICE: service_due (model, due / DUE_KINDS); break;
        default: peer_due (model, due / DUE_KINDS); break;
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
        int due = next_due (model, at);
        if (due < 0 && was_forgotten (model, at))
            continue;
        if (due < 0) {
            snprintf (model->verdict, sizeof model->verdict, "something was due at %llu, and the engine did nothing",
                      (unsigned long long) at);
            break;
        }
        do_due (model, due);
    }
    model->due.count = 0;
    model_bury (model);
}

/* ---- the host */

static void serve_queued (model_t *model, int number)
{
    service_t *service = &model->services[number];
    while (service->queue.count) {
        output_t answer;
        int first = service->queue.at[0];
        dequeue (model, first);
        uint64_t *outcome = serve (model, number, model->requests[first].body, &answer);
        end_request (model, first, &answer, outcome);
    }
}

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
    if (handler)
        serve_queued (model, number);
    settle (model, number);
    model_bury (model);
    return 0;
}

void model_pause (model_t *model)
{
    model->paused = 1;
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

/* Services in the order in which they were made. */
void model_go_on (model_t *model)
{
    int number;
    model->paused = 0;
    for (uint64_t made = 0; (number = made_after (model, made)) >= 0;) {
        made = model->services[number].made;
        dispatch (model, number);
    }
    model_bury (model);
}

static void finish_service (model_t *model, int number)
{
    service_t *service = &model->services[number];
    service->handler = 0;
    service->limit = NEVER;
    while (service->workers.count) {
        send_away (model, service->workers.at[0], 0);
        remove_worker (model, service->workers.at[0]);
    }
    while (service->queue.count) {
        int first = service->queue.at[0];
        dequeue (model, first);
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

static int new_peer (model_t *model, uint32_t address)
{
    peer_t *peer = &model->peers[model->peer_count];
    memset (peer, 0, sizeof *peer);
    peer->address = address;
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
    drop_packed (model, &model->peers[number]);
    lose_client (model, number);
    if (is_worker (&model->peers[number]))
        lose_worker (model, number);
    model->peers[number].life = 0;
    model_bury (model);
}

/* What still comes from the address before is his, too, and he does not move back for it. */
int model_peer (model_t *model, uint32_t address, uint64_t life)
{
    int number = model_find (model, address);
    if (number < 0 && life && (number = find_life (model, life)) >= 0 && is_worker (&model->peers[number]))
        number = -1; /* a worker is where it registered */
    else if (number >= 0 && model->peers[number].address != address && model->peers[number].former != address)
        move_peer (model, number, address);
    if (number < 0)
        number = new_peer (model, address);
    peer_t *peer = &model->peers[number];
    peer->said_life = life;
    if (life && peer->life && peer->life != life)
        replace_peer (model, number);
    if (life && !peer->life && find_life (model, life) < 0)
        peer->life = life;
    peer->timer = NEVER;
    peer->given_up = 0;
    return number;
}

int model_connection (const model_t *model, int peer)
{
    return model->peers[peer].connection;
}

void model_set_connection (model_t *model, int peer, int connection)
{
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

model_t *model_new (const model_limits_t *limits, uint32_t addresses, int mmi, uint64_t now)
{
    model_t *model = (model_t *) must_have (calloc (1, sizeof *model));
    model->limits = *limits;
    model->now = now;
    model->mmi = mmi;
    model->addresses = addresses;
    model->peers = (peer_t *) must_have (malloc (addresses * sizeof *model->peers));
    model->peer_at = (int *) must_have (malloc (addresses * sizeof *model->peer_at));
    for (uint32_t i = 0; i < addresses; i++)
        model->peer_at[i] = -1;
    for (int i = 0; i < SERVICES_MOST; i++)
        model->services[i].timer = NEVER;
    return model;
}

void model_free (model_t *model)
{
    for (int i = 0; i < model->peer_count; i++)
        free (model->peers[i].worker.hand.at);
    for (int i = 0; i < SERVICES_MOST; i++) {
        free (model->services[i].queue.at);
        free (model->services[i].turns.at);
        free (model->services[i].workers.at);
    }
    free (model->unused.at);
    free (model->failed.at);
    free (model->due.at);
    free (model->requests);
    free (model->peer_at);
    free (model->peers);
    free (model);
}
