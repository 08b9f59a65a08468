/*  The model of the broker's engine: what zqbroker.h promises, in plain arrays that are searched from end to end. It
    shares nothing with the engine, not even names of dialects, so that a mistake is not made twice.

    Each thing that happens is told to the engine first. What it said to its peers meanwhile is written down as a list
    of outputs. Then the same is told to the model, which expects each of these, in this order, and nothing else. Only
    what nobody promises is taken from the engine: the tokens, what a handler answered, whether a peer could be
    reached, which of those that are due at the same microsecond came first, in which order those are buried that were
    lost with a connection, and whether it still knows a user of whom there are neither peers nor requests. */

#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stddef.h>
#include <stdint.h>

enum { ZQB1, MDP01, MDP02, MDP01_WORDS, LRU, PPP, PPP_WORDS, DIALECTS };
enum { CLIENT, WORKER };
enum {
    READY = 1, REQUEST, PARTIAL, REPLY, ERROR, HEARTBEAT, DISCONNECT, CANCEL, PROGRESS, MORE, DRAIN, COMMANDS_END,
    DEAD_LETTER = COMMANDS_END, /* what is no command: the host is told something, or asked */
    FILTER, OUTCOME, CHOICE, SCALE, IDENTIFY
};
extern const char *const command_names[];
enum { NO_WORKER = 1, QUEUE_FULL, EXPIRED, REFUSED, LOST, CANCELLED, FAILED, MALFORMED, DENIED, GONE };
enum { BY_LOAD, MRU, LEAST, ROUND_ROBIN, CUSTOM }; /* policies */

#define NEVER UINT64_MAX

/* What tells bodies apart: a fold over the frames, which can be computed of two joined bodies, too. */
typedef struct body_t {
    uint64_t fold, frames, bytes; /* of bytes 4 a frame more than there are */
} body_t;

body_t body_join (body_t first, body_t second);
/* What the host sees of a worker, as a body: number, load, credit, served, failed, slow, idle; or of a service: how
   many are queued, how long the first has waited, how many workers are idle, and busy. */
body_t body_of_worker (const uint64_t values[7]);
body_t body_of_service (const uint64_t values[4]);

/* Services from these on have names that end with an asterisk, if there are patterns, and start with "mmi.". */
enum { SERVICES_MOST = 32, PATTERNS_FROM = 16, MMI_FROM = 24 };

/* Who a peer may be: somebody without a name, one of the users, or somebody in the broker's own process. */
enum { ANONYMOUS, USERS_FROM, IN_PROCESS = 7, PERSONS };
extern const char *const user_names[PERSONS]; /* NULL: he has none */

/* Rules: who (one user, or all whose names begin so; who has no name; who is in the process; a group) may do what to
   which services (one, or all whose names begin so). */
enum { MAY_CALL = 1, MAY_SERVE = 2, MAY_MANAGE = 4 };
enum { A_USER, NO_USER, NEIGHBOURS, A_GROUP };
enum { RULES_MOST = 20, GROUPS_MOST = 3, MEMBERS_MOST = 4 };

typedef struct names_t {
    const char *text; /* stays where it is */
    size_t size;
    int star;
} names_t;

typedef struct who_t {
    int kind, group;
    names_t users;
} who_t;

typedef struct rule_t {
    int allow, actions;
    who_t who;
    names_t services;
} rule_t;

typedef struct rules_t {
    rule_t rules[RULES_MOST];
    who_t members[GROUPS_MOST][MEMBERS_MOST];
    int count, group_count, member_count[GROUPS_MOST];
} rules_t;

/* Where the other end of a connection is. */
enum { UNKNOWN, HERE, THERE, PLACES };
extern const char *const place_names[PLACES];

/* Who would not be let in any more, and so may nothing. And what the host says before the rules do: 1, 0, or -1 that it
   is for them to say; by who it is and where, what he wants to do (in the order of the above), and the service. */
typedef struct host_t {
    unsigned char unwelcome[PERSONS][PLACES];
    signed char says[PERSONS][PLACES][3][SERVICES_MOST];
} host_t;

/* What a request asks for; 0 is nothing. Keys are numbers: of affinity that of the slot behind it. */
typedef struct asked_t {
    int priority;
    uint32_t deadline_ms, delay_ms, attempts, backoff_ms, backoff_max_ms;
    int unique, affinity, one_way, fail_fast, survey;
} asked_t;

/* How far something is. */
typedef struct progress_t {
    int has;
    uint64_t done, total;
} progress_t;

typedef struct command_t {
    int type, service;
    int again, unbegun, refuses;
    uint64_t id;
    uint32_t credit, heartbeat_ms; /* UINT32_MAX: it does not say */
    uint32_t code;
    uint64_t text; /* eight bytes of it, which tell it from others */
    asked_t asked;
    progress_t progress;
    body_t body;
} command_t;

enum { TEXT_OF_BROKER = 1 }; /* any text that is not a worker's */
enum { SENT, UNREACHABLE, NOT_READ, NO_MEMORY };

/* Something that the engine said to a peer or, as a dead letter, to its host, or had a handler do. */
typedef struct output_t {
    int served; /* by a handler: then type, text and reply are what it answered */
    uint32_t address;
    int side, type, status, service;
    uint64_t id, text;
    uint32_t code, credit, deadline_ms;
    int window;
    progress_t progress;
    body_t body, reply;
    asked_t seen, asked; /* by the filter, and what it made of it */
    int user;   /* whose request it is, as a worker, a handler or the host is told; with IDENTIFY, who somebody is */
    int result; /* SENT ..., or whether the filter refuses, or the user is known who somebody is */
    int packed; /* it waits to be sent */
} output_t;

/* Limits, as the engine has them: nothing is 0, UINT64_MAX and INT_MAX are none. */
typedef struct model_limits_t {
    uint64_t heartbeat, expiry, no_worker, credit;
    int attempts, services, workers, clients, requests, queue, no_worker_queue, outstanding;
    uint64_t frames, message, bytes;
    uint64_t ageing, rest, slow;
    int rest_failures, reports, filters; /* these two: whether the host wants to know */
    uint64_t hand; /* bytes of bodies behind which nothing waits */
    uint64_t user_outstanding; /* 0 none, as those below, which are a second's */
    uint64_t user_requests, user_bytes, client_requests, client_bytes;
    int identifies, welcomes; /* whether it is told who somebody is, and whether he would be let in */
} model_limits_t;

#define COUNTERS(X)                                                                                                \
    X (accepted) X (replied) X (failed) X (expired) X (cancelled) X (dead) X (client_gone) X (queued) X (running)  \
    X (bytes) X (services) X (workers) X (clients) X (partials) X (requeued) X (joined) X (workers_lost)           \
    X (delayed) X (following) X (progress) X (given_back) X (rested) X (refused_filter)                            \
    X (workers_left) X (refused_requests) X (refused_queue) X (refused_no_worker) X (refused_outstanding)          \
    X (refused_clients) X (refused_bytes) X (refused_services) X (refused_workers) X (refused_name)                \
    X (refused_large) X (refused_frames) X (bad_state) X (stale) X (unsendable)                                    \
    X (denied_call) X (denied_serve) X (refused_user) X (refused_rate) X (refused_client_rate)

typedef struct counters_t {
#define X(name) uint64_t name;
    COUNTERS (X)
#undef X
} counters_t;

typedef struct model_t model_t;

/* The names of services stay where they are. */
model_t *model_new (const model_limits_t *limits, uint32_t addresses, int mmi, uint64_t now, char (*names)[256],
                    const uint8_t *name_sizes);
void model_free (model_t *model);

/* From now on these outputs are expected; whether that came true: NULL, or what was different. */
void model_expect (model_t *model, const output_t *outputs, size_t count, uint64_t now);
const char *model_verdict (model_t *model);
const counters_t *model_counters (const model_t *model);
uint64_t model_next (const model_t *model);

/* Who sends from an address; the number is for what follows. person: who he is, if that is not known yet. That is asked
   again over another connection. Its connection: -1 not known; and where it leads. Its dialect on a side. */
int model_peer (model_t *model, uint32_t address, uint64_t life, int person);
void model_recognise (model_t *model, int peer, int person);
int model_connection (const model_t *model, int peer);
void model_set_connection (model_t *model, int peer, int connection, int place);
void model_set_dialect (model_t *model, int peer, int dialect, int side, int type);
int model_find (const model_t *model, uint32_t address); /* -1: nobody */
int model_dialect (const model_t *model, int peer, int side);
int model_has_worker (const model_t *model, int peer);

void model_receive (model_t *model, int peer, const command_t *command);
void model_malformed (model_t *model, int peer, int side);
void model_missed (model_t *model, int peer); /* there was no memory for what it said */
void model_lost (model_t *model, int peer);
void model_flushed (model_t *model, int peer); /* what waited for it was sent */
void model_disconnected (model_t *model, int connection);
/* In which order those that failed are buried, which nobody promises. Of some that it does not name nothing can be seen
   any more. */
void model_order_failed (model_t *model, const uint32_t *addresses, size_t count);
void model_bury (model_t *model);
/* In the next tick, in the engine's order: a worker's or another peer's address, or a service; or a request, of the
   client at this address (UINT32_MAX: nobody's), which has no body if it follows another. */
enum { DUE_WORKER, DUE_SERVICE, DUE_PEER, DUE_REQUEST, DUE_SCALE };
void model_is_due (model_t *model, int kind, uint32_t whose);
void model_request_is_due (model_t *model, uint32_t whose, uint64_t id, uint64_t arrived, int follows, body_t body);
void model_tick (model_t *model);
int model_handle (model_t *model, int service, int handler); /* 0, or ENOSPC or EADDRINUSE */
int model_limit (model_t *model, int service, uint64_t limit); /* 0 or ENOSPC */
int model_policy (model_t *model, int service, int policy); /* 0 or ENOSPC */
/* How many workers a service should have, between these; 0 ends that. */
int model_scale (model_t *model, int service, uint32_t least, uint32_t most); /* 0 or ENOSPC */
int model_drain (model_t *model, int service, uint64_t number); /* 0 or ENOENT */
/* Other rules; NULL: none, and all is allowed. Then, or without that: what the host says now; and all is looked at. */
void model_rules (model_t *model, const rules_t *rules);
void model_access (model_t *model, const host_t *host);
void model_pause (model_t *model); /* nobody gets a request until model_go_on */
void model_go_on (model_t *model);
void model_finish (model_t *model);

#endif
