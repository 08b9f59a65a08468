/*  Fuzzes a whole broker: peers of all dialects at all four kinds of ports say anything, move, are reborn and
    vanish; they are users, and become others; time passes, sends and memory fail, a handler comes and goes; the host
    filters requests, chooses workers, has them drained, watches services, and says who may do what. Shows that after
    each pass of its loop the counters add up, the host has heard of each outcome, and everything that the engine has
    hangs together (tests/sim/walk.h); that what it sends is well-formed; and that at the end nothing is left.

        make fuzz FUZZ=fuzz_broker FUZZ_SECONDS=60 */

#include "steps.h"
#include "world.h"

#include "tests/sim/walk.h"

enum { ACTORS = 14 };
enum { SENDS, UNREACHABLE, DOES_NOT_READ };

/* Somebody at the other end: 0 to 5 at the Majordomo port, 6 to 8 at the frontend, 9 to 11 at the backend, 12 and
   13 at the port for clients. */
typedef struct actor_t {
    unsigned address; /* counts: another one each time that it moves */
    int connection;
    int state;
    unsigned user;
    uint64_t life;
    heard_t heard;
} actor_t;

static actor_t actors[ACTORS];
static heard_t all_heard;
static zqb_broker_t *broker;
static uint64_t outcomes; /* that the host heard of */

static int port_of (size_t actor)
{
    return actor < 6 ? 0 : actor < 9 ? 1 : actor < 12 ? 2 : 3;
}

/* ---- what the broker says */

/* The actor that has this address now, or NULL: it has moved. */
static actor_t *actor_of (zmq_msg_t *address)
{
    const uint8_t *at = (const uint8_t *) zmq_msg_data (address);
    int known = zmq_msg_size (address) == 3 && at[1] < ACTORS;
    CHECK (known, "a message goes to an address that was heard of");
    return known && at[2] == (actors[at[1]].address & 255) ? &actors[at[1]] : NULL;
}

static int may_send (UNUSED socket_t *socket, zmq_msg_t *first)
{
    const actor_t *actor = actor_of (first);
    if (!actor || actor->state == UNREACHABLE)
        return EHOSTUNREACH;
    return actor->state == DOES_NOT_READ ? EAGAIN : 0;
}

static const char *const users[] = {NULL, "ann", "anna", "bob"};

/* What is told of who asks for something. */
static int is_a_user (const zqb__rare_t *rare)
{
    int found = 0;
    for (size_t i = 1; i < COUNT (users); i++)
        found |= strlen (users[i]) == rare->user_size && memcmp (users[i], rare->user, rare->user_size) == 0;
    return found;
}

/* A request that goes to whoever is just being heard is for him, and not for the one who had his name before. */
static void see_user (const actor_t *actor)
{
    const zqb__peer_t *heard = broker->engine.heard;
    const uint8_t address[3] = {'@', (uint8_t) (actor - actors), (uint8_t) actor->address};
    if (heard && heard->address_size == 7 && memcmp (heard->address + 4, address, sizeof address) == 0)
        CHECK (strcmp (zqb__user_name (heard->user), world.user ? world.user : "") == 0,
               "nobody is asked what was for another user");
}

static void note_token (actor_t *actor, uint64_t token)
{
    see_user (actor);
    heard_add (&actor->heard, token);
    heard_add (&all_heard, token);
}

static void see_command (const zqb__command_t *command, void *arg)
{
    if (command->type == ZQB__REQUEST)
        note_token ((actor_t *) arg, command->id);
    CHECK (!command->rare || !command->rare->user_size || (command->type == ZQB__REQUEST && is_a_user (command->rare)),
           "a worker is told of a user who asks, and nobody else is");
    CHECK (command->type > 0 && command->type < ZQB__COMMAND_END, "the broker says what is known");
    CHECK (command->type != ZQB__ERROR || command->status, "an error has a status");
    CHECK (command->type != ZQB__PROGRESS || (command->rare && command->rare->has_progress), "progress says how far it is");
    CHECK (command->type != ZQB__REQUEST || !(command->flags & ~ZQB__WINDOW), "a worker is asked with no flag but one");
}

/* MDP workers get the token as a client's address. */
static void see_mdp_token (actor_t *actor, frames_t *frames)
{
    for (size_t i = 1; i + 2 < frames->count; i++)
        if (zqb__frame_is (&frames->at[i], "MDPW01") || zqb__frame_is (&frames->at[i], "MDPW02")) {
            if (zmq_msg_size (&frames->at[i + 2]) == 8 && i + 3 < frames->count)
                note_token (actor, zqb__get_64 ((const uint8_t *) zmq_msg_data (&frames->at[i + 2])));
            return;
        }
}

/* [address][""]? [token][""][body]... or one frame */
static void see_backend (actor_t *actor, frames_t *frames)
{
    size_t at = frames->count > 1 && zmq_msg_size (&frames->at[1]) == 0 ? 2 : 1;
    CHECK (frames->count > at, "a worker of the backend gets something");
    if (frames->count == at + 1)
        return;
    CHECK (frames->count >= at + 3 && zmq_msg_size (&frames->at[at]) == 8 && zmq_msg_size (&frames->at[at + 1]) == 0,
           "a request to a worker of the backend has a token, an empty frame and a body");
    note_token (actor, zqb__get_64 ((const uint8_t *) zmq_msg_data (&frames->at[at])));
}

static void heard_from_broker (UNUSED socket_t *socket, frames_t *frames)
{
    actor_t *actor = actor_of (&frames->at[0]);
    frames_t rest = {frames->at + 1, frames->count - 1, 0};
    if (!actor)
        return; /* only where nothing is checked */
    int port = port_of ((size_t) (actor - actors));
    CHECK (frames->count > 1, "there is something behind the address");
    if (port == 0 || port == 3) {
        world_listen (ZQB__FROM_BROKER, &rest, see_command, actor);
        see_mdp_token (actor, frames);
    } else if (port == 2)
        see_backend (actor, frames);
}

/* ---- the broker */

static const int few[] = {0, 1, 2, 3};

/* Limits that are soon reached, chosen by the first byte of a script. */
static void set_limits (zqb_broker_options_t *options, unsigned chosen)
{
    memset (options, 0, sizeof *options);
    options->max_services = few[chosen & 3];
    options->max_workers = few[chosen >> 2 & 3];
    options->max_clients = few[chosen >> 4 & 3];
    options->max_outstanding = chosen & 64 ? 2 : 0;
    options->max_queue = chosen & 128 ? 2 : 0;
    options->attempts = few[chosen >> 8 & 3];
    options->credit_us = chosen & 1024 ? -1 : 0;
    options->max_frames = chosen & 2048 ? 3 : 0;
    options->max_message = chosen & 4096 ? 300 : 0;
    options->max_bytes = chosen & 8192 ? 1000 : 0;
    options->max_requests = chosen & 16384 ? 3 : 0;
    options->heartbeat_ms = chosen & 32768 ? -1 : 1000;
    options->no_worker_ms = chosen & 256 ? 2000 : 0;
}

static void nothing_logged (int level, const char *text, void *arg)
{
    CHECK (level >= ZQB_LOG_ERROR && level <= ZQB_LOG_DEBUG && strlen (text) < 1280 && arg == NULL, "lines are logged");
}

static void take_letter (zqb_request_t *request, UNUSED void *arg)
{
    zqb_msg_t *body = zqb_request_body (request);
    CHECK (zqb_request_partial (request, body) == -1 && errno == ENOTCONN, "a dead letter cannot be answered");
    CHECK (zqb_broker_time_limit (broker, "echo", 1) == -1 && errno == EBUSY, "its reader cannot change the broker");
    if (zqb_msg_count (body) & 1)
        zqb_msg_close (body);
}

/* By the third byte. */
static void set_rules (zqb_broker_options_t *options, unsigned chosen)
{
    options->log = chosen & 1 ? nothing_logged : NULL;
    options->log_level = ZQB_LOG_DEBUG;
    options->when_full = chosen & 2 ? ZQB_FULL_WAIT : ZQB_FULL_DROP;
    options->dead_letter = chosen & 4 ? take_letter : NULL;
    options->max_no_worker = chosen & 8 ? 1 : 0;
    options->max_unsent = chosen & 16 ? 1 : 0;
}

static void check_busy (void)
{
    CHECK (zqb_broker_drain (broker, "echo", 0) == -1 && errno == EBUSY, "who is called by the broker cannot change it");
}

/* Refuses some, by their bodies, and changes what others ask for. */
static int filter (zqb_request_t *request, zqb_request_options_t *options, zqb_msg_t *refusal, UNUSED void *arg)
{
    zqb_msg_t *body = zqb_request_body (request);
    size_t size = zqb_msg_count (body) ? zqb_msg_size (body, 0) : 0, name;
    check_busy ();
    CHECK (zqb_request_service (request, &name)[name] == '\0' && name > 0, "a name ends");
    CHECK (options->priority >= ZQB_PRIORITY_LOWEST && options->priority <= ZQB_PRIORITY_HIGHEST, "a priority is in its range");
    CHECK (!options->unique || (strlen (options->unique) <= 255 && options->unique != options->affinity), "keys are apart");
    if (size & 2)
        zqb_msg_add_str (refusal, "no");
    options->priority = (int) (size % 11) - 5; /* or beyond */
    options->deadline_ms = size & 4 ? (int) size * 10 : options->deadline_ms;
    options->delay_ms = size & 8 ? 5 : options->delay_ms;
    options->fail_fast ^= size & 16 ? 1 : 0;
    options->attempts = size & 32 ? -1 : options->attempts;
    return size % 3 == 1;
}

static void hear_outcome (const zqb_outcome_t *outcome, UNUSED void *arg)
{
    static const int errors[] = {0, ZQB_EFAILED, ZQB_EEXPIRED, ZQB_ENOWORKER, ZQB_ECANCELLED, ZQB_ELOST, ZQB_EREFUSED,
                                 ZQB_EQUEUEFULL, EHOSTUNREACH};
    size_t i = 0;
    while (i < COUNT (errors) && errors[i] != outcome->error)
        i++;
    check_busy ();
    CHECK (i < COUNT (errors), "an outcome is one of those");
    CHECK (outcome->service_size > 0 && outcome->service_size <= 255 && outcome->service[outcome->service_size] == '\0',
           "an outcome has a service");
    CHECK (outcome->attempts >= 0 && outcome->took_us >= 0, "an outcome has attempts and a time");
    outcomes++;
}

/* Who may do what, before the rules say it. */
static int may (const zqb_access_t *access, UNUSED void *arg)
{
    check_busy ();
    CHECK (access->action == ZQB_MAY_CALL || access->action == ZQB_MAY_SERVE || access->action == ZQB_MAY_MANAGE,
           "it is asked for something");
    CHECK (access->service_size > 0 && access->service[access->service_size] == '\0', "it is asked for a service");
    return (int) (strlen (access->user) + access->service_size) % 3 - 1;
}

/* By the fifth byte; the fourth is about memory. */
static void set_callbacks (zqb_broker_options_t *options, unsigned chosen)
{
    options->filter = chosen & 1 ? filter : NULL;
    options->outcome = chosen & 2 ? hear_outcome : NULL;
    options->ageing_ms = chosen & 4 ? 10 : 0;
    options->rest_failures = chosen & 8 ? 1 + (int) (chosen >> 6) : 0;
    options->rest_ms = chosen & 16 ? 50 : 0;
    options->slow_ms = chosen & 32 ? 20 : 0;
}

/* By the sixth byte. */
static void set_shares (zqb_broker_options_t *options, unsigned chosen)
{
    options->max_user_outstanding = chosen & 1 ? 2 : 0;
    options->max_user_requests = chosen & 2 ? 3 : 0;
    options->max_user_bytes = chosen & 4 ? 20 : 0;
    options->max_client_requests = chosen & 8 ? 2 : 0;
    options->max_client_bytes = chosen & 16 ? 10 : 0;
    options->access = chosen & 32 ? may : NULL;
}

static int begin (script_t *script)
{
    zqb_broker_options_t options;
    set_limits (&options, script_number (script));
    set_rules (&options, script_byte (script));
    script_byte (script);
    set_callbacks (&options, script_byte (script));
    set_shares (&options, script_byte (script));
    outcomes = 0;
    memset (&all_heard, 0, sizeof all_heard);
    memset (actors, 0, sizeof actors);
    for (size_t i = 0; i < ACTORS; i++) {
        actors[i].life = 0x100 * (i + 1);
        actors[i].connection = (int) i;
    }
    options.zap_domain = "fuzz"; /* user ids count */
    broker = zqb_broker_new (world.dice ? NULL : "a context", &options);
    return broker && zqb_broker_bind_lru (broker, "tcp://f", "tcp://b", "lru") == 0
           && zqb_broker_bind_clients (broker, "tcp://c") == 0;
}

/* Parts, a failure, or the same again. */
static int handler (zqb_request_t *request, zqb_msg_t *reply, UNUSED void *arg)
{
    zqb_msg_t part, *body = zqb_request_body (request);
    size_t size = zqb_msg_count (body) ? zqb_msg_size (body, 0) : 0;
    zqb_msg_init (&part);
    if (size & 1)
        zqb_msg_copy (&part, body);
    if (size & 1 && zqb_request_partial (request, &part) != 0)
        zqb_msg_close (&part);
    CHECK (zqb_request_reply (request, reply) == -1, "a handler cannot reply by itself");
    zqb_msg_move (reply, body);
    return size & 2 ? -1 : 0;
}

static void check (void)
{
    const zqb_stats_t *stats = &broker->engine.stats;
    uint64_t ended = stats->replied + stats->failed + stats->expired + stats->cancelled + stats->dead + stats->client_gone;
    world.looks = 0;
    CHECK (!broker->options.outcome || (outcomes >= ended && outcomes <= ended + stats->running),
           "the host hears of each outcome, and of what runs for nobody before that has ended");
    CHECK (stats->delayed + stats->following <= stats->queued, "what is delayed or follows is queued");
    CHECK (stats->accepted
               == ended + stats->queued + stats->running,
           "accepted = replied + failed + expired + cancelled + dead + client_gone + queued + running");
    CHECK (broker->unsent->bytes == 0, "what was sent or dropped does not wait");
    if (!zqb__list_empty (&broker->unreachable))
        return; /* they are retired, and not buried yet */
    const char *wrong = walk_engine (&broker->engine, world.failed == 0);
    CHECK (!wrong, wrong);
}

static void pass (void)
{
    CHECK (zqb__broker_pass (broker, ZMQ_DONTWAIT) >= 0 || world.failed, "a pass ends only with the context");
    check ();
}

/* ---- steps */

static void say (script_t *step, size_t number)
{
    actor_t *actor = &actors[number];
    const speaker_t speaker = {actor->life, &actor->heard, &all_heard};
    frames_t frames = {NULL, 0, 0};
    const uint8_t address[3] = {'@', (uint8_t) number, (uint8_t) actor->address};
    world.speaks = users[actor->user];
    frames_add (&frames, address, sizeof address);
    script_frames (step, &frames, &speaker);
    world_deliver ((socket_t *) broker->ports[port_of (number)]->socket, &frames, actor->connection);
    world.speaks = NULL;
}

/* Its connection is lost; it may come back over another. */
static void lose_connection (size_t number, unsigned how)
{
    actor_t *actor = &actors[number];
    socket_t *socket = (socket_t *) broker->ports[port_of (number)]->socket;
    world_tell (socket, ZMQ_EVENT_DISCONNECTED, actor->connection);
    if (how & 1)
        actor->state = UNREACHABLE;
    if (how & 2)
        actor->address++;
    if (how & 4)
        actor->life++;
    if (how & 8)
        actor->connection = (int) (how >> 4);
}

static void fail_memory (script_t *step)
{
    world.memory_holds = script_byte (step);
    world.memory_fails = script_byte (step) % 16 + 1;
}

static void set_handler (unsigned how)
{
    zqb_broker_handle (broker, how & 1 ? "local" : how & 2 ? "lru" : "echo", how & 4 ? handler : NULL, NULL);
}

static void set_time_limit (unsigned how)
{
    zqb_broker_time_limit (broker, how & 1 ? "lru" : "echo", (int) (how >> 1) * 50);
}

static const char *service_of (unsigned which)
{
    static const char *const names[] = {"echo", "lru", "e*", "other"};
    return names[which & 3];
}

static size_t choose (const zqb_worker_info_t *workers, size_t count, UNUSED void *arg)
{
    check_busy ();
    CHECK (count > 0 && count <= 64, "there is somebody to choose from");
    for (size_t i = 0; i < count; i++)
        CHECK (workers[i].load >= 0 && workers[i].load < workers[i].credit && workers[i].id != 0, "each has room, and a number");
    return (size_t) workers[0].served % (count + 1);
}

static void set_policy (unsigned how)
{
    int policy = (int) (how >> 2) % 6, failed = zqb_broker_policy (broker, service_of (how), policy, choose, NULL);
    CHECK (!failed || policy == 5 || errno == ENOMEM || errno == ENOSPC, "a policy is set");
    CHECK (failed || policy < 5, "there are five policies");
    CHECK (zqb_broker_policy (broker, "echo", ZQB_POLICY_CUSTOM, NULL, NULL) == -1, "somebody has to choose");
}

static void drain (unsigned how)
{
    CHECK (zqb_broker_drain (broker, service_of (how), how >> 2) == 0 || errno == ENOENT || errno == ENOMEM,
           "a worker is drained, or there is none");
}

static void hear_scale (const zqb_scale_t *scale, UNUSED void *arg)
{
    check_busy ();
    CHECK (strcmp (scale->service, "echo") == 0 || strlen (scale->service) > 0, "it is said of which service");
    CHECK (scale->queued >= 0 && scale->idle >= 0 && scale->busy >= 0 && scale->oldest_us >= 0 && scale->wanted >= 1,
           "a scale makes sense");
}

static void set_scale (unsigned how)
{
    zqb_scale_options_t options;
    memset (&options, 0, sizeof options);
    options.max = (int) (how >> 2);
    options.wait_ms = how & 4 ? 10 : 0;
    options.idle_ms = 20;
    options.queue_per_worker = 1;
    int failed = zqb_broker_scale (broker, service_of (how), options.max ? &options : NULL, hear_scale, NULL);
    CHECK (!failed || errno == ENOMEM || errno == ENOSPC, "a service is watched");
}

static void change_rules (unsigned how)
{
    static const char *const whom[] = {"*", "-", "ann*", "bob"};
    int failed = how ? zqb_broker_rule (broker, how & 1, whom[how >> 1 & 3], how >> 3 & 7 ? how >> 3 & 7 : 7,
                                        service_of (how >> 6))
                     : zqb_broker_rules (broker, NULL);
    CHECK (!failed || errno == ENOMEM, "there is another rule, or none");
}

static void take_step (script_t *step)
{
    unsigned kind = script_byte (step) % BROKER_STEPS;
    size_t actor = script_byte (step) % ACTORS;
    switch (kind) {
        case BROKER_SAY:
        case BROKER_SAY_AND_MORE: say (step, actor); break;
        case BROKER_WAIT: world.now += (uint64_t) script_number (step) << script_byte (step) % 16; break;
        case BROKER_LOSE: lose_connection (actor, script_byte (step)); break;
        case BROKER_STATE: actors[actor].state = (int) (script_byte (step) % 3); break;
        case BROKER_MEMORY: fail_memory (step); break;
        case BROKER_HANDLE: set_handler (script_byte (step)); break;
        case BROKER_LIMIT: set_time_limit (script_byte (step)); break;
        case BROKER_POLICY: set_policy (script_byte (step)); break;
        case BROKER_DRAIN: drain (script_byte (step)); break;
        case BROKER_SCALE: set_scale (script_byte (step)); break;
        case BROKER_USER: actors[actor].user = script_byte (step) % COUNT (users); break;
        case BROKER_RULES: change_rules (script_byte (step)); break;
        case BROKER_INTERRUPT: world.interrupts = script_byte (step) % 4; break;
        case BROKER_CONNECTION: actors[actor].connection = (int) script_byte (step) % 16 - 1; break;
        default: break;
    }
    if (kind != BROKER_SAY_AND_MORE)
        pass ();
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    script_t script = {data, size}, step = {NULL, 0};
    world_begin ();
    world.may_send = may_send;
    world.sent = heard_from_broker;
    script_step (&script, &step);
    if (step.left > 3 && step.at[3] != 255) { /* memory is short from the start */
        world.memory_holds = step.at[3];
        world.memory_fails = 1;
    }
    int made = begin (&step);
    CHECK (made || world.failed, "a broker is made");
    while (made && script_step (&script, &step))
        take_step (&step);
    zqb_broker_destroy (&broker);
    world_end ();
    return 0;
}
