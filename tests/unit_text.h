/* Messages and commands as text, for tests that look at what is on the wire. Included behind unit.h. */
#ifndef UNIT_TEXT_H_INCLUDED
#define UNIT_TEXT_H_INCLUDED

/* ---- messages as text: frames with a bar between them, other bytes as \xHH */

enum { TEXT = 4000 };

static void put (char *text, const char *format, ...)
{
    size_t used = strlen (text);
    va_list args;
    va_start (args, format);
    vsnprintf (text + used, TEXT - used, format, args);
    va_end (args);
}

static void put_bytes (char *text, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = ((const unsigned char *) data)[i];
        put (text, byte > 31 && byte < 127 && byte != '|' && byte != '\\' ? "%c" : "\\x%02x", byte);
    }
}

static void put_msg (char *text, const zqb_msg_t *msg)
{
    for (size_t i = 0; i < zqb_msg_count (msg); i++) {
        put (text, i ? "|" : "");
        put_bytes (text, zqb_msg_data (msg, i), zqb_msg_size (msg, i));
    }
}

/* ---- commands as text */

static const char *type_name (int type)
{
    switch (type) {
#define X(name, number)                                                                                            \
    case number:                                                                                                   \
        return #name;
        ZQB__COMMANDS (X)
#undef X
        default:
            return "UNKNOWN";
    }
}

static void put_body (char *text, const zqb__body_t *body)
{
    zqb_msg_t msg;
    zqb_msg_init (&msg);
    assert_ok (zqb__body_to_msg (body, &msg));
    put (text, " %u:", (unsigned) zqb_msg_count (&msg));
    put_msg (text, &msg);
    zqb_msg_close (&msg);
}

static void put_flags (char *text, int flags)
{
    static const char *const names[] = {" again", " unbegun", " one-way", " fail-fast", " survey", " window"};
    for (size_t i = 0; i < COUNT (names); i++)
        put (text, "%s", flags >> i & 1 ? names[i] : "");
}

static void put_times (char *text, const zqb__rare_t *rare)
{
    put (text, rare->deadline_ms ? " deadline=%u" : "", rare->deadline_ms);
    put (text, rare->delay_ms ? " delay=%u" : "", rare->delay_ms);
    put (text, rare->attempts ? " attempts=%u" : "", rare->attempts);
    put (text, rare->backoff_ms || rare->backoff_max_ms ? " backoff=%u/%u" : "", rare->backoff_ms, rare->backoff_max_ms);
}

/* The fields that few commands have. */
static void put_rare (char *text, const zqb__rare_t *rare)
{
    put (text, rare->priority ? " priority=%d" : "", rare->priority);
    put_times (text, rare);
    if (rare->unique)
        put (text, " unique="), put_bytes (text, rare->unique, rare->unique_size);
    if (rare->affinity)
        put (text, " affinity="), put_bytes (text, rare->affinity, rare->affinity_size);
    if (rare->has_progress)
        put (text, " progress=%llu/%llu", (unsigned long long) rare->done, (unsigned long long) rare->total);
    put (text, rare->code ? " code=%u" : "", rare->code);
    if (rare->user)
        put (text, " user="), put_bytes (text, rare->user, rare->user_size);
}

/* "REQUEST #7 @echo 2:a|b": the number, the service, how many frames of body, and these. */
UNUSED static void put_command (char *text, const zqb__command_t *command)
{
    put (text, "%s", type_name (command->type));
    put_flags (text, command->flags);
    if (command->id)
        put (text, " #%llx", (unsigned long long) command->id);
    if (command->service)
        put (text, " @"), put_bytes (text, command->service, command->service_size);
    if ((command->type == ZQB__READY || command->type == ZQB__MORE) && command->credit != 1)
        put (text, " credit=%u", command->credit);
    if (command->status)
        put (text, " status=%d", command->status);
    if (command->text)
        put (text, " text="), put_bytes (text, command->text, command->text_size);
    if (command->rare)
        put_rare (text, command->rare);
    for (size_t i = 0; i < command->address_count; i++)
        put (text, " from="), put_bytes (text, zmq_msg_data (&command->address[i]), zmq_msg_size (&command->address[i]));
    if (command->body.frames)
        put_body (text, &command->body);
}

#endif
