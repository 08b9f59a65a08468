/*  Fuzzes the wire room of zqbroker.h: any frames, at each place where they may come in. Shows that nothing that is read
    points outside the frames; that what was read can be written, and then reads as the same; and that ZQB/1 is accepted
    exactly when a second, plainer reader of the manual's section 8 accepts it.

        make fuzz FUZZ=fuzz_wire FUZZ_SECONDS=60 */

#include "world.h"

enum { MOST_COMMANDS = 64 };

/* ---- where a command points to */

static int lies_in (const void *at, size_t size, const void *from, size_t from_size)
{
    uintptr_t a = (uintptr_t) at, b = (uintptr_t) from;
    return size == 0 || (a >= b && size <= from_size && a - b <= from_size - size);
}

static int lies_in_frames (frames_t *frames, const void *at, size_t size)
{
    for (size_t i = 0; i < frames->count; i++)
        if (lies_in (at, size, zmq_msg_data (&frames->at[i]), zmq_msg_size (&frames->at[i])))
            return 1;
    return size == 0;
}

static void check_pointers (frames_t *frames, const zqb__parcel_t *scratch, const zqb__command_t *command)
{
    const zqb__body_t *body = &command->body;
    size_t large = body->large_count * sizeof (zmq_msg_t), address = command->address_count * sizeof (zmq_msg_t);
    CHECK (lies_in_frames (frames, command->service, command->service_size), "the service lies in the frames");
    CHECK (lies_in_frames (frames, command->text, command->text_size), "the text lies in the frames");
    CHECK (!command->rare
               || (lies_in_frames (frames, command->rare->unique, command->rare->unique_size)
                   && lies_in_frames (frames, command->rare->affinity, command->rare->affinity_size)),
           "the keys lie in the frames");
    CHECK (lies_in_frames (frames, body->block, body->size)
               || lies_in (body->block, body->size, scratch->bytes.bytes, scratch->bytes.size),
           "the body lies in the frames or in the scratch");
    CHECK (lies_in (body->large, large, frames->at, frames->count * sizeof (zmq_msg_t))
               || lies_in (body->large, large, scratch->large, scratch->large_count * sizeof (zmq_msg_t)),
           "large frames are among the frames or in the scratch");
    CHECK (lies_in (command->address, address, frames->at, frames->count * sizeof (zmq_msg_t)),
           "the addresses are among the frames");
}

/* Goes through a body, which touches all its bytes; how many frames. */
static size_t walk_body (const zqb__body_t *body)
{
    zqb__cursor_t cursor = {0, 0};
    zqb__frame_t frame;
    size_t count = 0;
    volatile unsigned char sum = 0;
    for (; zqb__body_next (body, &cursor, &frame) == 1; count++)
        for (size_t i = 0; i < frame.size; i += frame.size > 4096 ? frame.size - 1 : 1)
            sum = (unsigned char) (sum + frame.data[i]);
    CHECK (cursor.large == body->large_count, "a body uses all its large frames");
    CHECK (count == body->frames, "the frames of a body are counted");
    return count;
}

/* ---- what is the same */

static int same_bytes (const void *a, size_t a_size, const void *b, size_t b_size)
{
    return a_size == b_size && (a_size == 0 || memcmp (a, b, a_size) == 0);
}

/* An empty body counts as one with an empty frame where the dialect has no other. */
static int same_body (const zqb__body_t *a, const zqb__body_t *b, int never_empty)
{
    zqb__cursor_t in_a = {0, 0}, in_b = {0, 0};
    zqb__frame_t from_a, from_b;
    if (never_empty && a->frames == 0)
        return b->frames == 1 && b->size == 4;
    if (a->frames != b->frames)
        return 0;
    while (zqb__body_next (a, &in_a, &from_a) == 1)
        if (zqb__body_next (b, &in_b, &from_b) != 1 || !same_bytes (from_a.data, from_a.size, from_b.data, from_b.size))
            return 0;
    return 1;
}

static int same_address (const zqb__command_t *a, const zqb__command_t *b)
{
    if (a->address_count != b->address_count)
        return 0;
    for (size_t i = 0; i < a->address_count; i++)
        if (!same_bytes (zmq_msg_data (&a->address[i]), zmq_msg_size (&a->address[i]), zmq_msg_data (&b->address[i]),
                         zmq_msg_size (&b->address[i])))
            return 0;
    return 1;
}

static int is_named (const zqb__command_t *command)
{
    return command->type == ZQB__READY || command->type == ZQB__REQUEST;
}

/* What a command has of what few have; all zero if it has nothing of it. */
static zqb__rare_t rare_of (const zqb__command_t *command)
{
    zqb__rare_t none;
    memset (&none, 0, sizeof none);
    return command->rare ? *command->rare : none;
}

static void check_same_rare (const zqb__rare_t *a, const zqb__rare_t *b)
{
    CHECK (a->priority == b->priority && a->deadline_ms == b->deadline_ms && a->delay_ms == b->delay_ms,
           "ZQB/1: priority, deadline and delay are written");
    CHECK (a->attempts == b->attempts && a->backoff_ms == b->backoff_ms
               && (!a->backoff_ms || a->backoff_max_ms == b->backoff_max_ms),
           "ZQB/1: attempts and backoff are written");
    CHECK (same_bytes (a->unique, a->unique_size, b->unique, b->unique_size)
               && same_bytes (a->affinity, a->affinity_size, b->affinity, b->affinity_size),
           "ZQB/1: the keys are written");
    CHECK (a->has_progress == b->has_progress && a->done == b->done && a->total == b->total,
           "ZQB/1: the progress is written");
    CHECK (a->code == b->code, "ZQB/1: the code is written");
}

static void check_same_zqb1 (const zqb__command_t *a, const zqb__command_t *b)
{
    CHECK (a->type == b->type && a->flags == b->flags && a->id == b->id, "ZQB/1: type, flags and id are written");
    CHECK (!is_named (a) || same_bytes (a->service, a->service_size, b->service, b->service_size),
           "ZQB/1: the service is written");
    CHECK ((a->type != ZQB__READY && a->type != ZQB__MORE) || a->credit == b->credit, "ZQB/1: the credit is written");
    CHECK (a->heartbeat_ms == b->heartbeat_ms, "ZQB/1: the heartbeat is written");
    CHECK (a->status == b->status, "ZQB/1: the status is written");
    CHECK (same_bytes (a->text, a->text_size, b->text, b->text_size), "ZQB/1: the text is written");
    CHECK (same_body (&a->body, &b->body, 0), "ZQB/1: the body is written");
    const zqb__rare_t in_a = rare_of (a), in_b = rare_of (b);
    check_same_rare (&in_a, &in_b);
}

static void check_same_frames (const zqb__incoming_t *in, const zqb__command_t *a, const zqb__command_t *b)
{
    CHECK (a->type == b->type && a->id == b->id, "type and token are written");
    CHECK (same_bytes (a->service, a->service_size, b->service, b->service_size), "the service is written");
    CHECK (same_address (a, b), "the addresses are written");
    CHECK (same_body (&a->body, &b->body, a->type == ZQB__REPLY || a->type == ZQB__PARTIAL || a->type == ZQB__REQUEST),
           "the body is written");
    CHECK (in->place == ZQB__FROM_BROKER || a->type != ZQB__REQUEST || a->body.frames, "a request has a body");
}

/* ---- written and read again */

/* All commands of a message, in one parcel. */
static void write_zqb1 (const zqb__incoming_t *in, const zqb__command_t *commands, size_t count)
{
    zqb__parcel_t parcel, scratch;
    zqb__incoming_t again;
    zqb__command_t command;
    zqb_msg_t msg;
    memset (&parcel, 0, sizeof parcel);
    memset (&scratch, 0, sizeof scratch);
    zqb_msg_init (&msg);
    for (size_t i = 0; i < count; i++)
        CHECK (zqb__wire_pack (&parcel, in->life, &commands[i]) == 0, "ZQB/1: what was read can be packed");
    if (in->place != ZQB__FROM_BROKER)
        zqb_msg_add_str (&msg, "peer");
    CHECK (zqb__outbox_add_parcel (&msg, &parcel) == 0, "a parcel becomes a message");
    CHECK (zqb__wire_open (&again, in->place, zqb_msg_frame (&msg, 0), zqb_msg_count (&msg), &scratch) == 0
               && again.dialect == ZQB__ZQB1 && again.life == in->life,
           "ZQB/1: what was packed has a header");
    for (size_t i = 0; i < count; i++) {
        CHECK (zqb__wire_next (&again, &command) == 1, "ZQB/1: what was packed can be read");
        check_same_zqb1 (&commands[i], &command);
        CHECK (zqb__wire_is_read (&again) == (i + 1 == count), "ZQB/1: it is known where a message ends");
    }
    CHECK (zqb__wire_next (&again, &command) == 0, "ZQB/1: nothing is packed besides");
    zqb_msg_close (&msg);
    zqb__parcel_close (&parcel);
    zqb__parcel_close (&scratch);
}

static void add_envelope (zqb_msg_t *msg, const zqb__incoming_t *in)
{
    if (in->place == ZQB__FROM_BROKER)
        return;
    zqb_msg_add_str (msg, "peer");
    if (in->dialect == ZQB__LRU)
        zqb_msg_add (msg, NULL, 0);
}

static void write_frames (const zqb__incoming_t *in, const zqb__command_t *command)
{
    zqb__parcel_t scratch;
    zqb__incoming_t again;
    zqb__command_t other;
    zqb_msg_t msg;
    if (!zqb__wire_says (in->dialect, in->side, command->type)
        || (in->place == ZQB__BACKEND && command->type == ZQB__READY)) /* we never say so there */
        return;
    memset (&scratch, 0, sizeof scratch);
    zqb_msg_init (&msg);
    add_envelope (&msg, in);
    CHECK (zqb__wire_frames (&msg, in->dialect, in->side, command) == 0, "what was read can be written");
    CHECK (zqb__wire_open (&again, in->place, zqb_msg_frame (&msg, 0), zqb_msg_count (&msg), &scratch) == 0,
           "what was written has a header");
    CHECK (zqb__wire_next (&again, &other) == 1, "what was written can be read");
    CHECK (again.side == in->side && (again.dialect == in->dialect || again.dialect == ZQB__PPP), /* a word as a token */
           "what was written is of the same dialect");
    check_same_frames (in, command, &other);
    zqb_msg_close (&msg);
    zqb__parcel_close (&scratch);
}

/* ---- a second reader of ZQB/1, from the manual: how many commands are well before the first that is not; *all says
   whether the whole message is */

typedef struct judge_t {
    const uint8_t *bytes;
    size_t size, at;
    zmq_msg_t *large;
    size_t large_left;
    int place;
} judge_t;

static uint64_t judge_integer (const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

/* Whether a field has a size that it may have. */
static int judge_field (unsigned tag, unsigned size)
{
    switch (tag) {
        case 6: return size == 1;
        case 2:
        case 3:
        case 9: return size == 2;
        case 5:
        case 7:
        case 8:
        case 14: return size == 4;
        case 10: return size == 8;
        case 11:
        case 12:
        case 15: return size > 0;
        case 13: return size == 16;
        default: return 1;
    }
}

static int judge_fields (const uint8_t *at, size_t size, size_t *service)
{
    for (size_t used; size; at += used, size -= used) {
        used = size < 2 ? SIZE_MAX : 2u + at[1];
        if (used > size || !judge_field (at[0], at[1]))
            return 0;
        if (at[0] == 1)
            *service = at[1];
    }
    return 1;
}

static int judge_body (judge_t *judge, const uint8_t *at, size_t size)
{
    while (size) {
        uint64_t head = size < 4 ? UINT64_MAX : judge_integer (at, 4), length = head & 0x7fffffff, used = 4;
        if (head == UINT64_MAX)
            return 0;
        if (head >> 31) {
            if (!judge->large_left-- || zmq_msg_size (judge->large++) != length)
                return 0;
        } else
            used += length;
        if (used > size)
            return 0;
        at += used;
        size -= used;
    }
    return 1;
}

static int judge_type (const judge_t *judge, unsigned type, size_t service)
{
    int from_broker = judge->place == ZQB__FROM_BROKER;
    if (type == 0 || type > 11)
        return 1;
    if (type == 1 && from_broker)
        return 0;
    return from_broker || (type != 1 && type != 2) || (service >= 1 && service <= 255);
}

static int judge_command (judge_t *judge)
{
    const uint8_t *at = judge->bytes + judge->at;
    size_t left = judge->size - judge->at, service = 0;
    if (left < 16 || judge->at >= 65536)
        return 0;
    uint64_t size = judge_integer (at, 4), fields = judge_integer (at + 6, 2);
    if (size < 16 || size > left || fields > size - 16 || !judge_fields (at + 16, fields, &service)
        || !judge_body (judge, at + 16 + fields, size - 16 - fields) || !judge_type (judge, at[4], service))
        return 0;
    judge->at += size;
    return 1;
}

static size_t judge_zqb1 (int place, zmq_msg_t *frames, size_t count, int *all)
{
    judge_t judge = {(const uint8_t *) zmq_msg_data (frames), zmq_msg_size (frames), 12, frames + 1, count - 1, place};
    size_t commands = 0;
    while (judge.at < judge.size && judge_command (&judge))
        commands++;
    *all = judge.at == judge.size && commands && judge.large_left == 0;
    return commands;
}

/* ---- a message */

static void check_in (const zqb__incoming_t *in, const frames_t *frames)
{
    CHECK (in->dialect >= 0 && in->dialect < ZQB__DIALECTS, "the dialect is known");
    CHECK (in->side == ZQB__CLIENT || in->side == ZQB__WORKER, "the side is known");
    CHECK (in->envelope <= frames->count && in->envelope <= 2 + ZQB__ENVELOPE_MAX, "the envelope lies in the frames");
}

static void read_commands (zqb__incoming_t *in, frames_t *frames, zqb__parcel_t *scratch)
{
    static zqb__command_t commands[MOST_COMMANDS], command;
    static zqb__rare_t rare[MOST_COMMANDS]; /* which is there until the next command only */
    int zqb1 = in->dialect == ZQB__ZQB1, all = 0, more;
    size_t count = 0, judged = zqb1 ? judge_zqb1 (in->place, in->frames, in->count, &all) : 0;
    unsigned failed = world.failed;
    for (; (more = zqb__wire_next (in, &command)) == 1; count++) {
        check_pointers (frames, scratch, &command);
        walk_body (&command.body);
        if (count < MOST_COMMANDS) {
            commands[count] = command;
            rare[count] = rare_of (&command);
            commands[count].rare = command.rare ? &rare[count] : NULL;
        }
        if (!zqb1)
            write_frames (in, &command);
        CHECK (zqb1 || count == 0, "only ZQB/1 has several commands in a message");
    }
    CHECK (more == 0 || in->error > ZQB__FINE, "it is said what is wrong");
    CHECK (more == 0 || in->error <= ZQB__BAD_NAME || world.failed > failed, "what is wrong is known");
    if (!zqb1)
        return;
    CHECK (count == judged && (more == 0) == all, "ZQB/1: two readers agree");
    if (count)
        write_zqb1 (in, commands, count < MOST_COMMANDS ? count : MOST_COMMANDS);
}

/* A step: the place, memory that fails (in the next byte, if the place has that bit), frames. */
static void read_message (script_t *step, zqb__parcel_t *scratch)
{
    static const heard_t heard = {{0x0000000100000003u, 7, UINT64_MAX, 0x5a51420101020304u}, 4};
    const speaker_t speaker = {0x1122334455667788u, &heard, &heard};
    frames_t frames = {NULL, 0, 0};
    zqb__incoming_t in;
    unsigned how = script_byte (step);
    unsigned holds = how & 4 ? script_byte (step) : 0;
    script_frames (step, &frames, &speaker);
    world.memory_holds = holds & 15;
    world.memory_fails = how & 4 ? 1 : 0;
    if (zqb__wire_open (&in, how & 3, frames.at, frames.count, scratch) == 0) {
        check_in (&in, &frames);
        if (!world.memory_fails)
            read_commands (&in, &frames, scratch);
        else { /* only what does not crash; the first few are enough */
            zqb__command_t command;
            while (zqb__wire_next (&in, &command) == 1)
                check_pointers (&frames, scratch, &command);
        }
    } else
        CHECK (in.error != ZQB__FINE, "it is said what is wrong");
    world.memory_fails = 0;
    frames_close (&frames);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    script_t script = {data, size}, step;
    zqb__parcel_t scratch;
    world_begin ();
    memset (&scratch, 0, sizeof scratch);
    while (script_step (&script, &step))
        read_message (&step, &scratch);
    zqb__parcel_close (&scratch);
    world_end ();
    return 0;
}
