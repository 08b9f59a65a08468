/*  A hostile broker for the fuzzers of the client and the worker: it says anything, at any time, also while they wait;
    goes and comes back as another; and does not read. What they send to it must be well-formed. */

#ifndef FUZZ_HOSTILE_H
#define FUZZ_HOSTILE_H

#include "steps.h"
#include "world.h"

static struct {
    script_t script; /* what is left of it */
    heard_t heard;   /* ids of requests, or of nothing */
    uint64_t life;
    int full; /* nothing can be sent */
    int commands[ZQB__COMMAND_END]; /* heard, by type */
} hostile;

static void hostile_see (const zqb__command_t *command, UNUSED void *arg)
{
    CHECK (command->type > 0 && command->type < ZQB__COMMAND_END, "we say what is known");
    hostile.commands[command->type]++;
    if (command->type == ZQB__REQUEST)
        heard_add (&hostile.heard, command->id);
}

/* The broker's ROUTER puts an address in front. */
static void hostile_hears (UNUSED socket_t *socket, frames_t *frames)
{
    frames_t whole = {NULL, 0, 0};
    frames_add (&whole, "@", 1);
    for (size_t i = 0; i < frames->count; i++) {
        zmq_msg_t *room = frames_room (&whole);
        zmq_msg_init (room);
        zmq_msg_copy (room, &frames->at[i]);
    }
    world_listen (ZQB__MAJORDOMO, &whole, hostile_see, NULL);
    frames_close (&whole);
}

static int hostile_may_send (UNUSED socket_t *socket, UNUSED zmq_msg_t *first)
{
    return hostile.full ? EAGAIN : 0;
}

static void hostile_says (script_t *step)
{
    const speaker_t speaker = {hostile.life, &hostile.heard, &hostile.heard};
    socket_t *socket = world_find (ZMQ_DEALER);
    frames_t frames = {NULL, 0, 0};
    script_frames (step, &frames, &speaker);
    if (socket && frames.count)
        world_deliver (socket, &frames, -1);
    frames_close (&frames);
}

/* The connection is lost or made again, as the monitor tells. */
static void hostile_event (unsigned how)
{
    socket_t *socket = world_find (ZMQ_DEALER);
    if (socket)
        world_tell (socket, how & 1 ? ZQB__EVENT_THERE : ZMQ_EVENT_DISCONNECTED, 1);
    if (how & 2)
        hostile.life++;
}

static void hostile_step (unsigned kind, script_t *step)
{
    switch (kind) {
        case HOSTILE_SAY: hostile_says (step); break;
        case HOSTILE_WAIT: world.now += (uint64_t) script_number (step) << script_byte (step) % 12; break;
        case HOSTILE_EVENT: hostile_event (script_byte (step)); break;
        case HOSTILE_STATE: hostile.full = script_byte (step) & 1; break;
        case HOSTILE_MEMORY:
            world.memory_holds = script_byte (step);
            world.memory_fails = script_byte (step) % 8 + 1;
            break;
        case HOSTILE_SOCKETS:
            world.sockets_fail = script_byte (step) % 4;
            world.connects_fail = script_byte (step) % 4;
            break;
        case HOSTILE_INTERRUPT: world.interrupts = script_byte (step) % 4; break;
        default: world.ended = script_byte (step) == 'E'; break;
    }
}

/* While somebody waits, the next steps happen, if they are not his own. */
static int hostile_waits (uint64_t until)
{
    script_t script = hostile.script, step;
    if (!script_step (&script, &step) || !step.left || step.at[0] % OWN_KINDS >= HOSTILE_STEPS)
        return 0;
    hostile.script = script;
    if (world.now + 1000 < until)
        world.now += 1000;
    unsigned kind = script_byte (&step) % OWN_KINDS;
    hostile_step (kind, &step);
    return 1;
}

static void hostile_begin (const uint8_t *data, size_t size)
{
    world_begin ();
    memset (&hostile, 0, sizeof hostile);
    hostile.script.at = data;
    hostile.script.left = size;
    hostile.life = 0x4000;
    world.may_send = hostile_may_send;
    world.sent = hostile_hears;
    world.waits = hostile_waits;
}

static size_t list_length (const zqb__link_t *head)
{
    size_t length = 0;
    for (const zqb__link_t *at = head->next; at != head; at = at->next, length++)
        CHECK (at->next->prev == at && length < 100000, "lists hang together");
    return length;
}

/* How long somebody waits. */
static int script_timeout (script_t *step)
{
    static const int timeouts[] = {0, 0, 1, 20, 300, 3000, 10000, -1};
    return timeouts[script_byte (step) % COUNT (timeouts)];
}

static const char *script_endpoints (unsigned chosen)
{
    static const char *const endpoints[] = {"inproc://a", "tcp://a:1", "tcp://a:1,tcp://b:2", "tcp://a:1,inproc://b"};
    return endpoints[chosen % COUNT (endpoints)];
}

/* A message of the user's. */
static void script_msg (script_t *step, zqb_msg_t *msg)
{
    static const speaker_t nobody = {0, NULL, NULL};
    unsigned holds = world.memory_holds, fails = world.memory_fails;
    frames_t frames = {NULL, 0, 0};
    world.memory_holds = world.memory_fails = 0;
    zqb_msg_init (msg);
    script_frames (step, &frames, &nobody);
    for (size_t i = 0; i < frames.count; i++)
        zqb_msg_add_frame (msg, &frames.at[i]);
    frames_close (&frames);
    world.memory_holds = holds;
    world.memory_fails = fails;
}

#endif
