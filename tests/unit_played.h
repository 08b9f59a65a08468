/* A broker of ZQB/1 that a test plays over a raw socket, so that every command is the one that the test wants, and each
   that comes is looked at. Included behind unit.h, unit_world.h and unit_text.h. */
#ifndef UNIT_PLAYED_H_INCLUDED
#define UNIT_PLAYED_H_INCLUDED

enum { PLAYED_LIFE = 77 };

typedef struct played_t {
    char endpoint[64]; /* of its own */
    void *socket;
    zmq_msg_t peer; /* who spoke last */
    zqb__inbox_t inbox;
    zqb__incoming_t in;
    zqb__parcel_t scratch, out;
    int reading;
    zqb__command_t command; /* what was heard last, until the next */
    char text[TEXT];        /* the same */
} played_t;

static void played_bind (played_t *played)
{
    static int count;
    int patience = PATIENCE_MS, linger = 0;
    memset (played, 0, sizeof *played);
    played->inbox.limit = SIZE_MAX;
    zmq_msg_init (&played->peer);
    played->socket = zmq_socket (ctx, ZMQ_ROUTER);
    zmq_setsockopt (played->socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    zmq_setsockopt (played->socket, ZMQ_LINGER, &linger, sizeof linger);
    snprintf (played->endpoint, sizeof played->endpoint, "inproc://played-%d", count++);
    assert_ok (zmq_bind (played->socket, played->endpoint));
}

static void played_close (played_t *played)
{
    zmq_close (played->socket);
    zmq_msg_close (&played->peer);
    zqb__inbox_close (&played->inbox);
    zqb__parcel_close (&played->scratch);
    zqb__parcel_close (&played->out);
}

/* Whether there was a command more; flags: ZMQ_DONTWAIT does not wait for it. */
static int played_next (played_t *played, int flags)
{
    while (!played->reading || zqb__wire_next (&played->in, &played->command) != 1) {
        if (zqb__inbox_receive (&played->inbox, played->socket, flags) != 1)
            return 0;
        zmq_msg_copy (&played->peer, &played->inbox.frames[0]);
        played->reading = zqb__wire_open (&played->in, ZQB__MAJORDOMO, played->inbox.frames, played->inbox.count,
                                          &played->scratch) == 0;
    }
    played->text[0] = 0;
    put_command (played->text, &played->command);
    return 1;
}

/* The next command that somebody sends, as text, but for heartbeats. */
static const char *played_hears (played_t *played)
{
    do
        assert_true (played_next (played, 0));
    while (played->command.type == ZQB__HEARTBEAT);
    return played->text;
}

/* Nothing is there, but for heartbeats. */
UNUSED static void played_hears_nothing (played_t *played)
{
    while (played_next (played, ZMQ_DONTWAIT))
        assert_string_equal (played->text, "HEARTBEAT");
}

/* The next command is this; in the format a number may be given, as an unsigned long long. */
UNUSED static void played_hears_text (played_t *played, const char *format, uint64_t number)
{
    char wanted[TEXT];
    snprintf (wanted, sizeof wanted, format, (unsigned long long) number);
    assert_string_equal (played_hears (played), wanted);
}

/* Packs a command for who spoke last. */
static void played_packs (played_t *played, const zqb__command_t *command)
{
    assert_ok (zqb__wire_pack (&played->out, PLAYED_LIFE, command));
}

static void played_sends (played_t *played)
{
    zqb_msg_t msg;
    zmq_msg_t peer;
    zqb_msg_init (&msg);
    zmq_msg_init (&peer);
    zmq_msg_copy (&peer, &played->peer);
    assert_ok (zqb_msg_add_frame (&msg, &peer));
    assert_ok (zqb__outbox_add_parcel (&msg, &played->out));
    zqb__parcel_clear (&played->out);
    assert_ok (zqb__outbox_send (&msg, played->socket, 0));
    zqb_msg_close (&msg);
}

UNUSED static void played_says (played_t *played, const zqb__command_t *command)
{
    played_packs (played, command);
    played_sends (played);
}

UNUSED static void played_says_only (played_t *played, int type, uint64_t id)
{
    zqb__command_t command = zqb__command (type, id);
    played_says (played, &command);
}

/* A command with one frame of body. */
UNUSED static void played_says_body (played_t *played, int type, int flags, uint64_t id, const char *body)
{
    zqb_msg_t msg;
    zqb__command_t command = zqb__command (type, id);
    zqb_msg_init (&msg);
    zqb_msg_add_str (&msg, body);
    command.flags = flags;
    command.msg = &msg;
    played_says (played, &command);
    zqb_msg_close (&msg);
}

UNUSED static void played_says_more (played_t *played, uint64_t id, uint32_t credit)
{
    zqb__command_t command = zqb__command (ZQB__MORE, id);
    command.credit = credit;
    played_says (played, &command);
}

/* A command with a status, a text (or NULL) and what few have (or NULL). */
UNUSED static void played_says_why (played_t *played, int type, uint64_t id, int status, const char *text,
                                    const zqb__rare_t *rare)
{
    zqb__command_t command = zqb__command (type, id);
    command.status = status;
    command.text = text;
    command.text_size = text ? strlen (text) : 0;
    command.rare = rare;
    played_says (played, &command);
}

#endif
