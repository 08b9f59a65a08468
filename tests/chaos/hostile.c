/*  hostile.c - peers that mean no good, each kind in a process of its own: see hostile.py

        hostile KIND FOLDER PAGE ENDPOINT

    It obeys the phase in the page (siege.h). In ATTACK it does so many units for each 100000 requests of good clients as
    stands beside its name below; in STORM as many as stand there, as fast as it can; in QUIET it rests, and says so in
    the page. At the end it tells what it did, and what came of it, on stdout. It is written from the manual of
    zqbroker.h alone, but for keys and for how integers are laid out. It is user m.N, whom the rules allow to call ping,
    big, hold, idle and evil.*, and to serve evil.*.

    Whatever it receives has to be its own: an answer to a number that it asked, with its own name in the body; a
    request of its own to its worker. Everything else counts as foreign. */

#define _GNU_SOURCE
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include "siege.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { PATIENCE_MS = 20000, LARGE = 60000, HALF_OPEN_MOST = 4000, RING = 8 };
enum { READY = 1, REQUEST, PARTIAL, REPLY, ERROR, HEARTBEAT, DISCONNECT, CANCEL, PROGRESS, MORE, DRAIN };
enum { AGAIN = 1 };
enum { SERVICE = 1, CREDIT = 2, STATUS = 3, BEAT = 5, DONE = 13 };
enum { QUEUE_FULL = 2 };

typedef struct kind_t {
    const char *name;
    uint64_t share, storm; /* units per 100000 good requests; units of the storm */
    void (*open) (void);
    void (*unit) (void);
    void (*rest) (void);
} kind_t;

static void *ctx;
static const char *folder, *endpoint;
static char user[8], evil[8]; /* ours: who we are, and what we serve */
static uint64_t random_state;
static struct {
    uint64_t received, foreign, replies, refused, given, closed, let_in, turned_away, synced;
} heard;
static uint64_t sync_number; /* of the request whose answer is waited for */

static uint64_t next_random (void)
{
    return mix (random_state++);
}

/* ---- sockets of libzmq */

typedef struct peer_t {
    void *socket;
    uint64_t life, asked;
    zqb__inbox_t inbox;
} peer_t;

static void *new_socket (const char *secret)
{
    char server_path[4096], secret_path[4096];
    zqb__keys_t *keys = NULL;
    int linger = 0, never = -1;
    void *socket = zmq_socket (ctx, ZMQ_DEALER);
    snprintf (server_path, sizeof server_path, "file:%s/broker.public", folder);
    snprintf (secret_path, sizeof secret_path, "file:%s/%s.secret", folder, secret ? secret : "");
    if (!socket || zqb__keys_of_peer (&keys, server_path, NULL, secret ? secret_path : NULL, NULL, NULL) != 0
        || zqb__keys_apply (keys, socket) != 0)
        fail ("socket");
    zmq_setsockopt (socket, ZMQ_LINGER, &linger, sizeof linger);
    if (!secret)
        zmq_setsockopt (socket, ZMQ_RECONNECT_IVL, &never, sizeof never);
    zqb__keys_free (&keys);
    return socket;
}

static void peer_connect (peer_t *peer)
{
    if (zmq_connect (peer->socket, endpoint) != 0)
        fail ("connect");
    peer->inbox.limit = SIZE_MAX;
    if (!peer->life)
        peer->life = next_random ();
}

static void peer_open (peer_t *peer)
{
    memset (peer, 0, sizeof *peer);
    peer->socket = new_socket (user);
    peer_connect (peer);
}

static void peer_close (peer_t *peer)
{
    if (peer->socket)
        zmq_close (peer->socket);
    zqb__inbox_close (&peer->inbox);
    peer->socket = NULL;
}

/* ---- what is sent: a message of ZQB/1 with any number of commands */

static unsigned char message[80000];
static size_t message_size;

static void begin (uint64_t life)
{
    memcpy (message, "ZQB\1", 4);
    zqb__put_64 (message + 4, life);
    message_size = 12;
}

static void field (int tag, const void *value, size_t size)
{
    message[message_size++] = (unsigned char) tag;
    message[message_size++] = (unsigned char) size;
    memcpy (message + message_size, value, size);
    message_size += size;
}

/* A command with a service (NULL: none) and a body of one frame (NULL: none). */
static void command (int type, int flags, uint64_t id, const char *service, const void *body, size_t size)
{
    size_t start = message_size;
    memset (message + start, 0, 16);
    message[start + 4] = (unsigned char) type;
    message[start + 5] = (unsigned char) flags;
    zqb__put_64 (message + start + 8, id);
    message_size += 16;
    if (service)
        field (SERVICE, service, strlen (service));
    if (type == READY || type == MORE)
        field (CREDIT, "\0\4", 2);
    if (type == READY)
        field (BEAT, "\0\0\0\0", 4); /* none are sent, nor needed */
    if (type == PROGRESS)
        field (DONE, "\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2", 16);
    zqb__put_16 (message + start + 6, (uint32_t) (message_size - start - 16));
    if (body) {
        zqb__put_32 (message + message_size, (uint32_t) size);
        memcpy (message + message_size + 4, body, size);
        message_size += 4 + size;
    }
    zqb__put_32 (message + start, (uint32_t) (message_size - start));
}

static body_t own_body (uint64_t number)
{
    body_t body;
    memset (&body, 0, sizeof body);
    memcpy (body.user, user, sizeof body.user);
    body.number = number;
    return body;
}

/* A request with our name in it. */
static void request (peer_t *peer, int flags, uint64_t number, const char *service)
{
    body_t body = own_body (number);
    if (number > peer->asked && number != sync_number)
        peer->asked = number;
    command (REQUEST, flags, number, service, &body, sizeof body);
}

static void send_message (peer_t *peer)
{
    while (zmq_send (peer->socket, message, message_size, 0) < 0)
        if (errno != EINTR)
            fail ("send");
}

/* ---- what comes back */

static uint64_t status_of (const unsigned char *fields, size_t size)
{
    for (size_t at = 0; at + 2 <= size; at += 2u + fields[at + 1])
        if (fields[at] == STATUS)
            return zqb__get_16 (fields + at + 2);
    return 0;
}

static int is_named (const void *bytes, size_t size)
{
    return size >= sizeof (body_t) && memcmp (bytes, user, strlen (user) + 1) == 0;
}

/* The first frame of a body block; it may travel on its own. */
static int body_is_ours (const peer_t *peer, const unsigned char *block, size_t size)
{
    uint32_t length = size >= 4 ? zqb__get_32 (block) : 0;
    if (length >> 31)
        return peer->inbox.count > 1
               && is_named (zmq_msg_data (&peer->inbox.frames[1]), zmq_msg_size (&peer->inbox.frames[1]));
    return is_named (block + 4, length);
}

static int command_is_ours (const peer_t *peer, const unsigned char *at, size_t size)
{
    size_t fields = zqb__get_16 (at + 6);
    uint64_t id = zqb__get_64 (at + 8);
    heard.synced += id == sync_number && (at[4] == REPLY || at[4] == ERROR);
    switch (at[4]) {
        case REPLY:
            heard.replies += id != sync_number;
            return (id <= peer->asked || id == sync_number)
                   && body_is_ours (peer, at + 16 + fields, size - 16 - fields);
        case REQUEST: heard.given++; return body_is_ours (peer, at + 16 + fields, size - 16 - fields);
        case ERROR:
            heard.refused += status_of (at + 16, fields) == QUEUE_FULL;
            return id <= peer->asked || id == sync_number;
        case DISCONNECT:
        case HEARTBEAT:
        case CANCEL:
        case MORE:
        case DRAIN: return 1;
        default: return 0; /* PARTIAL and PROGRESS: nobody sends us any */
    }
}

/* The broker has words of MDP for us, too: nothing in them is as long as a body. */
static void hear_plain (const peer_t *peer)
{
    for (size_t i = 0; i < peer->inbox.count; i++)
        heard.foreign += zmq_msg_size (&peer->inbox.frames[i]) >= sizeof (body_t);
}

/* Takes the next message, and judges it. The token of the last REQUEST in it, if there is one, is put there. 0: there
   is none. */
static int hear_one (peer_t *peer, uint64_t *token)
{
    if (zqb__inbox_receive (&peer->inbox, peer->socket, ZMQ_DONTWAIT) != 1)
        return 0;
    const unsigned char *bytes = (const unsigned char *) zmq_msg_data (&peer->inbox.frames[0]);
    size_t size = zmq_msg_size (&peer->inbox.frames[0]);
    heard.received++;
    if (size < 12 || memcmp (bytes, "ZQB\1", 4) != 0) {
        hear_plain (peer);
        return 1;
    }
    for (size_t at = 12; at + 16 <= size && zqb__get_32 (bytes + at) >= 16; at += zqb__get_32 (bytes + at)) {
        heard.foreign += !command_is_ours (peer, bytes + at, zqb__get_32 (bytes + at));
        if (token && bytes[at + 4] == REQUEST)
            *token = zqb__get_64 (bytes + at + 8);
    }
    return 1;
}

static void hear (peer_t *peer)
{
    while (peer->socket && hear_one (peer, NULL))
        ;
}

/* Until a counter of what was heard is larger, or patience is over: 0. */
static int hear_until (peer_t *peer, const uint64_t *counter, uint64_t more, uint64_t *token)
{
    uint64_t wanted = *counter + more, until = zqb__clock () + (uint64_t) PATIENCE_MS * 1000u;
    zmq_pollitem_t item;
    memset (&item, 0, sizeof item);
    item.socket = peer->socket;
    item.events = ZMQ_POLLIN;
    while (*counter < wanted && zqb__clock () < until)
        if (!hear_one (peer, token))
            zmq_poll (&item, 1, 100);
    return *counter >= wanted;
}

/* All that was sent over this connection has been read, and all answers to that have come. */
static void sync_with_broker (peer_t *peer)
{
    if (!peer->socket)
        return;
    sync_number = UINT64_MAX - 1;
    begin (peer->life);
    request (peer, 0, sync_number, "ping");
    send_message (peer);
    if (!hear_until (peer, &heard.synced, 1, NULL))
        fail ("no answer");
    sync_number = 0;
}

/* What becomes of a new connection: 1 if that event comes before patience is over. */
static int event_comes (void *socket, void *monitor, int wanted)
{
    uint64_t until = zqb__clock () + (uint64_t) PATIENCE_MS * 1000u;
    zqb__inbox_t events;
    zmq_pollitem_t item;
    uint16_t event = 0;
    int32_t value;
    memset (&events, 0, sizeof events);
    memset (&item, 0, sizeof item);
    events.limit = SIZE_MAX;
    item.socket = monitor;
    item.events = ZMQ_POLLIN;
    while (event != wanted && zqb__clock () < until)
        if (!zqb__monitor_next (monitor, &events, &event, &value))
            zmq_poll (&item, 1, 100);
    zqb__monitor_close (socket, monitor);
    zqb__inbox_close (&events);
    return event == wanted;
}

/* ---- raw connections */

/* Whether a connection is there within that time. */
static int tcp_connect (int file, int timeout_ms)
{
    struct sockaddr_in where;
    struct pollfd item;
    int error = 0;
    socklen_t size = sizeof error;
    memset (&where, 0, sizeof where);
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    where.sin_port = htons ((uint16_t) atoi (strrchr (endpoint, ':') + 1));
    item.fd = file;
    item.events = POLLOUT;
    fcntl (file, F_SETFL, O_NONBLOCK);
    if (connect (file, (struct sockaddr *) &where, sizeof where) != 0 && errno != EINPROGRESS)
        fail ("tcp");
    if (poll (&item, 1, timeout_ms) != 1)
        return 0;
    fcntl (file, F_SETFL, 0);
    return getsockopt (file, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

/* A connection that is made when this returns. When the broker's queue of those that it has to accept is full, the
   system would try again in seconds only. -1: there is no descriptor left. */
static int tcp_open (void)
{
    uint64_t until = zqb__clock () + (uint64_t) PATIENCE_MS * 1000u;
    int file = socket (AF_INET, SOCK_STREAM, 0);
    while (file >= 0 && !tcp_connect (file, 20)) {
        close (file);
        if (zqb__clock () > until)
            fail ("connect");
        file = socket (AF_INET, SOCK_STREAM, 0);
    }
    return file;
}

/* The other side may have closed it. */
static void tcp_send (int file, const void *bytes, size_t size)
{
    const char *at = (const char *) bytes;
    while (size) {
        ssize_t sent = send (file, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        at += sent;
        size -= (size_t) sent;
    }
}

/* Whether the other side closes it before patience is over. */
static int tcp_is_closed (int file)
{
    struct pollfd item;
    char bytes[4096];
    item.fd = file;
    item.events = POLLIN;
    while (poll (&item, 1, PATIENCE_MS) == 1)
        if (recv (file, bytes, sizeof bytes, 0) <= 0)
            return 1;
    return 0;
}

/* RST, so that no port is left behind. */
static void tcp_reset (int file)
{
    struct linger now = { 1, 0 };
    setsockopt (file, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close (file);
}

/* The greeting of ZMTP 3.0 with CURVE, as a client. */
static const unsigned char greeting[64] = {
    0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E'
};

/* ---- the kinds */

static peer_t client, worker;

static void open_client (void)
{
    peer_open (&client);
}

static void open_worker (void)
{
    peer_open (&worker);
    begin (worker.life);
    command (READY, 0, 0, evil, NULL, 0);
    send_message (&worker);
}

static void open_both (void)
{
    open_client ();
    open_worker ();
}

static void open_two (void)
{
    open_client ();
    peer_open (&worker);
}

/* A storm of it goes on until the broker has said that it is too much. */
static void unit_flood (void)
{
    static unsigned char large[LARGE];
    body_t body = own_body (++client.asked);
    memcpy (large, &body, sizeof body);
    begin (client.life);
    command (REQUEST, 0, client.asked, "ping", large, sizeof large);
    send_message (&client);
}

static void unit_crowd (void)
{
    begin (client.life);
    for (int i = 0; i < 10; i++)
        request (&client, 0, client.asked + 1, "idle");
    send_message (&client);
}

/* The tokens of the good worker, and guesses. */
static uint64_t some_token (void)
{
    uint64_t dice = next_random ();
    if (dice % 2)
        return page_get (&page->tokens[dice / 2 % TOKENS]);
    return (dice >> 8 & 0xff) << 32 | (dice >> 16 & 0xffff) | 1;
}

/* Four commands, each with a body that would be foreign to whoever got it. */
static void forge (uint64_t life)
{
    static const int types[] = { REPLY, PARTIAL, ERROR, PROGRESS };
    body_t body = own_body (0);
    begin (life);
    for (int i = 0; i < 4; i++)
        command (types[i], 0, some_token (), NULL, types[i] <= REPLY ? &body : NULL, sizeof body);
}

static void unit_forge (void)
{
    forge (worker.life);
    send_message (&worker);
}

static void unit_stranger (void)
{
    forge (client.life);
    send_message (&client);
}

/* Asks itself for something, then again while it is at work, and answers twice. */
static void unit_again (void)
{
    uint64_t token = 0;
    body_t body = own_body (client.asked + 1);
    begin (client.life);
    request (&client, 0, client.asked + 1, evil);
    send_message (&client);
    if (!hear_until (&worker, &heard.given, 1, &token))
        fail ("no request");
    begin (client.life);
    request (&client, AGAIN, client.asked, evil);
    request (&client, AGAIN, client.asked, evil);
    send_message (&client);
    begin (client.life);
    command (REQUEST, 0, ++client.asked, "ping", &body, sizeof body); /* behind which those were read */
    send_message (&client);
    if (!hear_until (&client, &heard.replies, 1, NULL))
        fail ("no ping");
    begin (worker.life);
    for (int i = 0; i < 3; i++)
        command (REPLY, 0, token, NULL, &body, sizeof body);
    send_message (&worker);
    if (!hear_until (&client, &heard.replies, 1, NULL))
        fail ("no reply");
}

/* With the life of a good client and the number of its last request: as if it were asked, cancelled, read by us. */
static void unit_ids (void)
{
    uint64_t number = page_get (&page->number[0]);
    client.asked = UINT64_MAX; /* numbers are another's */
    client.life = page_get (&page->life[0]);
    begin (client.life);
    command (CANCEL, 0, number, NULL, NULL, 0);
    command (MORE, 0, number, NULL, NULL, 0);
    request (&client, AGAIN, number, "ping");
    command (DISCONNECT, 0, 0, NULL, NULL, 0);
    send_message (&client);
    body_t body = own_body (0);
    begin (page_get (&page->worker_life));
    command (READY, 0, 0, evil, NULL, 0);
    command (REPLY, 0, some_token (), NULL, &body, sizeof body);
    command (DISCONNECT, 0, 0, NULL, NULL, 0);
    send_message (&worker);
}

/* A socket with the name of a good one, which is let in by its key. It is not let go before others have come. */
static void unit_names (void)
{
    static peer_t ring[RING];
    static size_t at;
    peer_t *peer = &ring[at++ % RING];
    const char *name = at % 2 ? "named-client" : "named-worker";
    peer_close (peer);
    memset (peer, 0, sizeof *peer);
    peer->socket = new_socket (user);
    zmq_setsockopt (peer->socket, ZMQ_ROUTING_ID, name, strlen (name));
    void *monitor = zqb__monitor_open (ctx, peer->socket, ZQB__EVENT_THERE);
    peer_connect (peer);
    begin (peer->life);
    request (peer, 0, 1, "ping");
    send_message (peer);
    heard.let_in += (uint64_t) event_comes (peer->socket, monitor, ZQB__EVENT_THERE);
    for (size_t i = 0; i < RING; i++)
        hear (&ring[i]);
}

static void unit_ready (void)
{
    begin (worker.life);
    for (int i = 0; i < 4; i++) {
        command (READY, 0, 0, evil, NULL, 0);
        command (DISCONNECT, 0, 0, NULL, NULL, 0);
    }
    command (READY, 0, 0, "echo", NULL, 0);
    send_message (&worker);
}

static void unit_denied (void)
{
    begin (client.life);
    for (int i = 0; i < 4; i++)
        request (&client, 0, client.asked + 1, i % 2 ? "named" : "mmi.stats");
    send_message (&client);
}

/* One of each: no header, no command, an unknown one in that direction, frames missing, a bad name. */
static void unit_bad (void)
{
    zmq_send (client.socket, "what", 4, 0);
    begin (client.life);
    send_message (&client);
    zmq_send (client.socket, "MDPC02", 6, ZMQ_SNDMORE);
    zmq_send (client.socket, "\7", 1, ZMQ_SNDMORE);
    zmq_send (client.socket, "ping", 4, 0);
    begin (client.life);
    command (REQUEST, 0, 1, "ping", "body", 4);
    zqb__put_32 (message + 12, UINT32_MAX);
    send_message (&client);
    zmq_send (client.socket, "MDPC02", 6, ZMQ_SNDMORE);
    zmq_send (client.socket, "\1", 1, ZMQ_SNDMORE);
    zmq_send (client.socket, "", 0, ZMQ_SNDMORE);
    zmq_send (client.socket, "body", 4, 0);
}

/* One who has a key that nobody knows, and three who say nothing and go. */
static void unit_connect (void)
{
    peer_t peer;
    memset (&peer, 0, sizeof peer);
    peer.socket = new_socket (NULL);
    void *monitor = zqb__monitor_open (ctx, peer.socket, ZQB__EVENT_DENIED);
    peer_connect (&peer);
    for (int i = 0; i < 3; i++) {
        int file = tcp_open ();
        if (file >= 0)
            tcp_reset (file);
    }
    heard.turned_away += (uint64_t) event_comes (peer.socket, monitor, ZQB__EVENT_DENIED);
    peer_close (&peer);
}

/* Nothing, half a greeting, a greeting and no more. */
static int half_open[HALF_OPEN_MOST];
static size_t half_open_count, half_open_most;

/* The broker, which has as many descriptors as we, is left half of them. */
static void open_half_open (void)
{
    struct rlimit descriptors;
    if (getrlimit (RLIMIT_NOFILE, &descriptors) != 0)
        fail ("descriptors");
    half_open_most = descriptors.rlim_cur / 2 < HALF_OPEN_MOST ? (size_t) descriptors.rlim_cur / 2 : HALF_OPEN_MOST;
}

static void unit_half_open (void)
{
    static const size_t parts[] = { 0, 32, 64 };
    int file = half_open_count < half_open_most ? tcp_open () : -1;
    if (file < 0)
        return;
    tcp_send (file, greeting, parts[half_open_count % 3]);
    half_open[half_open_count++] = file;
    page_set (&page->half_open, half_open_count);
}

static void rest_half_open (void)
{
    while (half_open_count)
        tcp_reset (half_open[--half_open_count]);
    page_set (&page->half_open, 0);
}

/* A frame that is larger than any may be: the connection ends. */
static void send_huge (void)
{
    static unsigned char huge[2 << 20];
    peer_t peer;
    memset (&peer, 0, sizeof peer);
    peer.socket = new_socket (user);
    void *monitor = zqb__monitor_open (ctx, peer.socket, ZMQ_EVENT_DISCONNECTED);
    peer_connect (&peer);
    zmq_send (peer.socket, huge, sizeof huge, 0);
    heard.closed += (uint64_t) event_comes (peer.socket, monitor, ZMQ_EVENT_DISCONNECTED);
    peer_close (&peer);
}

/* Before any handshake, a frame that says it has 2^63 bytes, or one byte less than none. */
static void send_endless (uint64_t size)
{
    unsigned char head[9] = { 6 };
    int file = tcp_open ();
    if (file < 0)
        return;
    zqb__put_64 (head + 1, size);
    tcp_send (file, greeting, sizeof greeting);
    tcp_send (file, head, sizeof head);
    heard.closed += (uint64_t) tcp_is_closed (file);
    close (file);
}

static void send_many_frames (void)
{
    zmq_send (client.socket, "MDPC02", 6, ZMQ_SNDMORE);
    zmq_send (client.socket, "\1", 1, ZMQ_SNDMORE);
    zmq_send (client.socket, "ping", 4, ZMQ_SNDMORE);
    for (int i = 0; i < 1000; i++)
        zmq_send (client.socket, "", 0, ZMQ_SNDMORE);
    zmq_send (client.socket, "", 0, 0);
}

static void unit_huge (void)
{
    static unsigned char large[70000];
    begin (client.life);
    command (REQUEST, 0, ++client.asked, "ping", large, sizeof large);
    send_message (&client);
    send_many_frames ();
    send_endless ((uint64_t) 1 << 63);
    send_endless (UINT64_MAX);
    send_huge ();
}

/* Asks for much, and does not read. */
static void open_slow (void)
{
    int one = 1, small = 4096;
    memset (&client, 0, sizeof client);
    client.socket = new_socket (user);
    zmq_setsockopt (client.socket, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt (client.socket, ZMQ_RCVBUF, &small, sizeof small);
    peer_connect (&client);
}

/* A new connection: that of one who has not read for three seconds is ended by TCP. */
static void reopen_slow (void)
{
    peer_close (&client);
    open_slow ();
}

static void unit_slow (void)
{
    begin (client.life);
    request (&client, 0, client.asked + 1, "big");
    send_message (&client);
}

/* What a good client (good1) has sent to the broker: it connects through us, once, when we start. */
static unsigned char tape[1 << 16];
static size_t tape_size;

static int accept_one (void)
{
    struct sockaddr_in where;
    socklen_t size = sizeof where;
    int listener = socket (AF_INET, SOCK_STREAM, 0);
    memset (&where, 0, sizeof where);
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    if (listener < 0 || bind (listener, (struct sockaddr *) &where, sizeof where) != 0 || listen (listener, 1) != 0
        || getsockname (listener, (struct sockaddr *) &where, &size) != 0)
        fail ("listen");
    printf ("record tcp://127.0.0.1:%d\n", ntohs (where.sin_port));
    fflush (stdout);
    int file = accept (listener, NULL, NULL);
    close (listener);
    if (file < 0)
        fail ("accept");
    return file;
}

/* Until the client goes. */
static void open_tape (void)
{
    unsigned char bytes[4096];
    struct pollfd items[2];
    ssize_t size = 1;
    items[0].fd = accept_one ();
    items[1].fd = tcp_open ();
    items[0].events = items[1].events = POLLIN;
    while (size > 0 && poll (items, 2, -1) > 0)
        for (int i = 0; i < 2 && size > 0; i++) {
            if (!items[i].revents)
                continue;
            size = recv (items[i].fd, bytes, sizeof bytes, 0);
            if (size > 0)
                tcp_send (items[1 - i].fd, bytes, (size_t) size);
            if (size > 0 && i == 0 && tape_size + (size_t) size <= sizeof tape) {
                memcpy (tape + tape_size, bytes, (size_t) size);
                tape_size += (size_t) size;
            }
        }
    close (items[0].fd);
    close (items[1].fd);
}

/* All of it again. Nothing comes of it but the end of the connection. */
static void unit_tape (void)
{
    int file = tcp_open ();
    if (file < 0)
        return;
    tcp_send (file, tape, tape_size);
    heard.closed += (uint64_t) tcp_is_closed (file);
    close (file);
}

/* A request that a good worker has in hand. */
static void open_more (void)
{
    open_client ();
    begin (client.life);
    request (&client, 0, 1, "hold");
    send_message (&client);
}

/* It has read more than there is, again and again. */
static void unit_more (void)
{
    begin (client.life);
    while (message_size < 64000)
        command (MORE, 0, 1, NULL, NULL, 0);
    send_message (&client);
}

static void open_nothing (void)
{
}

/* The place in this table is the number of the user, and in the page. */
static const kind_t kinds[] = {
    { "flood", 20, 300, open_client, unit_flood, NULL },
    { "crowd", 100, 300, open_client, unit_crowd, NULL },
    { "forge", 150, 5000, open_worker, unit_forge, NULL },
    { "stranger", 150, 2000, open_client, unit_stranger, NULL },
    { "again", 25, 200, open_both, unit_again, NULL },
    { "ids", 150, 1000, open_two, unit_ids, NULL },
    { "names", 5, 50, open_nothing, unit_names, NULL },
    { "ready", 50, 500, open_worker, unit_ready, NULL },
    { "denied", 150, 1000, open_client, unit_denied, NULL },
    { "bad", 80, 500, open_client, unit_bad, NULL },
    { "connect", 5, 100, open_nothing, unit_connect, NULL },
    { "half-open", 50, 3000, open_half_open, unit_half_open, rest_half_open },
    { "huge", 5, 30, open_client, unit_huge, NULL },
    { "slow", 5, 1000, open_slow, unit_slow, reopen_slow },
    { "tape", 10, 200, open_tape, unit_tape, NULL },
    { "more", 5, 1000, open_more, unit_more, NULL },
};

/* ---- pace */

static uint64_t all_good (void)
{
    uint64_t sum = 0;
    for (int i = 0; i < CLIENTS; i++)
        sum += page_get (&page->good[i]);
    return sum;
}

static void hear_all (const kind_t *kind)
{
    if (kind->open != open_slow)
        hear (&client);
    hear (&worker);
}

static void do_one (const kind_t *kind, uint64_t *done)
{
    kind->unit ();
    hear_all (kind);
    page_set (done, ++*done);
}

static void attack (const kind_t *kind, uint64_t *done)
{
    uint64_t base = all_good (), before = *done;
    while (page_get (&page->phase) == ATTACK) {
        if (*done - before < (all_good () - base) * kind->share / 100000)
            do_one (kind, done);
        else
            nap_ms (2);
    }
}

static void storm (const kind_t *kind, uint64_t *done)
{
    uint64_t end = *done + kind->storm, refused = heard.refused;
    if (kind->rest)
        kind->rest ();
    while (*done < end || (kind->unit == unit_flood && heard.refused == refused && *done < 100 * end))
        do_one (kind, done);
}

/* Nothing is sent until the next phase, but what comes is read. */
static void rest (const kind_t *kind, uint64_t phase, uint64_t *told)
{
    if (kind->open != open_slow)
        sync_with_broker (&client);
    sync_with_broker (&worker);
    if (kind->rest && phase == QUIET)
        kind->rest ();
    page_set (told, phase + 1);
    while (page_get (&page->phase) == phase) {
        hear_all (kind);
        nap_ms (5);
    }
}

static void run (const kind_t *kind)
{
    size_t place = (size_t) (kind - kinds);
    snprintf (user, sizeof user, "m.%zu", place);
    snprintf (evil, sizeof evil, "evil.%zu", place);
    random_state = place << 32;
    kind->open ();
    printf ("ready\n");
    fflush (stdout);
    for (uint64_t phase; (phase = page_get (&page->phase)) < OVER;) {
        if (phase == ATTACK)
            attack (kind, &page->done[place]);
        if (phase == STORM)
            storm (kind, &page->done[place]);
        if (phase != ATTACK)
            rest (kind, phase, &page->rests[place]);
    }
#define TOLD(name) (unsigned long long) heard.name
    printf ("units=%llu received=%llu foreign=%llu replies=%llu refused=%llu closed=%llu let_in=%llu "
            "turned_away=%llu\n",
            (unsigned long long) page->done[place], TOLD (received), TOLD (foreign), TOLD (replies), TOLD (refused),
            TOLD (closed), TOLD (let_in), TOLD (turned_away));
    fflush (stdout);
}

int main (int argc, char **argv)
{
    die_with_parent ();
    if (argc == 2 && strcmp (argv[1], "kinds") == 0) {
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
            printf ("%s\n", kinds[i].name);
        return 0;
    }
    for (size_t i = 0; argc == 5 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp (argv[1], kinds[i].name) == 0) {
            ctx = zmq_ctx_new ();
            folder = argv[2];
            page_open (argv[3]);
            endpoint = argv[4];
            run (&kinds[i]);
            _exit (0); /* sockets that nobody reads are not waited for */
        }
    fprintf (stderr, "usage: see tests/chaos/hostile.c\n");
    return 2;
}
