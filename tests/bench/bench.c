/*  bench.c - the comparison: all subjects of a cell, interleaved, several rounds in random order, medians, and the ratio
    to zmq_proxy round by round. See README.md for what is measured and how. */

#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ================================================================================================================
   >>what is compared
   ================================================================================================================ */

static const subject_t *const subjects[] = {
    &proxy_subject, /* the yardstick is first */
    &direct_subject, &direct_req_subject, &proxy_bare_subject,
    &zqb1_subject, &zqb1_spin_subject, &zqb1_credit_subject, &zqb_handle_subject,
    &proxy_curve_subject, &zqb1_curve_subject, &zqb1_plain_subject, &zqb1_rules_10_subject, &zqb1_rules_1000_subject,
    &mdp01_plain_subject, &mdp01_subject, &mdp01_spin_subject, &mdp02_subject, &lru_subject,
    &nats_subject, &redis_subject, &gearman_subject};

enum { SUBJECTS = sizeof subjects / sizeof *subjects, YARDSTICK = 0 };

typedef struct scenario_t {
    const char *name;
    unsigned bit;
    int clients, outstanding, workers;
    size_t largest_body;
} scenario_t;

enum { LARGEST_BODY = 1 << 20 };

static const scenario_t scenarios[] = {{"sync", ON_SYNC, 1, 1, 1, LARGEST_BODY},
                                       {"pipelined-1x1000", ON_PIPELINED, 1, 1000, 1, LARGEST_BODY},
                                       {"pipelined-1x1000", ON_PIPELINED, 1, 1000, 4, LARGEST_BODY},
                                       {"pipelined-4x100", ON_CLIENTS, 4, 100, 1, 10},
                                       {"pipelined-4x100", ON_CLIENTS, 4, 100, 4, 10}};
static const size_t bodies[] = {10, 1024, 64 << 10, LARGEST_BODY};
static const char *const transports[TRANSPORTS] = {"inproc", "ipc", "tcp"};
static const char *const placements[] = {"free", "pinned"};

enum {
    SCENARIOS = sizeof scenarios / sizeof *scenarios,
    BODIES = sizeof bodies / sizeof *bodies,
    BYTES_OUTSTANDING = 8 << 20 /* of all clients together: then large bodies have smaller windows */
};

/* ================================================================================================================
   >>settings: defaults, and what the command line says
   ================================================================================================================ */

typedef struct settings_t {
    const char *transport, *scenario, *body, *workers, *placement, *subject; /* lists with commas, or NULL for all */
    const char *out;
    int rounds, window_ms, seconds;
    uint64_t seed;
    bool quick;
} settings_t;

static settings_t settings = {NULL, NULL, NULL, NULL, NULL, NULL, "tests/bench/out/results.tsv", 0, 0, 0, 1, false};

typedef struct setting_t {
    const char *name, *text;
    const char **string;
    int *number;
} setting_t;

static const setting_t setting_table[] = {
    {"transport", "inproc,ipc,tcp", &settings.transport, NULL},
    {"scenario", "sync,pipelined-1x1000,pipelined-4x100", &settings.scenario, NULL},
    {"body", "10,1024,65536,1048576", &settings.body, NULL},
    {"workers", "1,4", &settings.workers, NULL},
    {"placement", "free,pinned", &settings.placement, NULL},
    {"subject", "names from the table; zmq_proxy always comes too", &settings.subject, NULL},
    {"out", "where the machine-readable table goes", &settings.out, NULL},
    {"rounds", "how often each is measured (5; 3 with BENCH_QUICK=1)", NULL, &settings.rounds},
    {"seconds", "for the whole, from which each window follows (420; 34)", NULL, &settings.seconds},
    {"ms", "of each window, instead", NULL, &settings.window_ms}};

enum { SETTINGS = sizeof setting_table / sizeof *setting_table };

static void usage (void)
{
    printf ("bench [name=value ...]; lists are separated by commas, all by default\n");
    for (int i = 0; i < SETTINGS; i++)
        printf ("    %-10s %s\n", setting_table[i].name, setting_table[i].text);
    printf ("    %-10s of the random order (1)\n", "seed");
    exit (2);
}

static void read_setting (const char *text)
{
    const char *value = strchr (text, '=');
    if (value == NULL)
        usage ();
    size_t size = (size_t) (value++ - text);
    if (size == 4 && memcmp (text, "seed", 4) == 0) {
        settings.seed = strtoull (value, NULL, 10);
        return;
    }
    for (int i = 0; i < SETTINGS; i++)
        if (strlen (setting_table[i].name) == size && memcmp (setting_table[i].name, text, size) == 0) {
            if (setting_table[i].string != NULL)
                *setting_table[i].string = value;
            else
                *setting_table[i].number = atoi (value);
            return;
        }
    usage ();
}

static void read_settings (int argc, char **argv)
{
    settings.quick = quick_wanted ();
    for (int i = 1; i < argc; i++)
        read_setting (argv[i]);
    if (settings.rounds <= 0)
        settings.rounds = settings.quick ? 3 : 5;
    if (settings.rounds > MAX_ROUNDS)
        settings.rounds = MAX_ROUNDS;
    if (settings.seconds <= 0)
        settings.seconds = settings.quick ? 34 : 420;
}

/* Whether name is in a list with commas; everything is in NULL. */
static bool listed (const char *list, const char *name)
{
    size_t size = strlen (name);
    for (const char *at = list; at != NULL; at = strchr (at, ',')) {
        at += *at == ',';
        if (strncmp (at, name, size) == 0 && (at[size] == ',' || at[size] == '\0'))
            return true;
    }
    return list == NULL;
}

static bool listed_number (const char *list, size_t number)
{
    char text[24];
    snprintf (text, sizeof text, "%zu", number);
    return listed (list, text);
}

/* ================================================================================================================
   >>the plan: which cells, and whom in each
   ================================================================================================================ */

/* The quick form keeps the figures that decide: pinned, inproc and tcp, 10 bytes, and one large body. */
static bool cell_in_quick (const cell_t *cell)
{
    if (!cell->pinned || cell->transport == IPC)
        return false;
    return cell->body == 10 || (cell->body == 64 << 10 && cell->outstanding > 1 && cell->workers == 1);
}

static bool cell_wanted (const cell_t *cell)
{
    const scenario_t *scenario = &scenarios[cell->scenario];
    if (settings.quick && !cell_in_quick (cell))
        return false;
    return cell->body <= scenario->largest_body && listed (settings.transport, transports[cell->transport])
           && listed (settings.scenario, scenario->name) && listed (settings.placement, placements[cell->pinned])
           && listed_number (settings.body, cell->body) && listed_number (settings.workers, (size_t) cell->workers);
}

static bool subject_in_quick (const subject_t *subject)
{
    static const char *const left_out = "zmq_proxy_bare,zqb_mdp02,zqb_lru,redis,gearmand,zqb1_credit_1000,zqb1_spin,"
                                        "zqb_mdp01_spin,zqb1_plain,zqb1_rules_10";
    return !listed (left_out, subject->name);
}

static bool subject_wanted (const subject_t *subject, const cell_t *cell)
{
    if ((subject->transports >> cell->transport & 1) == 0 || cell->body > subject->largest_body
        || (subject->scenarios & scenarios[cell->scenario].bit) == 0)
        return false;
    if (subject->missing != NULL && subject->missing () != NULL)
        return false;
    if (subject == subjects[YARDSTICK])
        return true;
    if (settings.subject != NULL)
        return listed (settings.subject, subject->name);
    return !settings.quick || subject_in_quick (subject);
}

static int window_of (const scenario_t *scenario, size_t body)
{
    int most = (int) ((size_t) BYTES_OUTSTANDING / body / (size_t) scenario->clients);
    return most < 1 ? 1 : most < scenario->outstanding ? most : scenario->outstanding;
}

static cell_t make_cell (int transport, int scenario, size_t body, int pinned)
{
    const scenario_t *of = &scenarios[scenario];
    cell_t cell;
    memset (&cell, 0, sizeof cell);
    cell.transport = transport;
    cell.scenario = scenario;
    cell.clients = of->clients;
    cell.outstanding = window_of (of, body);
    cell.workers = of->workers;
    cell.body = body;
    cell.pinned = pinned != 0;
    return cell;
}

/* Calls visit for each cell of the plan. */
static void for_each_cell (void (*visit) (const cell_t *cell, void *arg), void *arg)
{
    for (int pinned = 1; pinned >= 0; pinned--)
        for (int transport = 0; transport < TRANSPORTS; transport++)
            for (int body = 0; body < BODIES; body++)
                for (int scenario = 0; scenario < SCENARIOS; scenario++) {
                    cell_t cell = make_cell (transport, scenario, bodies[body], pinned);
                    if (cell_wanted (&cell))
                        visit (&cell, arg);
                }
}

typedef struct plan_t {
    int cells, measurements, servers;
} plan_t;

static void count_cell (const cell_t *cell, void *arg)
{
    plan_t *plan = (plan_t *) arg;
    plan->cells++;
    for (int i = 0; i < SUBJECTS; i++)
        if (subject_wanted (subjects[i], cell)) {
            plan->measurements += settings.rounds;
            plan->servers += subjects[i]->missing != NULL ? settings.rounds : 0;
        }
}

enum { WARM_UP_MS = 30, START_MS = 25, SERVER_START_MS = 60, LEAST_WINDOW_MS = 50, MOST_WINDOW_MS = 500 };

static int window_for (const plan_t *plan)
{
    if (settings.window_ms > 0 || plan->measurements == 0)
        return settings.window_ms;
    int all = settings.seconds * 1000 - plan->servers * SERVER_START_MS;
    int window = all / plan->measurements - WARM_UP_MS - START_MS;
    return window < LEAST_WINDOW_MS ? LEAST_WINDOW_MS : window > MOST_WINDOW_MS ? MOST_WINDOW_MS : window;
}

/* ================================================================================================================
   >>medians
   ================================================================================================================ */

typedef struct series_t {
    const subject_t *subject; /* NULL: not in this cell */
    figures_t rounds[MAX_ROUNDS];
    bool good[MAX_ROUNDS];
    int errors;
    char error[160];
    figures_t middle; /* the median of each figure */
    double ratio;     /* the median of the ratios to the yardstick of the same round; 0 if there is none */
} series_t;

enum { FIGURES = sizeof (figures_t) / sizeof (double) };

static void find_medians (series_t *series, const series_t *yardstick)
{
    double values[MAX_ROUNDS];
    for (int figure = 0; figure < FIGURES; figure++) {
        size_t count = 0;
        for (int i = 0; i < settings.rounds; i++)
            if (series->good[i])
                values[count++] = ((const double *) &series->rounds[i])[figure];
        ((double *) &series->middle)[figure] = median (values, count);
    }
    size_t count = 0;
    for (int i = 0; i < settings.rounds; i++)
        if (series->good[i] && yardstick->good[i])
            values[count++] = series->rounds[i].rate / yardstick->rounds[i].rate;
    series->ratio = median (values, count);
}

/* ================================================================================================================
   >>output
   ================================================================================================================ */

static FILE *results;

static void open_results (void)
{
    results = fopen (settings.out, "w");
    if (results == NULL) {
        perror (settings.out);
        exit (1);
    }
    fprintf (results, "transport\tscenario\tbody\tworkers\tsubject\trequests_per_s\tratio_to_zmq_proxy\tp50_us\tp99_us\t"
                      "p999_us\tcpu_us\tbroker_cpu_us\tswitches\tclients\toutstanding\tplacement\trounds\terrors\terror\n");
}

/* The scenario's name says the placement too, so that the first five columns name a row. */
static void write_row (const cell_t *cell, const series_t *series)
{
    const figures_t *f = &series->middle;
    fprintf (results, "%s\t%s%s\t%zu\t%d\t%s\t%.0f\t%.3f\t%.1f\t%.1f\t%.1f\t%.3f\t%.3f\t%.3f\t%d\t%d\t%s\t%d\t%d\t%s\n",
             transports[cell->transport], scenarios[cell->scenario].name, cell->pinned ? "-pinned" : "", cell->body,
             cell->workers, series->subject->name, f->rate, series->ratio, f->p50_us, f->p99_us, f->p999_us, f->cpu_us,
             f->broker_cpu_us, f->switches, cell->clients, cell->outstanding, placements[cell->pinned],
             settings.rounds, series->errors, series->error);
    fflush (results);
}

static void print_heading (const cell_t *cell)
{
    printf ("\n%s, %s, %zu bytes, %d worker%s, %s (%d client%s x %d outstanding)\n", transports[cell->transport],
            scenarios[cell->scenario].name, cell->body, cell->workers, cell->workers == 1 ? "" : "s",
            cell->pinned ? "all on one core" : "left to the scheduler", cell->clients, cell->clients == 1 ? "" : "s",
            cell->outstanding);
    printf ("    %-18s %12s %8s %10s %10s %10s %9s %9s %9s\n", "", "requests/s", "ratio", "p50 us", "p99 us", "p99.9 us",
            "cpu us", "broker us", "switches");
}

static void print_row (const series_t *series)
{
    const figures_t *f = &series->middle;
    if (series->errors == settings.rounds)
        printf ("    %-18s %s\n", series->subject->name, series->error);
    else
        printf ("    %-18s %12.0f %8.3f %10.1f %10.1f %10.1f %9.3f %9.3f %9.3f%s%s\n", series->subject->name, f->rate,
                series->ratio, f->p50_us, f->p99_us, f->p999_us, f->cpu_us, f->broker_cpu_us, f->switches,
                series->errors > 0 ? "  ! " : "", series->error);
}

static void print_missing (void)
{
    for (int i = 0; i < SUBJECTS; i++) {
        const char *missing = subjects[i]->missing != NULL ? subjects[i]->missing () : NULL;
        if (missing != NULL)
            printf ("left out: %s, which needs %s\n", subjects[i]->name, missing);
    }
}

/* ================================================================================================================
   >>the run
   ================================================================================================================ */

typedef struct bench_run_t {
    char folder[32];
    int window_ms;
    int failures;
} bench_run_t;

enum { MOST_START_MS = 6000 };

static void run_one (bench_run_t *bench, const cell_t *cell, series_t *series, int round)
{
    task_t task = {series->subject, *cell, bench->folder, WARM_UP_MS, bench->window_ms};
    const char *error = in_child (measure, &task, &series->rounds[round], sizeof *series->rounds,
                                  MOST_START_MS + WARM_UP_MS + 4 * bench->window_ms);
    series->good[round] = error == NULL;
    if (error != NULL) {
        series->errors++;
        snprintf (series->error, sizeof series->error, "%s", error);
        for (char *at = series->error; *at; at++)
            if (*at == '\t' || *at == '\n')
                *at = ' ';
    }
}

/* One that failed in all of its first two rounds is not waited for again. */
static bool hopeless (const series_t *series, int round)
{
    return round >= 2 && series->errors == round;
}

static void run_cell (const cell_t *cell, void *arg)
{
    bench_run_t *bench = (bench_run_t *) arg;
    static series_t all[SUBJECTS];
    int order[SUBJECTS];
    memset (all, 0, sizeof all);
    for (int i = 0; i < SUBJECTS; i++)
        all[i].subject = subject_wanted (subjects[i], cell) ? subjects[i] : NULL;
    for (int round = 0; round < settings.rounds; round++) {
        shuffle (order, SUBJECTS, &settings.seed);
        for (int i = 0; i < SUBJECTS; i++) {
            series_t *series = &all[order[i]];
            if (series->subject != NULL && hopeless (series, round))
                series->errors++;
            else if (series->subject != NULL)
                run_one (bench, cell, series, round);
        }
    }
    print_heading (cell);
    for (int i = 0; i < SUBJECTS; i++)
        if (all[i].subject != NULL) {
            find_medians (&all[i], &all[YARDSTICK]);
            print_row (&all[i]);
            write_row (cell, &all[i]);
            bench->failures += all[i].errors;
        }
    fflush (stdout);
}

int main (int argc, char **argv)
{
    bench_run_t bench = {"/tmp/zqb-bench-XXXXXX", 0, 0};
    plan_t plan = {0, 0, 0};
    read_settings (argc, argv);
    uint64_t seed = settings.seed, begin = now_ns ();
    for_each_cell (count_cell, &plan);
    bench.window_ms = window_for (&plan);
    if (mkdtemp (bench.folder) == NULL) {
        perror (bench.folder);
        return 1;
    }
    open_results ();
    printf ("%d cells, %d measurements: %d rounds of %d ms each, seed %llu\n", plan.cells, plan.measurements,
            settings.rounds, bench.window_ms, (unsigned long long) seed);
    print_missing ();
    for_each_cell (run_cell, &bench);

    fclose (results);
    remove_folder (bench.folder);
    printf ("\n%.0f s, %d failed measurements; written to %s\n", (double) (now_ns () - begin) / 1e9, bench.failures,
            settings.out);
    return 0;
}
