/*  Runs seeds of the simulator, in processes of their own, so that a crash or an endless loop is a violation, too.

        sim [--seeds N] [--start S] [--events E] [--jobs J] [--kept FILE] [--walk W]     many seeds
        sim --seed S [--events E] [--verbose] [--features MASK]                         one, as it was, or with less

    Each hundred seeds are one case of TAP; kept seeds (seeds.txt) come first. */

#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEEDS_PER_CASE = 100, JOBS_MOST = 256, KEPT_MOST = 1000, SECONDS_PER_SEED = 10, EVENTS_PER_SECOND = 10000 };

typedef struct settings_t {
    uint64_t seeds, start, events, jobs, walk, one, features;
    int verbose, only_one;
    const char *kept;
} settings_t;

typedef struct seed_t {
    uint64_t seed, events;
} seed_t;

/* A case: some seeds in a row, or a kept one. A process works on it. */
typedef struct case_t {
    uint64_t start, count, events;
    int kept, done;
    uint64_t violations, simulated;
    char *log;
} case_t;

typedef struct job_t {
    pid_t pid; /* 0: free */
    case_t *work;
    uint64_t from;
    sim_progress_t *progress;
} job_t;

static const char *program = "sim";

static uint64_t seconds_256 (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 256u + (uint64_t) now.tv_nsec / 3906250u;
}

/* ---- one process: seeds, until they are all done or one is violated */

static int run_seeds (const settings_t *settings, const case_t *work, uint64_t from, sim_progress_t *progress)
{
    for (uint64_t i = from; i < work->count; i++) {
        sim_options_t options = {work->start + i, work->events, settings->walk, settings->features, settings->verbose};
        alarm (SECONDS_PER_SEED + (unsigned) (work->events / EVENTS_PER_SECOND));
        if (sim_run (&options, progress) != 0)
            return 1;
    }
    return 0;
}

static void start_job (const settings_t *settings, job_t *job, case_t *work, uint64_t from)
{
    memset (job->progress, 0, sizeof *job->progress);
    job->work = work;
    job->from = from;
    fflush (stdout);
    job->pid = fork ();
    if (job->pid < 0) {
        perror ("fork");
        exit (2);
    }
    if (job->pid == 0)
        exit (run_seeds (settings, work, from, job->progress)); /* not _exit, which would forget what gcov counted */
}

/* ---- what came of it */

static void report (case_t *work, const sim_progress_t *progress, int status)
{
    char what[1200], reason[800];
    if (progress->wrong[0])
        snprintf (reason, sizeof reason, "%s", progress->wrong);
    else if (WIFSIGNALED (status))
        snprintf (reason, sizeof reason, "%s",
                  WTERMSIG (status) == SIGALRM ? "it does not end" : strsignal (WTERMSIG (status)));
    else
        snprintf (reason, sizeof reason, "exit status %d", WEXITSTATUS (status));
    snprintf (what, sizeof what, "%s# seed %llu, event %llu: %s\n#   again: %s --seed %llu --events %llu --verbose\n",
              work->log ? work->log : "", (unsigned long long) progress->seed, (unsigned long long) progress->event,
              reason, program, (unsigned long long) progress->seed, (unsigned long long) work->events);
    free (work->log);
    work->log = strdup (what);
    work->violations++;
}

static void end_job (const settings_t *settings, job_t *job, int status)
{
    case_t *work = job->work;
    uint64_t next = job->progress->seed - work->start + 1;
    int bad = status != 0;
    work->simulated += job->progress->steps;
    job->pid = 0;
    if (bad)
        report (work, job->progress, status);
    if (bad && next < work->count && work->violations < 5) /* the seeds behind it are as good as others */
        start_job (settings, job, work, next);
    else
        work->done = 1;
}

static void wait_for_job (const settings_t *settings, job_t *jobs)
{
    int status;
    pid_t pid = wait (&status);
    for (uint64_t i = 0; i < settings->jobs; i++)
        if (pid > 0 && jobs[i].pid == pid)
            end_job (settings, &jobs[i], status);
}

static void print_case (const case_t *work, uint64_t number)
{
    printf ("%s %llu - ", work->violations ? "not ok" : "ok", (unsigned long long) number);
    if (work->kept)
        printf ("kept seed %llu", (unsigned long long) work->start);
    else
        printf ("seeds %llu to %llu", (unsigned long long) work->start,
                (unsigned long long)(work->start + work->count - 1));
    printf (": %llu events\n%s", (unsigned long long) work->simulated, work->log ? work->log : "");
    fflush (stdout);
}

/* ---- all of them */

static size_t read_kept (const char *path, seed_t *kept)
{
    size_t count = 0;
    char line[512];
    unsigned long long seed, events;
    FILE *file = path ? fopen (path, "r") : NULL;
    if (path && !file) {
        perror (path);
        exit (2);
    }
    while (file && count < KEPT_MOST && fgets (line, sizeof line, file))
        if (sscanf (line, "%llu %llu", &seed, &events) == 2) {
            kept[count].seed = seed;
            kept[count++].events = events;
        }
    if (file)
        fclose (file);
    return count;
}

static case_t *plan (const settings_t *settings, size_t *count)
{
    static seed_t kept[KEPT_MOST];
    size_t first = read_kept (settings->kept, kept);
    size_t rest = (size_t) ((settings->seeds + SEEDS_PER_CASE - 1) / SEEDS_PER_CASE);
    case_t *cases = (case_t *) calloc (first + rest + 1, sizeof *cases);
    for (size_t i = 0; cases && i < first + rest; i++) {
        uint64_t done = (uint64_t) (i < first ? 0 : i - first) * SEEDS_PER_CASE;
        cases[i].kept = i < first;
        cases[i].start = i < first ? kept[i].seed : settings->start + done;
        cases[i].events = i < first ? kept[i].events : settings->events;
        cases[i].count = i < first                                 ? 1
                         : settings->seeds - done < SEEDS_PER_CASE ? settings->seeds - done
                                                                   : SEEDS_PER_CASE;
    }
    *count = first + rest;
    return cases;
}

static void run_cases (const settings_t *settings, job_t *jobs, case_t *cases, size_t count)
{
    size_t started = 0, printed = 0;
    while (printed < count) {
        for (uint64_t i = 0; i < settings->jobs && started < count; i++)
            if (!jobs[i].pid)
                start_job (settings, &jobs[i], &cases[started++], 0);
        wait_for_job (settings, jobs);
        for (; printed < count && cases[printed].done; printed++)
            print_case (&cases[printed], printed + 1);
    }
}

static int sum_up (const settings_t *settings, case_t *cases, size_t count, uint64_t began)
{
    uint64_t seeds = 0, events = 0, violations = 0, took = seconds_256 () - began + 1;
    for (size_t i = 0; i < count; i++) {
        seeds += cases[i].count;
        events += cases[i].simulated;
        violations += cases[i].violations;
        free (cases[i].log);
    }
    free (cases);
    printf ("# %.2f million events a second, in %llu processes\n", (double) events * 256 / 1e6 / (double) took,
            (unsigned long long) settings->jobs);
    printf ("sim: %llu seeds, %llu events, %llu violations\n", (unsigned long long) seeds, (unsigned long long) events,
            (unsigned long long) violations);
    return violations != 0;
}

static int run_all (const settings_t *settings)
{
    size_t count;
    uint64_t began = seconds_256 ();
    static job_t jobs[JOBS_MOST];
    case_t *cases = plan (settings, &count);
    sim_progress_t *shared = (sim_progress_t *)mmap (NULL, (size_t) settings->jobs * sizeof *shared,
                                                     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!cases || shared == MAP_FAILED) {
        perror ("sim");
        return 2;
    }
    for (uint64_t i = 0; i < settings->jobs; i++)
        jobs[i].progress = &shared[i];
    printf ("1..%llu\n", (unsigned long long) count);
    run_cases (settings, jobs, cases, count);
    return sum_up (settings, cases, count, began);
}

/* In this process, for debuggers. */
static int run_one (const settings_t *settings)
{
    static sim_progress_t progress;
    sim_options_t options = {settings->one, settings->events, settings->walk, settings->features, settings->verbose};
    int failed = sim_run (&options, &progress);
    if (failed)
        printf ("seed %llu, event %llu: %s\n", (unsigned long long) progress.seed, (unsigned long long) progress.event,
                progress.wrong);
    printf ("sim: 1 seeds, %llu events, %d violations\n", (unsigned long long) progress.steps, failed != 0);
    return failed != 0;
}

/* ---- the command line */

static int usage (void)
{
    fprintf (stderr, "usage: sim [--seeds N] [--start S] [--events E] [--jobs J] [--kept FILE] [--walk W]\n"
                     "       sim --seed S [--events E] [--walk W] [--features MASK] [--verbose]\n");
    return 2;
}

static int read_settings (settings_t *settings, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct {
            const char *name;
            uint64_t *value;
        } numbers[] = {{"--seeds", &settings->seeds}, {"--start", &settings->start}, {"--events", &settings->events},
                       {"--jobs", &settings->jobs}, {"--walk", &settings->walk}, {"--features", &settings->features},
                       {"--seed", &settings->one}};
        size_t which = 0;
        while (which < 7 && strcmp (argv[i], numbers[which].name) != 0)
            which++;
        if (strcmp (argv[i], "--verbose") == 0)
            settings->verbose = 1;
        else if (i + 1 == argc)
            return -1;
        else if (strcmp (argv[i], "--kept") == 0)
            settings->kept = argv[++i];
        else if (which == 7)
            return -1;
        else
            *numbers[which].value = strtoull (argv[++i], NULL, 0);
        settings->only_one |= which == 6;
    }
    return settings->jobs >= 1 && settings->jobs <= JOBS_MOST ? 0 : -1;
}

int main (int argc, char **argv)
{
    settings_t settings = {1000, 1, 5000, 2, 16, 0, UINT64_MAX, 0, 0, NULL};
    program = argv[0];
    if (read_settings (&settings, argc, argv) != 0)
        return usage ();
    return settings.only_one ? run_one (&settings) : run_all (&settings);
}
