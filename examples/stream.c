/*  stream.c - a reply that comes in parts: sent as they are found, printed as they come

    Broker, worker and client are threads of one process and talk over inproc; nothing else would
    change over tcp.

    Build   cc -o stream examples/stream.c -I. -lzmq
    Run     ./stream [TEXT]                             default: "to be or not to be"
    Prints  a line for each word, a tenth of a second apart, and then the last part:

            to
            be
            or
            not
            to
            be
            6 words
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#define ENDPOINT "inproc://stream"

/* Sends one word as a part of the reply. */
static int send_word (zqb_request_t *request, const char *word, size_t size)
{
    zqb_msg_t part;
    int rc;

    zqb_msg_init (&part);
    rc = zqb_msg_add (&part, word, size);
    if (rc == 0)
        rc = zqb_request_partial (request, &part);
    zqb_msg_close (&part);
    zmq_poll (NULL, 0, 100); /* so that the parts can be seen to come one by one */
    return rc;
}

/* The size of the word that begins here, 0 if none does. */
static size_t word_size (const char *text, size_t left)
{
    size_t size = 0;

    while (size < left && !isspace ((unsigned char) text[size]))
        size++;
    return size;
}

/* The worker. The parts of its reply are the words of the request, the last is how many. */
static int split (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_msg_t *body = zqb_request_body (request);
    const char *text = (const char *) zqb_msg_data (body, 0);
    size_t size = zqb_msg_size (body, 0), word;
    char total[32];
    int words = 0;

    (void) arg;
    for (size_t at = 0; at < size; at += word + 1) {
        word = word_size (text + at, size - at);
        if (word > 0 && send_word (request, text + at, word) == -1)
            return -1;
        if (word > 0)
            words++;
    }
    snprintf (total, sizeof total, "%d words", words);
    return zqb_msg_add_str (reply, total);
}

/* Prints one part of a reply: returns 1 if more follow, 0 if it was the last, -1 if the request
   failed. */
static int print_part (zqb_client_t *client, zqb_reply_t *reply)
{
    if (zqb_client_recv (client, reply, -1) == -1)
        return -1;
    if (reply->kind == ZQB_REPLY_ERROR) {
        errno = reply->error;
        return -1;
    }
    printf ("%.*s\n", (int) zqb_msg_size (&reply->body, 0),
            (char *) zqb_msg_data (&reply->body, 0));
    fflush (stdout);
    return reply->kind == ZQB_REPLY_PARTIAL;
}

/* The client. It may take long, so that it waits as long as it takes. */
static int ask (void *ctx, const char *text)
{
    zqb_client_options_t options = { 0 };
    zqb_client_t *client;
    zqb_msg_t request;
    zqb_reply_t reply;
    int rc = -1;

    options.timeout_ms = -1;
    client = zqb_client_new (ctx, ENDPOINT, &options);
    zqb_msg_init (&request);
    zqb_msg_init (&reply.body);
    if (client != NULL && zqb_msg_add_str (&request, text) == 0
        && zqb_client_submit (client, "split", &request, NULL) == 0)
        do
            rc = print_part (client, &reply);
        while (rc == 1);
    if (rc == -1)
        fprintf (stderr, "stream: %s\n", zqb_strerror (errno));
    zqb_msg_close (&reply.body);
    zqb_msg_close (&request);
    zqb_client_destroy (&client);
    return rc;
}

int main (int argc, char **argv)
{
    void *ctx = zmq_ctx_new ();
    zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
    zqb_pool_options_t options = { 0 };
    zqb_pool_t *pool = NULL;
    int rc = -1;

    options.threads = 1;
    if (broker != NULL && zqb_broker_bind (broker, ENDPOINT) == 0 && zqb_broker_start (broker) == 0)
        pool = zqb_pool_start (ctx, ENDPOINT, "split", split, NULL, &options);
    if (pool != NULL)
        rc = ask (ctx, argc > 1 ? argv[1] : "to be or not to be");
    else
        fprintf (stderr, "stream: %s\n", zqb_strerror (errno));

    zqb_pool_stop (&pool);
    zqb_broker_destroy (&broker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
