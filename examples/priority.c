/*  priority.c - urgent work overtakes, and ageing sees to it that the rest is not forgotten

    First, jobs of three priorities are queued before there is a worker, and then done one by one.

    Then alarms never end: whenever one is dealt with, the next is there already. A report of the
    lowest priority waits behind them for ever, if priority is all that counts. With `ageing_ms` it
    rises by one priority for each 20 ms that it has waited, until it is its turn.

    Broker, client and worker are in one process and talk over inproc; nothing else would change
    over tcp.

    Build   cc -o priority examples/priority.c -I. -lzmq
    Run     ./priority
    Prints  asked: report 1, report 2, letter 1, letter 2, alarm 1, alarm 2
            done:  alarm 1, alarm 2, letter 1, letter 2, report 1, report 2
            behind alarms without end, without ageing: the report was not done
            behind alarms without end, with ageing: the report was done
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ENDPOINT "inproc://office"
#define SERVICE "office"

enum { AGEING_MS = 20, ALARM_MS = 5, PATIENCE = 50 /* alarms */ };

/* Client and worker are used by the same thread, by turns. */
typedef struct office_t {
    void *ctx;
    int ageing_ms;
    zqb_broker_t *broker;
    zqb_client_t *client;
    zqb_worker_t *worker;
    uint64_t asked;
} office_t;

static int failed (const char *what)
{
    fprintf (stderr, "priority: %s: %s\n", what, zqb_strerror (errno));
    return -1;
}

/* ---- asking ---- */

static int ask (office_t *office, const char *what, int priority)
{
    zqb_request_options_t options = { 0 };
    zqb_msg_t request;
    int rc;

    options.priority = priority;
    zqb_msg_init (&request);
    rc = zqb_msg_add_str (&request, what);
    if (rc == 0)
        rc = zqb_client_submit_with (office->client, SERVICE, &options, &request, NULL);
    if (rc == 0)
        office->asked++;
    zqb_msg_close (&request);
    return rc;
}

/* Waits until the broker has all that was asked, so that what is done next is its choice alone. */
static int settle (office_t *office)
{
    zqb_stats_t stats = { 0 };

    if (zqb_client_flush (office->client) == -1)
        return -1;
    while (stats.accepted < office->asked) {
        zmq_poll (NULL, 0, 1);
        zqb_broker_stats (office->broker, &stats);
    }
    return 0;
}

/* ---- doing: a worker that takes one at a time ---- */

static int hire (office_t *office)
{
    zqb_worker_options_t options = { 0 };

    options.credit = 1;
    office->worker = zqb_worker_new (office->ctx, ENDPOINT, SERVICE, &options);
    return office->worker != NULL ? 0 : -1;
}

static int is (zqb_request_t *request, const char *what)
{
    zqb_msg_t *body = zqb_request_body (request);

    return zqb_msg_size (body, 0) == strlen (what)
           && memcmp (zqb_msg_data (body, 0), what, strlen (what)) == 0;
}

/* Releases the request. */
static int done (zqb_request_t *request)
{
    zqb_msg_t reply;
    int rc;

    zqb_msg_init (&reply);
    rc = zqb_request_reply (request, &reply);
    zqb_msg_close (&reply);
    return rc;
}

/* ---- a day with an end ---- */

static int ask_all (office_t *office)
{
    static const struct {
        const char *what;
        int priority;
    } jobs[] = { { "report 1", ZQB_PRIORITY_LOWEST }, { "report 2", ZQB_PRIORITY_LOWEST },
                 { "letter 1", 0 }, { "letter 2", 0 },
                 { "alarm 1", ZQB_PRIORITY_HIGHEST }, { "alarm 2", ZQB_PRIORITY_HIGHEST } };

    printf ("asked:");
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        if (ask (office, jobs[i].what, jobs[i].priority) == -1)
            return -1;
        printf ("%s %s", i > 0 ? "," : "", jobs[i].what);
    }
    printf ("\n");
    return settle (office);
}

static int do_all (office_t *office)
{
    printf ("done: ");
    for (uint64_t i = 0; i < office->asked; i++) {
        zqb_request_t *request = zqb_worker_recv (office->worker, -1);
        if (request == NULL)
            return -1;
        printf ("%s %.*s", i > 0 ? "," : "", (int) zqb_msg_size (zqb_request_body (request), 0),
                (char *) zqb_msg_data (zqb_request_body (request), 0));
        if (done (request) == -1)
            return -1;
    }
    printf ("\n");
    return 0;
}

static int quiet_day (office_t *office)
{
    if (ask_all (office) == -1 || hire (office) == -1 || do_all (office) == -1)
        return failed ("a quiet day");
    return 0;
}

/* ---- a day without one ---- */

/* The next alarm is there before this one is dealt with. */
static int deal_with (office_t *office, zqb_request_t *alarm)
{
    if (ask (office, "alarm", ZQB_PRIORITY_HIGHEST) == -1 || settle (office) == -1)
        return -1;
    zmq_poll (NULL, 0, ALARM_MS);
    return done (alarm);
}

/* Until the report is done: 1; or after so many alarms (0: however many): 0; or -1. */
static int do_until_report (office_t *office, int patience)
{
    for (int alarms = 0; patience == 0 || alarms < patience; alarms++) {
        zqb_request_t *request = zqb_worker_recv (office->worker, -1);
        if (request == NULL)
            return -1;
        if (is (request, "report"))
            return done (request) == 0 ? 1 : -1;
        if (deal_with (office, request) == -1)
            return -1;
    }
    return 0;
}

static int busy_day (office_t *office)
{
    int rc = -1;

    if (ask (office, "report", ZQB_PRIORITY_LOWEST) == 0
        && ask (office, "alarm", ZQB_PRIORITY_HIGHEST) == 0 && settle (office) == 0
        && hire (office) == 0)
        rc = do_until_report (office, office->ageing_ms > 0 ? 0 : PATIENCE);
    if (rc == -1)
        return failed ("a busy day");
    printf ("behind alarms without end, %s ageing: the report was %s\n",
            office->ageing_ms > 0 ? "with" : "without", rc == 1 ? "done" : "not done");
    return 0;
}

/* ---- the process ---- */

typedef int (day_fn) (office_t *office);

static int open_office (office_t *office)
{
    zqb_broker_options_t options = { 0 };

    options.ageing_ms = office->ageing_ms;
    office->broker = zqb_broker_new (office->ctx, &options);
    if (office->broker == NULL || zqb_broker_bind (office->broker, ENDPOINT) == -1
        || zqb_broker_start (office->broker) == -1)
        return failed ("broker");
    office->client = zqb_client_new (office->ctx, ENDPOINT, NULL);
    return office->client != NULL ? 0 : failed ("client");
}

static int run (day_fn *day, int ageing_ms)
{
    office_t office = { 0 };
    int rc;

    office.ctx = zmq_ctx_new ();
    office.ageing_ms = ageing_ms;
    rc = open_office (&office);
    if (rc == 0)
        rc = day (&office);
    zqb_worker_destroy (&office.worker);
    zqb_client_destroy (&office.client);
    zqb_broker_destroy (&office.broker);
    zmq_ctx_term (office.ctx);
    return rc;
}

int main (void)
{
    if (run (quiet_day, 0) == -1 || run (busy_day, 0) == -1 || run (busy_day, AGEING_MS) == -1)
        return 1;
    return 0;
}
