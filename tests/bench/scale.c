/*  scale.c - does the cost of a request depend on how much else the broker has to keep? And what does keeping cost? */

#include "run.h"
#include "subject_zqb.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ================================================================================================================
   >>ballast: idle workers, services and queued requests that have nothing to do with what is measured
   ================================================================================================================ */

typedef struct ballast_t {
    ours_t ours; /* first: the variant of a ZQB/1 subject */
    int workers; /* idle, of another service */
    int services; /* others, each with one queued request */
    int queued;   /* requests of one other service that nobody serves */
    int heartbeat_ms;
} ballast_t;

static const ballast_t *ballast_of (const bench_t *run)
{
    return (const ballast_t *) run->subject->variant;
}

/* Always ipc: what is parked comes from another process. */
static const char *parking_endpoint (const bench_t *run)
{
    static char endpoint[64];
    snprintf (endpoint, sizeof endpoint, "ipc://%.40s/parking", run->folder);
    return endpoint;
}

static zqb_broker_t *new_broker (bench_t *run)
{
    zqb_broker_options_t options;
    memset (&options, 0, sizeof options);
    options.heartbeat_ms = ballast_of (run)->heartbeat_ms;
    options.no_worker_ms = -1;
    options.max_services = 200000;
    options.max_requests = 4000000;
    options.max_queue = 4000000;
    options.max_outstanding = 4000000;
    zqb_broker_t *broker = zqb_broker_new (run->contexts[ROLE_BROKER], &options);
    MUST (broker != NULL);
    MUST (zqb_broker_bind (broker, bench_endpoint (run, "broker")) == 0);
    MUST (zqb_broker_bind (broker, parking_endpoint (run)) == 0);
    return broker;
}

/* ---- idle workers: one socket with a connection for each, so that they cost no descriptors; MDP/0.1 ---- */

static void say_for_each (void *socket, int count, const frame_t *frames)
{
    for (int i = 0; i < count; i++) /* a DEALER takes its connections in turn */
        bench_send (socket, frames, NULL);
}

static void *connect_idle_workers (bench_t *run, int count)
{
    static const frame_t ready[] = {{"", 0}, {"MDPW01", 6}, {"\x01", 1}, {"idle", 4}, {NULL, 0}};
    void *socket = bench_socket (run, ROLE_WORKER, ZMQ_DEALER);
    for (int i = 0; i < count; i++)
        MUST (zmq_connect (socket, bench_endpoint (run, "broker")) == 0);
    say_for_each (socket, count, ready);
    return socket;
}

/* ---- queued requests: a client in a process of its own, so that its memory is not taken for the broker's ---- */

static void park_one (zqb_client_t *client, const char *service)
{
    zqb_msg_t body;
    zqb_msg_init (&body);
    MUST (zqb_msg_add (&body, "0123456789", 10) == 0);
    while (zqb_client_submit (client, service, &body, NULL) != 0) {
        MUST (errno == EAGAIN);
        zqb_client_flush (client);
        sleep_ns (1000000);
    }
}

static void park (const ballast_t *ballast, const char *endpoint)
{
    zqb_client_options_t options;
    memset (&options, 0, sizeof options);
    options.timeout_ms = -1;
    options.max_pending = 4000000;
    zqb_client_t *client = zqb_client_new (zmq_ctx_new (), endpoint, &options);
    MUST (client != NULL);
    for (int i = 0; i < ballast->queued; i++)
        park_one (client, "parked");
    for (int i = 0; i < ballast->services; i++) {
        char service[32];
        snprintf (service, sizeof service, "service-%d", i);
        park_one (client, service);
    }
    zqb_client_flush (client);
    for (;;)
        pause ();
}

/* Before the first socket of this process: threads do not survive a fork. */
static void start_parking (const ballast_t *ballast, const char *endpoint)
{
    if (ballast->queued + ballast->services == 0)
        return;
    pid_t pid = fork ();
    MUST (pid >= 0);
    if (pid == 0) {
        prctl (PR_SET_PDEATHSIG, SIGKILL);
        park (ballast, endpoint);
    }
}

static void wait_until_loaded (zqb_broker_t *broker, uint64_t queued, uint64_t workers)
{
    uint64_t deadline = now_ns () + 20000000000u;
    zqb_stats_t stats;
    for (;;) {
        MUST (zqb_broker_stats (broker, &stats) == 0);
        if (stats.queued >= queued && stats.workers >= workers)
            return;
        if (now_ns () > deadline)
            fail ("after 20 s %llu of %llu queued, %llu of %llu workers; refused: %llu requests, %llu workers",
                  (unsigned long long) stats.queued, (unsigned long long) queued, (unsigned long long) stats.workers,
                  (unsigned long long) workers, (unsigned long long) (stats.refused_requests + stats.refused_queue),
                  (unsigned long long) stats.refused_workers);
        sleep_ns (2000000);
    }
}

static void ballast_load (bench_t *run, zqb_broker_t *broker)
{
    const ballast_t *ballast = ballast_of (run);
    if (ballast->workers > 0)
        connect_idle_workers (run, ballast->workers);
    wait_until_loaded (broker, (uint64_t) (ballast->queued + ballast->services), (uint64_t) ballast->workers);
}

static void ballast_start (bench_t *run)
{
    start_parking (ballast_of (run), parking_endpoint (run));
    zqb_broker_t *broker = new_broker (run);
    ours_run (run, broker);
    ballast_load (run, broker);
    ours_start_pool (run);
}

/* ================================================================================================================
   >>cost per request
   ================================================================================================================ */

/* With a fixed credit a request costs the least, so that what comes on top shows most. */
enum { CREDIT = 1000, NO_HEARTBEATS_MS = 3600000, SIZES = 3 };

typedef struct kind_t {
    const char *name;
    int sizes[SIZES];
    ballast_t ballast[SIZES];
} kind_t;

#define WORKERS(n) {{.credit = CREDIT}, n, 0, 0, NO_HEARTBEATS_MS}
#define SERVICES(n) {{.credit = CREDIT}, 0, n, 0, NO_HEARTBEATS_MS}
#define QUEUED(n) {{.credit = CREDIT}, 0, 0, n, NO_HEARTBEATS_MS}

static const kind_t kinds[] = {
    {"idle workers", {1, 100, 10000}, {WORKERS (1), WORKERS (100), WORKERS (10000)}},
    {"services", {1, 100, 100000}, {SERVICES (1), SERVICES (100), SERVICES (100000)}},
    {"queued requests", {0, 10000, 1000000}, {QUEUED (0), QUEUED (10000), QUEUED (1000000)}}};

enum { KINDS = sizeof kinds / sizeof *kinds };

static bool quick;
static int rounds;
static FILE *results;
static char folder[] = "/tmp/zqb-scale-XXXXXX";

static void write_result (const char *what, int size, const char *figure, double value, double ratio)
{
    fprintf (results, "%s\t%d\t%s\t%.4f\t%.3f\n", what, size, figure, value, ratio);
    fflush (results);
}

static task_t task_for (const subject_t *subject)
{
    task_t task;
    memset (&task, 0, sizeof task);
    task.subject = subject;
    task.cell.transport = INPROC;
    task.cell.clients = 1;
    task.cell.outstanding = 1000;
    task.cell.workers = 1;
    task.cell.body = 10;
    task.cell.pinned = true;
    task.folder = folder;
    task.warm_up_ms = 50;
    task.window_ms = quick ? 100 : 300;
    return task;
}

static subject_t subject_for (const ballast_t *ballast)
{
    subject_t subject = zqb1_subject;
    subject.name = "ballast";
    subject.start = ballast_start;
    subject.variant = ballast;
    return subject;
}

static void measure_round (const kind_t *kind, int round, figures_t figures[SIZES][MAX_ROUNDS], uint64_t *seed)
{
    int order[SIZES];
    shuffle (order, SIZES, seed);
    for (int i = 0; i < SIZES; i++) {
        subject_t subject = subject_for (&kind->ballast[order[i]]);
        task_t task = task_for (&subject);
        const char *error = in_child (measure, &task, &figures[order[i]][round], sizeof (figures_t), 30000);
        if (error != NULL)
            printf ("    %8d %s: %s\n", kind->sizes[order[i]], kind->name, error);
    }
}

/* The medians of all rounds, and of the ratios to the same round of another. */
typedef struct middle_t {
    double rate, rate_ratio, broker_ns, broker_ratio, cpu_us;
} middle_t;

/* Returns whether any round succeeded with both. */
static bool find_middle (const figures_t *here, const figures_t *other, middle_t *middle)
{
    double values[sizeof *middle / sizeof (double)][MAX_ROUNDS];
    size_t count = 0;
    for (int i = 0; i < rounds; i++) {
        if (here[i].rate <= 0 || other[i].rate <= 0)
            continue;
        values[0][count] = here[i].rate;
        values[1][count] = here[i].rate / other[i].rate;
        values[2][count] = here[i].broker_cpu_us * 1000;
        values[3][count] = here[i].broker_cpu_us / other[i].broker_cpu_us;
        values[4][count++] = here[i].cpu_us;
    }
    *middle = (middle_t) {median (values[0], count), median (values[1], count), median (values[2], count),
                          median (values[3], count), median (values[4], count)};
    return count > 0;
}

static void measure_kind (const kind_t *kind, uint64_t *seed)
{
    static figures_t figures[SIZES][MAX_ROUNDS];
    memset (figures, 0, sizeof figures);
    for (int round = 0; round < rounds; round++)
        measure_round (kind, round, figures, seed);

    for (int size = 0; size < SIZES; size++) {
        middle_t middle;
        if (!find_middle (figures[size], figures[0], &middle))
            continue;
        printf ("    %8d %-16s %12.0f requests/s (%.3f)   %8.1f ns of the broker's CPU per request (%.3f)\n",
                kind->sizes[size], kind->name, middle.rate, middle.rate_ratio, middle.broker_ns, middle.broker_ratio);
        write_result (kind->name, kind->sizes[size], "requests_per_s", middle.rate, middle.rate_ratio);
        write_result (kind->name, kind->sizes[size], "broker_ns_per_request", middle.broker_ns, middle.broker_ratio);
    }
    fflush (stdout);
}

/* ================================================================================================================
   >>memory
   ================================================================================================================ */

typedef struct memory_t {
    double own;       /* bytes that zqbroker.h has allocated */
    double allocated; /* bytes in use of the whole process: with libzmq's */
    double resident;
} memory_t;

static memory_t memory_now (void)
{
    memory_t now = {(double) ours_allocated (), 0, 0};
    struct mallinfo2 info = mallinfo2 ();
    now.allocated = (double) (info.uordblks + info.hblkhd);
    long pages = 0, ignored;
    FILE *in = fopen ("/proc/self/statm", "r");
    if (in != NULL) {
        if (fscanf (in, "%ld %ld", &ignored, &pages) != 2)
            pages = 0;
        fclose (in);
    }
    now.resident = (double) pages * (double) sysconf (_SC_PAGESIZE);
    return now;
}

static void make_context (bench_t *run, const task_t *task)
{
    mallopt (M_ARENA_MAX, 1); /* mallinfo2 sees only the first arena */
    run->subject = task->subject;
    run->cell = task->cell;
    run->folder = task->folder;
    for (int role = 0; role < ROLES; role++)
        run->contexts[role] = role == 0 ? zmq_ctx_new () : run->contexts[0];
    MUST (run->contexts[0] != NULL);
}

/* What the ballast of the task adds to a broker without any, per request or worker. */
static void measure_memory (const void *given, void *result)
{
    static bench_t run;
    const task_t *task = (const task_t *) given;
    make_context (&run, task);
    const ballast_t *ballast = ballast_of (&run);
    start_parking (ballast, parking_endpoint (&run));
    zqb_broker_t *broker = new_broker (&run);
    memory_t before = memory_now (), *per = (memory_t *) result;
    ours_run (&run, broker);
    ballast_load (&run, broker);
    sleep_ns (100000000);
    memory_t after = memory_now ();
    double count = ballast->queued + ballast->services + ballast->workers;
    per->own = (after.own - before.own) / count;
    per->allocated = (after.allocated - before.allocated) / count;
    per->resident = (after.resident - before.resident) / count;
}

static void report_memory (const char *what, int size, const ballast_t *ballast)
{
    subject_t subject = subject_for (ballast);
    task_t task = task_for (&subject);
    task.cell.pinned = false;
    memory_t memory;
    const char *error = in_child (measure_memory, &task, &memory, sizeof memory, 40000);
    if (error != NULL) {
        printf ("    %8d %s: %s\n", size, what, error);
        return;
    }
    printf ("    %8d %-26s %8.1f bytes each of ours, %8.1f with libzmq's, %8.1f resident\n", size, what, memory.own,
            memory.allocated, memory.resident);
    write_result (what, size, "own_bytes_each", memory.own, 1);
    write_result (what, size, "allocated_bytes_each", memory.allocated, 1);
    write_result (what, size, "resident_bytes_each", memory.resident, 1);
    fflush (stdout);
}

/* ================================================================================================================
   >>heartbeats
   ================================================================================================================ */

enum { HEARTBEAT_MS = 2500, KEPT_ALIVE = 1000 };

static void *idle_workers_live (void *arg)
{
    static const frame_t heartbeat[] = {{"", 0}, {"MDPW01", 6}, {"\x04", 1}, {NULL, 0}};
    char frame[16];
    for (;;) {
        sleep_ns ((uint64_t) HEARTBEAT_MS * 1000000u);
        say_for_each (arg, KEPT_ALIVE, heartbeat);
        while (zmq_recv (arg, frame, sizeof frame, ZMQ_DONTWAIT) >= 0)
            ;
    }
    return NULL;
}

static void measure_heartbeats (const void *given, void *result)
{
    static bench_t run;
    const task_t *task = (const task_t *) given;
    make_context (&run, task);
    zqb_broker_t *broker = new_broker (&run);
    ours_run (&run, broker);
    void *workers = connect_idle_workers (&run, KEPT_ALIVE);
    wait_until_loaded (broker, 0, KEPT_ALIVE);
    start_thread (idle_workers_live, workers);
    uint64_t cpu = thread_cpu_ns (run.broker), begin = now_ns ();
    sleep_ns ((uint64_t) task->window_ms * 1000000u);
    *(double *) result = 100 * (double) (thread_cpu_ns (run.broker) - cpu) / (double) (now_ns () - begin);
    zqb_stats_t stats;
    MUST (zqb_broker_stats (broker, &stats) == 0);
    if (stats.workers != KEPT_ALIVE)
        fail ("only %llu workers are left", (unsigned long long) stats.workers);
}

static void report_heartbeats (void)
{
    static const ballast_t none = {{.credit = CREDIT}, 0, 0, 0, HEARTBEAT_MS};
    subject_t subject = subject_for (&none);
    task_t task = task_for (&subject);
    task.window_ms = quick ? HEARTBEAT_MS + 200 : 4 * HEARTBEAT_MS + 200;
    double percent = 0;
    const char *error = in_child (measure_heartbeats, &task, &percent, sizeof percent, 40000);
    if (error != NULL) {
        printf ("    heartbeats: %s\n", error);
        return;
    }
    printf ("    %8d idle workers with heartbeats of %d ms: %.3f %% of a core\n", KEPT_ALIVE, HEARTBEAT_MS, percent);
    write_result ("idle workers with heartbeats", KEPT_ALIVE, "percent_of_a_core", percent, 1);
}

/* ================================================================================================================
   >>connections: clients over tcp that come, ask once, and go
   ================================================================================================================ */

enum { PROOFS = 3 };

static const struct {
    const char *name;
    ours_t ours;
} proofs[PROOFS] = {{"clients without a mechanism", {.mechanism = ZMQ_NULL}},
                    {"clients by PLAIN", {.mechanism = ZMQ_PLAIN}},
                    {"clients by CURVE", {.mechanism = ZMQ_CURVE}}};

static void come_and_go (bench_t *run, int index)
{
    zqb_msg_t body, reply;
    ours_new_body (run, &body);
    zqb_msg_init (&reply);
    while (!bench_over ()) {
        zqb_client_t *client = ours_new_client (run);
        bench_stamp (index, zqb_msg_data (&body, 0));
        MUST (zqb_client_call (client, "echo", &body, &reply) == 0);
        bench_count (index, zqb_msg_data (&reply, 0), zqb_msg_size (&reply, 0));
        zqb_msg_move (&body, &reply);
        zqb_client_destroy (&client);
    }
}

static void measure_connections (int proof, figures_t *figures)
{
    subject_t subject = zqb_handle_subject;
    subject.client = come_and_go;
    subject.variant = &proofs[proof].ours;
    task_t task = task_for (&subject);
    task.cell.transport = TCP;
    task.cell.outstanding = 1;
    const char *error = in_child (measure, &task, figures, sizeof *figures, 30000);
    if (error != NULL)
        printf ("    %s: %s\n", proofs[proof].name, error);
}

static void compare_connections (uint64_t *seed)
{
    static figures_t figures[PROOFS][MAX_ROUNDS];
    int order[PROOFS];
    for (int round = 0; round < rounds; round++) {
        shuffle (order, PROOFS, seed);
        for (int i = 0; i < PROOFS; i++)
            measure_connections (order[i], &figures[order[i]][round]);
    }
    for (int proof = 0; proof < PROOFS; proof++) {
        middle_t middle;
        if (!find_middle (figures[proof], figures[0], &middle))
            continue;
        printf ("    %-28s %8.0f connections/s (%.3f)   %8.1f us of CPU each, of both sides\n", proofs[proof].name,
                middle.rate, middle.rate_ratio, middle.cpu_us);
        write_result (proofs[proof].name, 1, "connections_per_s", middle.rate, middle.rate_ratio);
        write_result (proofs[proof].name, 1, "cpu_us_per_connection", middle.cpu_us, 1);
    }
}

int main (int argc, char **argv)
{
    quick = quick_wanted ();
    rounds = quick ? 1 : 5;
    const char *out = argc > 1 ? argv[1] : "tests/bench/out/scale.tsv";
    results = fopen (out, "w");
    if (results == NULL || mkdtemp (folder) == NULL) {
        perror (out);
        return 1;
    }
    fprintf (results, "what\tsize\tfigure\tvalue\tratio_to_smallest\n");
    uint64_t seed = 1;

    printf ("\ncost per request beside (in brackets: the ratio to the smallest case)\n");
    for (int i = 0; i < KINDS; i++)
        measure_kind (&kinds[i], &seed);

    printf ("\nmemory\n");
    static const ballast_t queued = QUEUED (1000000), queued_quick = QUEUED (200000), workers = WORKERS (1000);
    static const ballast_t services = SERVICES (100000);
    report_memory ("queued requests of 10 B", quick ? 200000 : 1000000, quick ? &queued_quick : &queued);
    if (!quick)
        report_memory ("services with one request", 100000, &services);
    report_memory ("idle workers (inproc)", 1000, &workers);

    printf ("\nCPU of a broker that has nothing to do\n");
    report_heartbeats ();

    printf ("\nclients that come, ask once and go, one after the other (in brackets: the ratio to no mechanism)\n");
    compare_connections (&seed);
    fclose (results);
    remove_folder (folder);
    return 0;
}
