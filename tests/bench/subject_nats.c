/*  subject_nats.c - nats-server with a queue group: the raw protocol, one connection each, all that one pass has in one write */

#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a connection: a buffer each way ---- */

typedef struct nats_t {
    int fd;
    char *in; /* what was read and not yet used: from in_at to in_end */
    size_t in_at, in_end, in_size;
    char *out;
    size_t out_end, out_size;
} nats_t;

static void nats_flush (nats_t *self)
{
    for (size_t at = 0; at < self->out_end;) {
        ssize_t n = write (self->fd, self->out + at, self->out_end - at);
        MUST (n > 0);
        at += (size_t) n;
    }
    self->out_end = 0;
}

static char *nats_room (nats_t *self, size_t size)
{
    if (self->out_end + size > self->out_size) {
        self->out_size = (self->out_end + size) * 2;
        self->out = (char *) realloc (self->out, self->out_size);
        MUST (self->out != NULL);
    }
    return self->out + self->out_end;
}

static void nats_text (nats_t *self, const char *text)
{
    size_t size = strlen (text);
    memcpy (nats_room (self, size), text, size);
    self->out_end += size;
}

/* Returns where the body is to be written: the caller's until the next call. */
static char *nats_publish (nats_t *self, const char *subject, size_t subject_size, const char *reply_to, size_t size)
{
    char *at = nats_room (self, size + subject_size + 64);
    int head = snprintf (at, subject_size + 64, "PUB %.*s %s%s%zu\r\n", (int) subject_size, subject, reply_to,
                         reply_to[0] ? " " : "", size);
    memcpy (at + head + size, "\r\n", 2);
    self->out_end += (size_t) head + size + 2;
    return at + head;
}

static void nats_read (nats_t *self)
{
    memmove (self->in, self->in + self->in_at, self->in_end - self->in_at);
    self->in_end -= self->in_at;
    self->in_at = 0;
    if (self->in_end == self->in_size) {
        self->in_size *= 2;
        self->in = (char *) realloc (self->in, self->in_size);
        MUST (self->in != NULL);
    }
    ssize_t n = read (self->fd, self->in + self->in_end, self->in_size - self->in_end);
    MUST (n > 0);
    self->in_end += (size_t) n;
}

/* ---- what comes ---- */

typedef struct nats_msg_t {
    const char *reply_to;
    size_t reply_to_size;
    const char *body; /* valid until the next nats_read */
    size_t size;
} nats_msg_t;

/* MSG subject sid [reply-to] size, without its end of line */
static void nats_parse (const char *line, const char *end, nats_msg_t *msg)
{
    const char *starts[6] = {line, line, line, line};
    int count = 0;
    for (const char *at = line; at < end && count < 5; at++)
        if (at == line || at[-1] == ' ')
            starts[count++] = at;
    starts[count] = end + 1;
    msg->reply_to = starts[3];
    msg->reply_to_size = count == 5 ? (size_t) (starts[4] - starts[3] - 1) : 0;
    msg->size = strtoul (starts[count - 1], NULL, 10);
}

/* The next message that is there as a whole. Answers PING and skips the rest on the way. */
static bool nats_next (nats_t *self, nats_msg_t *msg, bool *pong)
{
    for (;;) {
        char *line = self->in + self->in_at;
        size_t left = self->in_end - self->in_at;
        char *end = (char *) memchr (line, '\n', left);
        if (end == NULL)
            return false;
        size_t used = (size_t) (end + 1 - line);
        if (memcmp (line, "MSG ", 4) == 0) {
            nats_parse (line, end - 1, msg);
            if (left < used + msg->size + 2)
                return false;
            msg->body = end + 1;
            self->in_at += used + msg->size + 2;
            return true;
        }
        if (memcmp (line, "-ERR", 4) == 0)
            fail ("nats-server says %.*s", (int) used, line);
        if (memcmp (line, "PING", 4) == 0)
            nats_text (self, "PONG\r\n");
        if (memcmp (line, "PONG", 4) == 0)
            *pong = true;
        self->in_at += used;
    }
}

/* Connects, subscribes, and waits until the server has it. */
static void nats_connect (nats_t *self, int port, const char *subscribe)
{
    memset (self, 0, sizeof *self);
    self->in_size = 1 << 20;
    self->in = (char *) malloc (self->in_size);
    self->fd = connect_loopback (port);
    MUST (self->in != NULL && self->fd >= 0);
    nats_text (self, "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false}\r\n");
    nats_text (self, subscribe);
    nats_text (self, "PING\r\n");
    nats_flush (self);
    bool ready = false;
    for (nats_msg_t none; !ready;) {
        nats_read (self);
        nats_next (self, &none, &ready);
    }
    nats_flush (self);
}

/* ---- the subject ---- */

static void *nats_worker (void *arg)
{
    bench_t *run = ((worker_t *) arg)->run;
    nats_t nats;
    nats_connect (&nats, run->port, "SUB echo workers 1\r\n");
    bench_worker_ready (run);
    for (bool pong;;) {
        nats_read (&nats);
        for (nats_msg_t msg; nats_next (&nats, &msg, &pong);)
            memcpy (nats_publish (&nats, msg.reply_to, msg.reply_to_size, "", msg.size), msg.body, msg.size);
        nats_flush (&nats);
    }
    return NULL;
}

static void nats_start (bench_t *run)
{
    char port[16];
    run->port = free_port ();
    snprintf (port, sizeof port, "%d", run->port);
    char *argv[] = {(char *) "nats-server", (char *) "-a", (char *) "127.0.0.1", (char *) "-p", port, NULL};
    server_start (argv, run->port);
    bench_start_workers (run, nats_worker);
    bench_wait_for_workers (run);
}

static void nats_client (bench_t *run, int index)
{
    nats_t nats;
    char inbox[16], subscribe[32];
    snprintf (inbox, sizeof inbox, "inbox%d", index);
    snprintf (subscribe, sizeof subscribe, "SUB %s 1\r\n", inbox);
    nats_connect (&nats, run->port, subscribe);

    char *body = (char *) malloc (run->cell.body);
    MUST (body != NULL);
    bench_fill (run, body);
    int free_slots = run->cell.outstanding;
    for (bool pong; !bench_over ();) {
        for (; free_slots > 0; free_slots--) {
            bench_stamp (index, body);
            memcpy (nats_publish (&nats, "echo", 4, inbox, run->cell.body), body, run->cell.body);
        }
        nats_flush (&nats);
        nats_read (&nats);
        for (nats_msg_t msg; nats_next (&nats, &msg, &pong); free_slots++)
            bench_count (index, msg.body, msg.size);
    }
}

static const char *nats_missing (void)
{
    return program_installed ("nats-server") ? NULL : "nats-server";
}

const subject_t nats_subject = {"nats", ON_TCP, ON_ALL, SIZE_MAX, nats_missing, nats_start, nats_client, NULL};
