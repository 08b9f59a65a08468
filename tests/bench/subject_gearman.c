/*  subject_gearman.c - gearmand through libgearman, which runs a whole window of tasks and then the next one */

#include "bench.h"

#ifdef BENCH_GEARMAN

#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gearman_return_t echo_job (gearman_job_st *job, void *context)
{
    (void) context;
    return gearman_job_send_complete (job, gearman_job_workload (job), gearman_job_workload_size (job));
}

static void *gearman_worker (void *arg)
{
    bench_t *run = ((worker_t *) arg)->run;
    gearman_worker_st *worker = gearman_worker_create (NULL);
    MUST (worker != NULL);
    MUST (gearman_success (gearman_worker_add_server (worker, "127.0.0.1", (in_port_t) run->port)));
    gearman_function_t function = gearman_function_create (echo_job);
    MUST (gearman_success (gearman_worker_define_function (worker, "echo", 4, function, 0, NULL)));
    while (gearman_success (gearman_worker_work (worker)))
        ;
    fail ("gearman worker: %s", gearman_worker_error (worker));
}

typedef struct gearman_bench_t {
    int index;
    size_t size;
    char *body;
    gearman_client_st *client;
} gearman_bench_t;

static gearman_return_t task_complete (gearman_task_st *task)
{
    gearman_bench_t *self = (gearman_bench_t *) gearman_task_context (task);
    bench_count (self->index, gearman_task_data (task), gearman_task_data_size (task));
    return GEARMAN_SUCCESS;
}

static void add_task (gearman_bench_t *self)
{
    gearman_return_t rc;
    bench_stamp (self->index, self->body);
    gearman_client_add_task (self->client, NULL, self, "echo", NULL, self->body, self->size, &rc);
    if (gearman_failed (rc))
        fail ("gearman client: %s", gearman_client_error (self->client));
}

static void gearman_client (bench_t *run, int index)
{
    gearman_bench_t self = {index, run->cell.body, (char *) malloc (run->cell.body), gearman_client_create (NULL)};
    MUST (self.body != NULL && self.client != NULL);
    bench_fill (run, self.body);
    MUST (gearman_success (gearman_client_add_server (self.client, "127.0.0.1", (in_port_t) run->port)));
    gearman_client_set_complete_fn (self.client, task_complete);
    gearman_client_add_options (self.client, GEARMAN_CLIENT_FREE_TASKS);
    while (!bench_over ()) {
        for (int i = 0; i < run->cell.outstanding; i++)
            add_task (&self);
        if (gearman_failed (gearman_client_run_tasks (self.client)))
            fail ("gearman client: %s", gearman_client_error (self.client));
    }
}

static void gearman_start (bench_t *run)
{
    char port[16];
    run->port = free_port ();
    snprintf (port, sizeof port, "%d", run->port);
    char *argv[] = {(char *) "gearmand", (char *) "-L", (char *) "127.0.0.1", (char *) "-p", port,
                    (char *) "-l", (char *) "none", (char *) "-u", (char *) "root", NULL};
    server_start (argv, run->port);
    bench_start_workers (run, gearman_worker);
}

static const char *gearman_missing (void)
{
    return program_installed ("gearmand") ? NULL : "gearman-job-server libgearman-dev";
}

#else

#define gearman_start NULL
#define gearman_client NULL

static const char *gearman_missing (void)
{
    return "gearman-job-server libgearman-dev";
}

#endif

const subject_t gearman_subject = {
    "gearmand", ON_TCP, ON_ALL, 10, gearman_missing, gearman_start, gearman_client, NULL};
