/*  subject_redis.c - Redis lists as queues, through hiredis: many values in one RPUSH, many in one BLMPOP, and both in
    one write. A worker pushes the reply to the list of the client whose number is in the body. */

#include "bench.h"

#ifdef BENCH_REDIS

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 1024 };

typedef struct push_t { /* RPUSH key value... in the making */
    int count;
    const char *argv[MAX_VALUES + 2];
    size_t sizes[MAX_VALUES + 2];
} push_t;

static void push_begin (push_t *push, const char *key)
{
    push->argv[0] = "RPUSH";
    push->sizes[0] = 5;
    push->argv[1] = key;
    push->sizes[1] = strlen (key);
    push->count = 0;
}

static void push_value (push_t *push, const char *data, size_t size)
{
    push->argv[2 + push->count] = data;
    push->sizes[2 + push->count] = size;
    push->count++;
}

static redisContext *redis_connect (int port)
{
    redisContext *redis = redisConnect ("127.0.0.1", port);
    MUST (redis != NULL && redis->err == 0);
    return redis;
}

static void redis_pop (redisContext *redis, const char *key, int count)
{
    redisAppendCommand (redis, "BLMPOP 5 1 %s LEFT COUNT %d", key, count);
}

static redisReply *redis_next (redisContext *redis)
{
    void *reply = NULL;
    if (redisGetReply (redis, &reply) != REDIS_OK)
        fail ("redis: %s", redis->errstr);
    if (((redisReply *) reply)->type == REDIS_REPLY_ERROR)
        fail ("redis says %s", ((redisReply *) reply)->str);
    return (redisReply *) reply;
}

/* Of a reply to BLMPOP: [key, [value...]], or nil after its timeout. */
static size_t redis_values (redisReply *reply, redisReply ***values)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        return 0;
    *values = reply->element[1]->element;
    return reply->element[1]->elements;
}

static const char *const reply_lists[MAX_CLIENTS] = {"reply0", "reply1", "reply2", "reply3"};

/* Returns how many pushes were sent. */
static int push_replies (redisContext *redis, push_t *pushes, redisReply **values, size_t count)
{
    int pushed = 0;
    for (int i = 0; i < MAX_CLIENTS; i++)
        push_begin (&pushes[i], reply_lists[i]);
    for (size_t i = 0; i < count; i++)
        push_value (&pushes[values[i]->str[8] % MAX_CLIENTS], values[i]->str, values[i]->len);
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (pushes[i].count > 0) {
            redisAppendCommandArgv (redis, pushes[i].count + 2, pushes[i].argv, pushes[i].sizes);
            pushed++;
        }
    return pushed;
}

static int batch_of (const bench_t *run)
{
    int batch = run->cell.clients * run->cell.outstanding / run->cell.workers;
    return batch < 1 ? 1 : batch > MAX_VALUES ? MAX_VALUES : batch;
}

static void *redis_worker (void *arg)
{
    bench_t *run = ((worker_t *) arg)->run;
    redisContext *redis = redis_connect (run->port);
    push_t *pushes = (push_t *) malloc (MAX_CLIENTS * sizeof *pushes);
    MUST (pushes != NULL);
    redis_pop (redis, "requests", batch_of (run));
    for (;;) {
        redisReply *reply = redis_next (redis), **values = NULL;
        size_t count = redis_values (reply, &values);
        int pushed = push_replies (redis, pushes, values, count);
        redis_pop (redis, "requests", batch_of (run));
        freeReplyObject (reply);
        while (pushed-- > 0)
            freeReplyObject (redis_next (redis));
    }
    return NULL;
}

static void redis_client (bench_t *run, int index)
{
    redisContext *redis = redis_connect (run->port);
    int window = run->cell.outstanding, free_slots = window;
    push_t *push = (push_t *) malloc (sizeof *push);
    char *bodies = (char *) malloc ((size_t) window * run->cell.body);
    MUST (push != NULL && bodies != NULL);
    for (int i = 0; i < window; i++)
        bench_fill (run, bodies + (size_t) i * run->cell.body);

    while (!bench_over ()) {
        push_begin (push, "requests");
        for (; free_slots > 0; free_slots--) {
            char *body = bodies + (size_t) (free_slots - 1) * run->cell.body;
            bench_stamp (index, body);
            push_value (push, body, run->cell.body);
        }
        redisAppendCommandArgv (redis, push->count + 2, push->argv, push->sizes);
        redis_pop (redis, reply_lists[index], window);
        freeReplyObject (redis_next (redis));
        redisReply *reply = redis_next (redis), **values = NULL;
        size_t count = redis_values (reply, &values);
        if (count == 0)
            fail ("redis: no reply within 5 s");
        for (size_t i = 0; i < count; i++, free_slots++)
            bench_count (index, values[i]->str, values[i]->len);
        freeReplyObject (reply);
    }
}

static void redis_start (bench_t *run)
{
    char port[16];
    run->port = free_port ();
    snprintf (port, sizeof port, "%d", run->port);
    char *argv[] = {(char *) "redis-server", (char *) "--bind", (char *) "127.0.0.1", (char *) "--port", port,
                    (char *) "--save", (char *) "", (char *) "--appendonly", (char *) "no", NULL};
    server_start (argv, run->port);
    bench_start_workers (run, redis_worker);
}

static const char *redis_missing (void)
{
    return program_installed ("redis-server") ? NULL : "redis-server libhiredis-dev";
}

#else

#define redis_start NULL
#define redis_client NULL

static const char *redis_missing (void)
{
    return "redis-server libhiredis-dev";
}

#endif

const subject_t redis_subject = {"redis", ON_TCP, ON_ALL, SIZE_MAX, redis_missing, redis_start, redis_client, NULL};
