/*  balance.c - workers of unequal speed: who gets what, and how long does it take?
    First the comparison that every article on load balancing draws: no broker, round robin, LRU. Then whether workers that
    hold several requests at once (credit) cost any of the balance. The work is sleep, so that cores do not matter. */

#include "run.h"
#include "subject_zqb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int unequal_us[MAX_WORKERS] = {1000, 1000, 1000, 1000, 2000, 4000, 8000, 16000};
static const int slow_unequal_us[MAX_WORKERS] = {5000, 5000, 10000, 10000, 10000, 20000, 20000, 40000};
static const int slow_equal_us[MAX_WORKERS] = {10000, 10000, 10000, 10000, 10000, 10000, 10000, 10000};

static bool quick;
static FILE *results;
static char folder[] = "/tmp/zqb-balance-XXXXXX";

typedef struct balance_task_t {
    task_t task; /* first: what measure() takes */
    const int *work_us;
    int requests;
} balance_task_t;

static balance_task_t task_for (const subject_t *subject, const int *work_us, int outstanding)
{
    balance_task_t task;
    memset (&task, 0, sizeof task);
    task.task.subject = subject;
    task.task.cell.transport = INPROC;
    task.task.cell.clients = 1;
    task.task.cell.outstanding = outstanding;
    task.task.cell.workers = MAX_WORKERS;
    task.task.cell.body = 10;
    task.task.folder = folder;
    task.work_us = work_us;
    return task;
}

static subject_t with_credit (const char *name, const ours_t *credit)
{
    subject_t subject = zqb1_subject;
    subject.name = name;
    subject.variant = credit;
    return subject;
}

static const ours_t credit_default = {.credit = 0}, credit_1 = {.credit = 1}, credit_100 = {.credit = 100};

/* ================================================================================================================
   >>a steady load: one client that keeps 32 requests outstanding
   ================================================================================================================ */

static void measure_steady (const void *given, void *figures)
{
    const balance_task_t *task = (const balance_task_t *) given;
    bench_work_us = task->work_us;
    measure (&task->task, figures);
}

static void report_steady (const subject_t *subject, const char *text)
{
    balance_task_t task = task_for (subject, unequal_us, 32);
    task.task.warm_up_ms = quick ? 100 : 500;
    task.task.window_ms = quick ? 500 : 2000;
    figures_t figures;
    const char *error = in_child (measure_steady, &task, &figures, sizeof figures, 20000);
    if (error != NULL)
        printf ("    %-34s %s\n", text, error);
    else
        printf ("    %-34s %8.0f requests/s   p50 %8.1f ms   p99 %8.1f ms\n", text, figures.rate, figures.p50_us / 1000,
                figures.p99_us / 1000);
    fprintf (results, "steady\t%s\t%.1f\t%.1f\t%.1f\t\n", subject->name, figures.rate, figures.p50_us, figures.p99_us);
    fflush (NULL);
}

static void report_all_steady (void)
{
    double best = 0;
    for (int i = 0; i < MAX_WORKERS; i++)
        best += 1e6 / unequal_us[i];
    printf ("\n8 workers that take 1, 1, 1, 1, 2, 4, 8 and 16 ms; 32 outstanding; at best %.0f requests/s\n", best);
    subject_t lru = with_credit ("zqb1_credit_1", &credit_1), adaptive = with_credit ("zqb1", &credit_default);
    subject_t fixed = with_credit ("zqb1_credit_100", &credit_100);
    report_steady (&direct_subject, "no broker (the client takes turns)");
    report_steady (&proxy_subject, "zmq_proxy (round robin)");
    report_steady (&lru, "zqbroker, LRU with a credit of 1");
    report_steady (&adaptive, "zqbroker, default credit");
    report_steady (&fixed, "zqbroker, credit fixed at 100");
}

/* ================================================================================================================
   >>a queue to be worked off: the time from the first request to the last reply
   ================================================================================================================ */

static void submit_all (zqb_client_t *client, int requests)
{
    zqb_msg_t body;
    zqb_msg_init (&body);
    for (int i = 0; i < requests; i++) {
        MUST (zqb_msg_add (&body, "0123456789", 10) == 0);
        MUST (zqb_client_submit (client, "echo", &body, NULL) == 0);
    }
}

static void receive_all (zqb_client_t *client, int requests)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    for (int i = 0; i < requests; i++) {
        MUST (zqb_client_recv (client, &reply, 10000) == 0);
        if (reply.kind != ZQB_REPLY_FINAL)
            fail ("a request failed: %s", zqb_strerror (reply.error));
    }
}

static void wait_for_workers (zqb_client_t *client)
{
    zqb_msg_t body;
    zqb_msg_init (&body);
    for (int i = 0; i < 2 * MAX_WORKERS; i++) { /* each has worked once: its speed is known, as in a service that runs */
        MUST (zqb_msg_add (&body, "0123456789", 10) == 0);
        MUST (zqb_client_submit (client, "echo", &body, NULL) == 0);
    }
    receive_all (client, 2 * MAX_WORKERS);
}

static void measure_queue (const void *given, void *seconds)
{
    static bench_t run;
    const balance_task_t *task = (const balance_task_t *) given;
    run.subject = task->task.subject;
    run.cell = task->task.cell;
    run.folder = folder;
    void *ctx = zmq_ctx_new ();
    for (int role = 0; role < ROLES; role++)
        run.contexts[role] = ctx;
    bench_work_us = task->work_us;
    ours_start (&run);
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = 60000;
    zqb_client_t *client = zqb_client_new (ctx, bench_endpoint (&run, "broker"), &options);
    MUST (client != NULL);
    wait_for_workers (client);

    uint64_t begin = now_ns ();
    submit_all (client, task->requests);
    receive_all (client, task->requests);
    *(double *) seconds = (double) (now_ns () - begin) / 1e9;
}

static double run_queue (const char *name, const ours_t *credit, const int *work_us, int requests)
{
    subject_t subject = with_credit (name, credit);
    balance_task_t task = task_for (&subject, work_us, requests);
    task.requests = requests;
    double seconds = 0;
    const char *error = in_child (measure_queue, &task, &seconds, sizeof seconds, 30000);
    if (error != NULL)
        printf ("    %s: %s\n", name, error);
    return seconds;
}

static void write_queue (const char *what, const char *subject, int requests, double seconds)
{
    fprintf (results, "queue of %d, %s\t%s\t%.1f\t\t\t%.3f\n", requests, what, subject,
             seconds > 0 ? requests / seconds : 0, seconds);
    fflush (NULL);
}

static void report_queue (const char *what, const int *work_us, int requests, int rounds)
{
    double with_one[MAX_ROUNDS], with_default[MAX_ROUNDS], ratios[MAX_ROUNDS], best = 0;
    size_t count = 0;
    for (int i = 0; i < MAX_WORKERS; i++)
        best += 1e6 / work_us[i];
    for (int i = 0; i < rounds; i++) {
        with_one[count] = run_queue ("credit 1", &credit_1, work_us, requests);
        with_default[count] = run_queue ("default credit", &credit_default, work_us, requests);
        if (with_one[count] > 0 && with_default[count] > 0) {
            ratios[count] = with_default[count] / with_one[count];
            count++;
        }
    }
    printf ("    %-10s at best %.3f s   credit 1 %.3f s   default credit %.3f s   ratio %.3f\n", what, requests / best,
            median (with_one, count), median (with_default, count), median (ratios, count));
    write_queue (what, "zqb1_credit_1", requests, median (with_one, count));
    write_queue (what, "zqb1", requests, median (with_default, count));
}

int main (int argc, char **argv)
{
    quick = quick_wanted ();
    const char *out = argc > 1 ? argv[1] : "tests/bench/out/balance.tsv";
    results = fopen (out, "w");
    if (results == NULL || mkdtemp (folder) == NULL) {
        perror (out);
        return 1;
    }
    fprintf (results, "what\tsubject\trequests_per_s\tp50_us\tp99_us\tseconds\n");
    report_all_steady ();

    int requests = quick ? 400 : 2000, rounds = quick ? 1 : 3;
    printf ("\n8 workers, %d requests queued: the total time\n", requests);
    report_queue ("10 ms each", slow_equal_us, requests, rounds);
    report_queue ("5 to 40 ms", slow_unequal_us, requests, rounds);
    fclose (results);
    remove_folder (folder);
    return 0;
}
