/*  elastic.c - a pool whose threads come and go with the load, watched while two waves roll over it

    Requests come slowly, then faster and faster, then slowly again. A thread needs a hundredth of a
    second for each. When the queue is too long the pool starts threads, and when fewer would have
    done for a while it lets them go: none of the requests is lost.

    Build   cc -o elastic examples/elastic.c -I. -lzmq
    Run     ./elastic [FILE.svg]                        with a file, draws a picture there, too
    Prints  ten lines a second, with a mark for each thread, and then what came of it, perhaps:

            seconds  queued  threads
                0.0       0   1 #
                ...
                3.8      58   4 ####
                3.9      35   8 ########
                ...
                6.7       0   1 #
            1900 requests, all answered; 1 to 8 threads, 10 started, 9 left
*/
#define ZQBROKER_IMPLEMENTATION
#include "zqbroker.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>

#define ENDPOINT "inproc://elastic"

enum { WORK_MS = 10, STEP_MS = 100, WAVE_MS = 3000, WAVES = 2, THREADS = 8, SAMPLES = 600 };
static const double heights[WAVES] = { 300, 650 }; /* requests a second, where a wave is highest */

typedef struct sample_t {
    double seconds;
    int queued, threads;
} sample_t;

typedef struct scene_t {
    zqb_broker_t *broker;
    zqb_pool_t *pool;
    zqb_client_t *client;
    sample_t samples[SAMPLES];
    int count;
    int submitted, answered;
} scene_t;

static int work (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    (void) request, (void) reply, (void) arg;
    zmq_poll (NULL, 0, WORK_MS);
    return 0;
}

static double now (void)
{
    struct timespec time;

    clock_gettime (CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

/* ---- the load ---- */

/* How many requests have come by then. A wave goes up and down like a stone that is thrown. */
static int come_by (double seconds)
{
    double sum = 0, length = WAVE_MS / 1000.0;

    for (int i = 0; i < WAVES; i++) {
        double part = (seconds - i * length) / length;

        part = part < 0 ? 0 : part > 1 ? 1 : part;
        sum += heights[i] * length * part * part * (2 - part * 4 / 3);
    }
    return (int) sum;
}

/* Sends what is due, and takes the answers that there are. */
static int keep_up (scene_t *scene, double seconds)
{
    zqb_msg_t request;
    zqb_reply_t reply;

    zqb_msg_init (&request);
    zqb_msg_init (&reply.body);
    for (int due = come_by (seconds); scene->submitted < due; scene->submitted++)
        if (zqb_msg_add_str (&request, "x") == -1
            || zqb_client_submit (scene->client, "work", &request, NULL) == -1)
            return -1;
    while (zqb_client_recv (scene->client, &reply, 0) == 0)
        scene->answered += reply.kind == ZQB_REPLY_FINAL;
    zqb_msg_close (&reply.body);
    return errno == EAGAIN || errno == ENOENT ? 0 : -1;
}

static const sample_t *look (scene_t *scene, double seconds)
{
    sample_t *sample = &scene->samples[scene->count++];
    zqb_pool_stats_t of_pool = { 0 };
    zqb_stats_t stats = { 0 };

    zqb_broker_stats (scene->broker, &stats);
    zqb_pool_stats (scene->pool, &of_pool);
    sample->seconds = seconds;
    sample->queued = (int) stats.queued;
    sample->threads = of_pool.threads;
    printf ("%7.1f  %6d  %2d %.*s\n", seconds, sample->queued, sample->threads, sample->threads,
            "####################");
    fflush (stdout);
    return sample;
}

/* Until the waves are over, all is answered, and the pool is as small as before. */
static int watch (scene_t *scene)
{
    double start = now (), seconds = 0;
    const sample_t *last = NULL;

    printf ("seconds  queued  threads\n");
    while (scene->count < SAMPLES
           && (last == NULL || last->threads > 1 || scene->answered < scene->submitted
               || seconds * 1000 < WAVES * WAVE_MS)) {
        if (seconds * 1000 >= scene->count * STEP_MS)
            last = look (scene, seconds);
        zmq_poll (NULL, 0, 5);
        seconds = now () - start;
        if (keep_up (scene, seconds) == -1)
            return -1;
    }
    return 0;
}

static void sum_up (const scene_t *scene)
{
    zqb_pool_stats_t stats = { 0 };
    int most = 0;

    for (int i = 0; i < scene->count; i++)
        if (scene->samples[i].threads > most)
            most = scene->samples[i].threads;
    zqb_pool_stats (scene->pool, &stats);
    printf ("%d requests, %s answered; 1 to %d threads, %d started, %d left\n", scene->submitted,
            scene->answered == scene->submitted ? "all" : "not all", most, (int) stats.started,
            (int) stats.left);
}

/* ---- the picture: the queue on the left axis, the threads on the right one ---- */

enum { LEFT = 70, RIGHT = 830, TOP = 60, BOTTOM = 350, PARTS = 4 };
static const char *const queue_colour = "#1f5fa8", *const thread_colour = "#d9730d";

static double x_of (double seconds, double whole)
{
    return LEFT + (RIGHT - LEFT) * seconds / whole;
}

static double y_of (double value, double top)
{
    return BOTTOM - (BOTTOM - TOP) * value / top;
}

/* The next number that an axis of so many parts may end with: each is 1, 2 or 5, or tens of it. */
static int top_of (int most)
{
    static const int firsts[] = { 1, 2, 5 };

    for (int tens = 1;; tens *= 10)
        for (int i = 0; i < 3; i++)
            if (firsts[i] * tens * PARTS >= most)
                return firsts[i] * tens * PARTS;
}

static void draw_text (FILE *file, double x, double y, const char *anchor, const char *colour,
                       const char *text)
{
    fprintf (file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y,
             anchor, colour, text);
}

static void draw_number (FILE *file, double x, double y, const char *anchor, const char *colour,
                         int number)
{
    char text[16];

    snprintf (text, sizeof text, "%d", number);
    draw_text (file, x, y, anchor, colour, text);
}

static void draw_axes (FILE *file, int queue_top, int thread_top, int seconds)
{
    for (int i = 0; i <= PARTS; i++) {
        double y = y_of (i, PARTS);

        fprintf (file, "<path d=\"M%d %.1fH%d\" stroke=\"%s\"/>\n", LEFT, y, RIGHT,
                 i == 0 ? "#555" : "#ddd");
        draw_number (file, LEFT - 8, y + 4, "end", queue_colour, queue_top * i / PARTS);
        draw_number (file, RIGHT + 8, y + 4, "start", thread_colour, thread_top * i / PARTS);
    }
    for (int i = 0; i <= seconds; i++)
        draw_number (file, x_of (i, seconds), BOTTOM + 20, "middle", "#555", i);
    draw_text (file, (LEFT + RIGHT) / 2, BOTTOM + 42, "middle", "#555", "seconds");
    draw_text (file, LEFT - 8, TOP - 20, "start", queue_colour, "requests in the queue");
    draw_text (file, RIGHT + 8, TOP - 20, "end", thread_colour, "threads");
}

static void draw_line (FILE *file, const scene_t *scene, int threads, int top, int seconds)
{
    fprintf (file, "<path fill=\"none\" stroke-width=\"2.5\" stroke=\"%s\" d=\"",
             threads ? thread_colour : queue_colour);
    for (int i = 0; i < scene->count; i++) {
        const sample_t *at = &scene->samples[i];
        double x = x_of (at->seconds, seconds), y = y_of (threads ? at->threads : at->queued, top);

        if (threads && i > 0) /* there is no half thread: steps */
            fprintf (file, "H%.1fV%.1f", x, y);
        else
            fprintf (file, "%c%.1f %.1f", i == 0 ? 'M' : 'L', x, y);
    }
    fprintf (file, "\"/>\n");
}

static int draw (const scene_t *scene, const char *path)
{
    FILE *file = fopen (path, "w");
    int seconds = (int) scene->samples[scene->count - 1].seconds + 1, queued = 1;

    if (file == NULL)
        return -1;
    for (int i = 0; i < scene->count; i++)
        if (scene->samples[i].queued > queued)
            queued = scene->samples[i].queued;
    fprintf (file, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 410\" "
                   "font-family=\"sans-serif\" font-size=\"14\">\n"
                   "<rect width=\"900\" height=\"410\" fill=\"white\"/>\n");
    draw_axes (file, top_of (queued), top_of (THREADS), seconds);
    draw_line (file, scene, 0, top_of (queued), seconds);
    draw_line (file, scene, 1, top_of (THREADS), seconds);
    fprintf (file, "</svg>\n");
    return fclose (file) == 0 ? 0 : -1;
}

/* ---- all together ---- */

static int begin (scene_t *scene, void *ctx)
{
    zqb_pool_options_t options = { 0 };

    options.scale.max = THREADS;
    options.scale.queue_per_worker = 5;
    options.scale.idle_ms = 400; /* short, as so are the waves */
    options.worker.credit = 1;
    scene->broker = zqb_broker_new (ctx, NULL);
    if (scene->broker == NULL || zqb_broker_bind (scene->broker, ENDPOINT) == -1
        || zqb_broker_start (scene->broker) == -1)
        return -1;
    scene->pool = zqb_pool_start (ctx, ENDPOINT, "work", work, NULL, &options);
    scene->client = zqb_client_new (ctx, ENDPOINT, NULL);
    return scene->pool != NULL && scene->client != NULL ? 0 : -1;
}

int main (int argc, char **argv)
{
    static scene_t scene;
    void *ctx = zmq_ctx_new ();
    int rc = begin (&scene, ctx);

    if (rc == 0)
        rc = watch (&scene);
    if (rc == 0)
        sum_up (&scene);
    if (rc == 0 && argc > 1)
        rc = draw (&scene, argv[1]);
    if (rc == -1)
        fprintf (stderr, "elastic: %s\n", zqb_strerror (errno));

    zqb_client_destroy (&scene.client);
    zqb_pool_stop (&scene.pool);
    zqb_broker_destroy (&scene.broker);
    zmq_ctx_term (ctx);
    return rc == 0 ? 0 : 1;
}
