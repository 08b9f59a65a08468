/*  A world without sockets, clocks and chance: what zqbroker.h calls of libzmq and of the system is played here, so that
    whole brokers, workers and clients run through their own loops thousands of times a second, the same way each time.
    Messages of libzmq are its own; sockets are queues, into which a script puts what peers send. Time passes when the
    script, or somebody who waits, says so. Sends, sockets and memory fail when the script wants it.

    Defines ZQBROKER_IMPLEMENTATION and includes zqbroker.h. */

#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif
#include <time.h>
#include <unistd.h>

typedef struct parcel_t { /* a message on its way */
    frames_t frames;
    int connection;
    const char *user; /* who sends it, or NULL */
    struct parcel_t *next;
} parcel_t;

typedef struct socket_t {
    struct socket_t *next; /* of all */
    int type, fd;
    int monitor_events;       /* 0: nobody watches it */
    struct socket_t *monitor; /* who does */
    char name[96];            /* that it connects to, or under which its monitor is found */
    parcel_t *first, *last;   /* what came in */
    size_t taken;             /* how many frames of the first */
    frames_t out;             /* a message that is being sent */
} socket_t;

typedef struct file_t { /* the only one that there is, under any name */
    const uint8_t *bytes;
    size_t size, told; /* how many bytes there are, and how many fstat tells */
    size_t piece;      /* so many come at once */
    size_t taken;      /* so many were read since it was opened last */
    mode_t mode;
    uid_t owner;
    int error;         /* of open; 0: it can be opened */
    int opened;        /* how often it is open */
} file_t;

static struct {
    uint64_t now; /* microseconds */
    uint64_t dice;
    uint64_t looks; /* how often somebody looked for something to do */
    socket_t *sockets;
    int sockets_made;
    const char *speaks;   /* the user who sends what is delivered now */
    int more, connection; /* of the frame that was received last */
    const char *user;
    int64_t memory_alive;
    unsigned memory_holds, memory_fails; /* so many allocations will succeed, then so many fail; 0, 0: all succeed */
    unsigned failed;
    unsigned sockets_fail, connects_fail; /* so many of the next */
    unsigned interrupts;   /* so many of the next calls that wait */
    file_t *file;          /* NULL: none is read; what is opened is chance */
    int ended;             /* the context */
    /* Whether this message, of which the first frame is there, can be sent: 0, or an errno. */
    int (*may_send) (socket_t *socket, zmq_msg_t *first);
    /* A message was sent. The frames are closed afterwards. */
    void (*sent) (socket_t *socket, frames_t *frames);
    /* Somebody waits until this time: something may come. Returns 0 if nothing ever will. */
    int (*waits) (uint64_t until);
} world;

/* Whoever never comes to an end is stopped here. */
static void world_look (void)
{
    if (++world.looks > 300000)
        fuzz_broken ("nobody runs in circles");
}

/* ---- memory */

static int world_memory_fails (void)
{
    if (!world.memory_fails)
        return 0;
    if (world.memory_holds) {
        world.memory_holds--;
        return 0;
    }
    world.memory_fails--;
    world.failed++;
    errno = ENOMEM;
    return 1;
}

static void *world_malloc (size_t size)
{
    void *memory = world_memory_fails () ? NULL : fuzz_must (malloc (size));
    world.memory_alive += memory != NULL;
    return memory;
}

/* What grows always moves. */
static void *world_realloc (void *old, size_t size)
{
    if (world_memory_fails ())
        return NULL;
    world.memory_alive += !old;
    return fuzz_must (realloc (old, size));
}

static void world_free (void *memory)
{
    world.memory_alive -= memory != NULL;
    free (memory);
}

static int world_init_size (zmq_msg_t *msg, size_t size)
{
    return size > 33 && world_memory_fails () ? -1 : zmq_msg_init_size (msg, size);
}

/* ---- sockets */

static void *world_socket (int type)
{
    if (world.sockets_fail || world.ended) {
        world.sockets_fail -= world.sockets_fail != 0;
        errno = world.ended ? ETERM : EMFILE;
        return NULL;
    }
    socket_t *socket = (socket_t *) fuzz_must (calloc (1, sizeof *socket));
    socket->type = type;
    socket->fd = 100 + world.sockets_made++;
    socket->next = world.sockets;
    world.sockets = socket;
    return socket;
}

static void world_drop_first (socket_t *socket)
{
    parcel_t *parcel = socket->first;
    socket->first = parcel->next;
    if (!socket->first)
        socket->last = NULL;
    socket->taken = 0;
    frames_close (&parcel->frames);
    free (parcel);
}

static int world_close (void *which)
{
    socket_t *socket = (socket_t *) which, **at = &world.sockets;
    CHECK (socket != NULL, "only sockets are closed");
    for (; *at && *at != socket; at = &(*at)->next)
        (*at)->monitor = (*at)->monitor == socket ? NULL : (*at)->monitor;
    CHECK (*at == socket, "a socket is closed once");
    *at = socket->next;
    for (socket_t *other = socket->next; other; other = other->next)
        other->monitor = other->monitor == socket ? NULL : other->monitor;
    while (socket->first)
        world_drop_first (socket);
    frames_close (&socket->out);
    free (socket);
    return 0;
}

/* Puts a message into a socket; the frames are taken over. */
static void world_deliver (socket_t *socket, frames_t *frames, int connection)
{
    parcel_t *parcel = (parcel_t *) fuzz_must (calloc (1, sizeof *parcel));
    CHECK (frames->count > 0, "a message has frames");
    parcel->frames = *frames;
    parcel->connection = connection;
    parcel->user = world.speaks;
    memset (frames, 0, sizeof *frames);
    *(socket->last ? &socket->last->next : &socket->first) = parcel;
    socket->last = parcel;
}

/* Tells whoever watches a socket of an event. */
static void world_tell (socket_t *socket, int event, int value)
{
    frames_t frames = {NULL, 0, 0};
    uint16_t kind = (uint16_t) event;
    int32_t number = value;
    if (!socket->monitor || !(socket->monitor_events & event))
        return;
    uint8_t *at = frames_add_size (&frames, 6);
    memcpy (at, &kind, sizeof kind);
    memcpy (at + 2, &number, sizeof number);
    frames_add (&frames, "tcp://", 6);
    world_deliver (socket->monitor, &frames, -1);
}

static int world_monitor (void *which, const char *name, int events)
{
    socket_t *socket = (socket_t *) which;
    socket->monitor_events = name ? events : 0;
    socket->monitor = NULL;
    snprintf (socket->name, sizeof socket->name, "%s", name ? name : "");
    return 0;
}

static int world_connect (void *which, const char *endpoint)
{
    socket_t *socket = (socket_t *) which;
    if (world.connects_fail) {
        world.connects_fail--;
        errno = EINVAL;
        return -1;
    }
    for (socket_t *other = world.sockets; other && socket->type == ZMQ_PAIR; other = other->next)
        if (other->monitor_events && strcmp (other->name, endpoint) == 0)
            other->monitor = socket;
    return 0;
}

/* What a socket is told, and the world does not mind. */
static int world_ignore (UNUSED const void *socket, UNUSED const void *what)
{
    return 0;
}

static int world_get (void *which, int option, void *value, size_t *size)
{
    const socket_t *socket = (const socket_t *) which;
    if (option == ZMQ_FD)
        memcpy (value, &socket->fd, sizeof socket->fd);
    else if (*size)
        *(char *) value = 0;
    return 0;
}

static int world_fails (int error)
{
    errno = error;
    return -1;
}

static int world_interrupted (void)
{
    if (!world.interrupts)
        return 0;
    world.interrupts--;
    errno = EINTR;
    return 1;
}

static int world_receive (zmq_msg_t *frame, void *which, int flags)
{
    socket_t *socket = (socket_t *) which;
    world_look ();
    if (!socket)
        return world_fails (ENOTSOCK);
    if (world.ended)
        return world_fails (ETERM);
    if (!flags && !socket->first) { /* it may block for a moment */
        if (world_interrupted ())
            return -1;
        world.now += 10000;
        if (world.waits)
            world.waits (world.now);
    }
    parcel_t *parcel = socket->first;
    if (!parcel)
        return world_fails (EAGAIN);
    zmq_msg_move (frame, &parcel->frames.at[socket->taken++]);
    if (socket->type != ZMQ_PAIR) { /* not what a monitor tells */
        world.connection = parcel->connection;
        world.user = parcel->user;
    }
    world.more = socket->taken < parcel->frames.count;
    if (!world.more)
        world_drop_first (socket);
    return (int) zmq_msg_size (frame);
}

static int world_send (zmq_msg_t *frame, void *which, int flags)
{
    socket_t *socket = (socket_t *) which;
    world_look ();
    if (!socket)
        return world_fails (ENOTSOCK);
    if (world_interrupted ())
        return -1;
    int error = world.ended ? ETERM : socket->out.count == 0 && world.may_send ? world.may_send (socket, frame) : 0;
    if (error)
        return world_fails (error);
    int size = (int) zmq_msg_size (frame);
    zmq_msg_t *to = frames_room (&socket->out);
    zmq_msg_init (to);
    zmq_msg_move (to, frame);
    if (flags & ZMQ_SNDMORE)
        return size;
    frames_t whole = socket->out;
    memset (&socket->out, 0, sizeof socket->out);
    if (world.sent)
        world.sent (socket, &whole);
    frames_close (&whole);
    return size;
}

/* ---- the system */

static int world_clock (struct timespec *now)
{
    world_look ();
    world.now++; /* everything takes time */
    now->tv_sec = (time_t) (world.now / 1000000);
    now->tv_nsec = (long) (world.now % 1000000 * 1000);
    return 0;
}

static int world_readable (struct pollfd *items, nfds_t count)
{
    int ready = 0;
    for (nfds_t i = 0; i < count; i++) {
        items[i].revents = 0;
        for (socket_t *socket = world.sockets; socket; socket = socket->next)
            if (socket->fd == items[i].fd && socket->first)
                items[i].revents = POLLIN;
        ready += items[i].revents != 0;
    }
    return ready;
}

/* What libzmq knows of whoever sent what was received last. */
static const char *world_property (const char *name)
{
    return strcmp (name, "User-Id") == 0 ? world.user : NULL;
}

/* Whoever waits for ever for what will never come is interrupted. */
static int world_poll (struct pollfd *items, nfds_t count, int timeout)
{
    world_look ();
    if (world_interrupted ())
        return -1;
    int ready = world_readable (items, count);
    if (ready || !timeout)
        return ready;
    uint64_t until = timeout < 0 ? UINT64_MAX : world.now + (uint64_t) timeout * 1000;
    int comes = world.waits ? world.waits (until) : 0;
    if (world_interrupted ())
        return -1;
    ready = world_readable (items, count);
    if (ready)
        return ready;
    if (timeout < 0)
        return comes ? 0 : world_fails (EINTR);
    world.now = until > world.now ? until : world.now;
    return 0;
}

static int world_open (void)
{
    if (!world.file)
        return 0;
    if (world.file->error)
        return world_fails (world.file->error);
    world.file->opened++;
    world.file->taken = 0;
    return 3;
}

static int world_stat (struct stat *info)
{
    CHECK (world.file, "only files are asked what they are");
    memset (info, 0, sizeof *info);
    info->st_mode = world.file->mode;
    info->st_uid = world.file->owner;
    info->st_size = (off_t) world.file->told;
    return 0;
}

static ssize_t world_read_file (file_t *file, void *to, size_t size)
{
    size_t left = file->size - file->taken;
    if (world_interrupted ())
        return -1;
    size = size > left ? left : size;
    size = size > file->piece ? file->piece : size;
    if (size)
        memcpy (to, file->bytes + file->taken, size);
    file->taken += size;
    return (ssize_t) size;
}

static ssize_t world_read (int fd, void *to, size_t size)
{
    (void) fd;
    if (world.file)
        return world_read_file (world.file, to, size);
    for (size_t i = 0; i < size; i++) {
        world.dice = world.dice * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *) to)[i] = (uint8_t) (world.dice >> 56);
    }
    return (ssize_t) size;
}

static int world_forget (UNUSED int fd)
{
    return 0;
}

static int world_shut (UNUSED int fd)
{
    if (world.file)
        world.file->opened--;
    return 0;
}

static int world_pipe (int ends[2])
{
    ends[0] = 1;
    ends[1] = 2;
    return 0;
}

/* ---- life and death of the world */

static void world_begin (void)
{
    memset (&world, 0, sizeof world);
    world.now = 1000000000;
    frames_alive = 0;
}

static void world_end (void)
{
    CHECK (!world.sockets, "all sockets are closed");
    CHECK (world.memory_alive == 0, "all memory is given back");
    CHECK (frames_alive == 0, "all frames are closed");
}

UNUSED static socket_t *world_find (int type)
{
    socket_t *socket = world.sockets;
    while (socket && socket->type != type)
        socket = socket->next;
    return socket;
}

#define zmq_socket(ctx, type) ((void) (ctx), world_socket (type))
#define zmq_close(socket) world_close (socket)
#define zmq_connect(socket, endpoint) world_connect (socket, endpoint)
#define zmq_bind(socket, endpoint) world_ignore (socket, endpoint)
#define zmq_unbind(socket, endpoint) world_ignore (socket, endpoint)
#define zmq_setsockopt(socket, option, value, size) world_ignore (socket, (option) ? (value) : NULL)
#define zmq_getsockopt(socket, option, value, size) world_get (socket, option, value, size)
#define zmq_socket_monitor(socket, name, events) world_monitor (socket, name, events)
#define zmq_msg_recv(frame, socket, flags) world_receive (frame, socket, flags)
#define zmq_msg_send(frame, socket, flags) world_send (frame, socket, flags)
#define zmq_msg_more(frame) ((void) (frame), world.more)
#define zmq_msg_get(frame, property) ((void) (frame), world.connection)
#define zmq_msg_gets(frame, name) ((void) (frame), world_property (name))
#define zmq_msg_init_size(frame, size) world_init_size (frame, size)
#define clock_gettime(id, now) world_clock (now)
#define poll(items, count, timeout) world_poll (items, count, timeout)
#define pipe(ends) world_pipe (ends)
#define eventfd(value, flags) ((void) (value), (void) (flags), 1)
#define fcntl(fd, what, how) world_forget (fd)
#define open(path, flags) ((void) (path), world_open ())
#define close(fd) world_shut (fd)
#define fstat(fd, info) ((void) (fd), world_stat (info))
#define read(fd, to, size) world_read (fd, to, size)
#define write(fd, from, size) ((void) (fd), (ssize_t) (size))
#ifndef ZQB_MALLOC
#define ZQB_MALLOC(size) world_malloc (size)
#define ZQB_REALLOC(pointer, size) world_realloc (pointer, size)
#define ZQB_FREE(pointer) world_free (pointer)
#endif

#define ZQBROKER_STATIC
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"

/* A message that should not have been sent, for whoever looks for the reason. */
static void world_show (const frames_t *frames)
{
    for (size_t i = 0; i < frames->count; i++) {
        const uint8_t *at = (const uint8_t *) zmq_msg_data (&frames->at[i]);
        fprintf (stderr, "fuzz: sent %u:", (unsigned) zmq_msg_size (&frames->at[i]));
        for (size_t j = 0; j < zmq_msg_size (&frames->at[i]) && j < 64; j++)
            fprintf (stderr, " %02x", at[j]);
        fprintf (stderr, "\n");
    }
}

/* Reads a message of ours as whoever gets it would; what it says must be well-formed. Each command is told to see. */
UNUSED static void world_listen (int place, frames_t *frames, void (*see) (const zqb__command_t *command, void *arg),
                                 void *arg)
{
    unsigned holds = world.memory_holds, fails = world.memory_fails;
    zqb__parcel_t scratch;
    zqb__incoming_t in;
    zqb__command_t command;
    int more;
    world.memory_holds = world.memory_fails = 0;
    memset (&scratch, 0, sizeof scratch);
    int opened = zqb__wire_open (&in, place, frames->at, frames->count, &scratch);
    if (opened != 0)
        world_show (frames);
    CHECK (opened == 0, "what we send has a header");
    more = opened;
    while (!opened && (more = zqb__wire_next (&in, &command)) == 1)
        if (see)
            see (&command, arg);
    if (more != 0)
        world_show (frames);
    CHECK (more == 0, "what we send is well-formed");
    zqb__parcel_close (&scratch);
    world.memory_holds = holds;
    world.memory_fails = fails;
}

#endif
