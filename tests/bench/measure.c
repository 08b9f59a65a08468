/*  measure.c - see measure.h */

#include "measure.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

/* ================================================================================================================
   >>time and cost
   ================================================================================================================ */

static uint64_t clock_ns (clockid_t clock)
{
    struct timespec t;
    if (clock_gettime (clock, &t) != 0)
        return 0;
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

uint64_t now_ns (void)
{
    return clock_ns (CLOCK_MONOTONIC);
}

uint64_t process_cpu_ns (void)
{
    return clock_ns (CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t thread_cpu_ns (pthread_t thread)
{
    clockid_t clock;
    return pthread_getcpuclockid (thread, &clock) == 0 ? clock_ns (clock) : 0;
}

uint64_t process_switches (void)
{
    struct rusage usage;
    getrusage (RUSAGE_SELF, &usage);
    return (uint64_t) usage.ru_nvcsw + (uint64_t) usage.ru_nivcsw;
}

void sleep_ns (uint64_t duration)
{
    struct timespec rest = {(time_t) (duration / 1000000000u), (long) (duration % 1000000000u)};
    while (nanosleep (&rest, &rest) != 0 && errno == EINTR)
        ;
}

void pin_to_one_core (void)
{
    cpu_set_t allowed, one;
    MUST (sched_getaffinity (0, sizeof allowed, &allowed) == 0);
    size_t core = CPU_SETSIZE - 1;
    while (core > 0 && !CPU_ISSET (core, &allowed))
        core--;
    CPU_ZERO (&one);
    CPU_SET (core, &one);
    MUST (sched_setaffinity (0, sizeof one, &one) == 0);
}

/* ================================================================================================================
   >>numbers
   ================================================================================================================ */

static int compare_doubles (const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static int compare_u64 (const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;
    return (x > y) - (x < y);
}

double median (const double *values, size_t count)
{
    double sorted[64];
    if (count == 0 || count > sizeof sorted / sizeof *sorted)
        return 0;
    memcpy (sorted, values, count * sizeof *values);
    qsort (sorted, count, sizeof *sorted, compare_doubles);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

double percentile (uint64_t *values, size_t count, double p)
{
    if (count == 0)
        return 0;
    qsort (values, count, sizeof *values, compare_u64);
    return (double) values[(size_t) (p / 100 * (double) (count - 1) + 0.5)];
}

static uint64_t next_random (uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

void shuffle (int *order, int count, uint64_t *seed)
{
    for (int i = 0; i < count; i++)
        order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        int j = (int) (next_random (seed) % (uint64_t) (i + 1));
        int swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

/* ================================================================================================================
   >>processes
   ================================================================================================================ */

enum { TEXT_SIZE = 160 };

static int result_pipe = -1; /* in the child: where the result or the text of a failure goes */

static void die_with_parent (void)
{
    prctl (PR_SET_PDEATHSIG, SIGKILL);
}

static void write_all (int fd, const void *data, size_t size)
{
    const char *at = (const char *) data;
    while (size > 0) {
        ssize_t n = write (fd, at, size);
        if (n <= 0)
            return;
        at += n;
        size -= (size_t) n;
    }
}

/* Only one thread may write the result: the first that fails, or the one that is done. When the servers go, the others
   fail as well, and wait here for the end of the process. */
static void only_once (void)
{
    static int ended;
    while (__atomic_exchange_n (&ended, 1, __ATOMIC_SEQ_CST) != 0)
        pause ();
}

void fail (const char *format, ...)
{
    only_once ();
    char text[TEXT_SIZE] = "";
    va_list arguments;
    va_start (arguments, format);
    vsnprintf (text, sizeof text, format, arguments);
    va_end (arguments);
    if (result_pipe < 0) {
        fprintf (stderr, "%s\n", text);
        exit (1);
    }
    write_all (result_pipe, text, sizeof text);
    servers_stop ();
    _exit (1);
}

static void run_child (void (*work) (const void *, void *), const void *task, size_t size, int fd)
{
    die_with_parent ();
    setpgid (0, 0);
    signal (SIGPIPE, SIG_IGN);
    result_pipe = fd;

    char text[TEXT_SIZE] = "";
    void *result = calloc (1, size);
    if (result == NULL)
        fail ("no memory");
    work (task, result);
    only_once ();
    servers_stop ();
    write_all (fd, text, sizeof text);
    write_all (fd, result, size);
    _exit (0); /* threads, sockets and memory go with the process */
}

/* Reads until there are size bytes, the other side closes, or the deadline. */
static size_t read_until (int fd, void *data, size_t size, uint64_t deadline)
{
    size_t got = 0;
    while (got < size) {
        uint64_t now = now_ns ();
        struct pollfd item = {fd, POLLIN, 0};
        if (now >= deadline || poll (&item, 1, (int) ((deadline - now) / 1000000 + 1)) < 0)
            break;
        if (item.revents == 0)
            continue;
        ssize_t n = read (fd, (char *) data + got, size - got);
        if (n <= 0)
            break;
        got += (size_t) n;
    }
    return got;
}

const char *in_child (void (*work) (const void *, void *), const void *task, void *result, size_t size, int limit_ms)
{
    static char text[TEXT_SIZE];
    int ends[2];
    fflush (NULL);
    if (pipe (ends) != 0)
        return "no pipe";
    fcntl (ends[0], F_SETFD, FD_CLOEXEC);
    fcntl (ends[1], F_SETFD, FD_CLOEXEC);
    pid_t child = fork ();
    if (child < 0)
        return "no process";
    if (child == 0) {
        close (ends[0]);
        run_child (work, task, size, ends[1]);
    }
    close (ends[1]);

    memset (result, 0, size);
    uint64_t deadline = now_ns () + (uint64_t) limit_ms * 1000000u;
    size_t got = read_until (ends[0], text, sizeof text, deadline);
    if (got == sizeof text && text[0] == '\0')
        got += read_until (ends[0], result, size, deadline);
    bool late = now_ns () >= deadline;
    close (ends[0]);
    if (late)
        kill (-child, SIGKILL); /* its servers too: they are in its process group */
    int status = 0;
    while (waitpid (child, &status, 0) < 0 && errno == EINTR)
        ;
    if (got == sizeof text + size)
        return NULL;
    if (late)
        snprintf (text, sizeof text, "no result within %d ms", limit_ms);
    else if (WIFSIGNALED (status))
        snprintf (text, sizeof text, "ended by signal %d", WTERMSIG (status));
    else if (got < sizeof text)
        snprintf (text, sizeof text, "ended without a result");
    return text;
}

bool quick_wanted (void)
{
    const char *quick = getenv ("BENCH_QUICK");
    return quick != NULL && quick[0] != '\0' && strcmp (quick, "0") != 0;
}

void remove_folder (const char *path)
{
    DIR *folder = opendir (path);
    if (folder == NULL)
        return;
    for (struct dirent *entry; (entry = readdir (folder)) != NULL;)
        unlinkat (dirfd (folder), entry->d_name, 0);
    closedir (folder);
    rmdir (path);
}

pthread_t start_thread (void *(*body) (void *), void *arg)
{
    pthread_t thread;
    int rc = pthread_create (&thread, NULL, body, arg);
    if (rc != 0)
        fail ("no thread: %s", strerror (rc));
    return thread;
}

/* ================================================================================================================
   >>servers
   ================================================================================================================ */

enum { MAX_SERVERS = 4 };

static pid_t servers[MAX_SERVERS];
static int server_count;

static const char *const program_folders[] = {"/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin"};

static bool find_program (const char *name, char *path, size_t size)
{
    for (size_t i = 0; i < sizeof program_folders / sizeof *program_folders; i++) {
        snprintf (path, size, "%s/%s", program_folders[i], name);
        if (access (path, X_OK) == 0)
            return true;
    }
    return false;
}

bool program_installed (const char *name)
{
    char path[256];
    return find_program (name, path, sizeof path);
}

static struct sockaddr_in loopback (int port)
{
    struct sockaddr_in address;
    memset (&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons ((uint16_t) port);
    address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    return address;
}

int free_port (void)
{
    struct sockaddr_in address = loopback (0);
    socklen_t size = sizeof address;
    int fd = socket (AF_INET, SOCK_STREAM, 0);
    MUST (fd >= 0);
    MUST (bind (fd, (struct sockaddr *) &address, size) == 0);
    MUST (getsockname (fd, (struct sockaddr *) &address, &size) == 0);
    close (fd);
    return ntohs (address.sin_port);
}

int connect_loopback (int port)
{
    struct sockaddr_in address = loopback (port);
    int on = 1;
    int fd = socket (AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect (fd, (struct sockaddr *) &address, sizeof address) != 0) {
        close (fd);
        return -1;
    }
    setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void exec_server (const char *path, char *const *argv)
{
    die_with_parent ();
    int null = open ("/dev/null", O_RDWR);
    dup2 (null, 0);
    dup2 (null, 1);
    dup2 (null, 2);
    execv (path, argv);
    _exit (127);
}

void server_start (char *const *argv, int port)
{
    char path[256];
    if (server_count == MAX_SERVERS || !find_program (argv[0], path, sizeof path))
        fail ("%s is not installed", argv[0]);
    pid_t pid = fork ();
    if (pid < 0)
        fail ("no process");
    if (pid == 0)
        exec_server (path, argv);
    servers[server_count++] = pid;

    uint64_t deadline = now_ns () + 5000000000u;
    for (int fd; (fd = connect_loopback (port)) < 0; sleep_ns (2000000)) {
        if (waitpid (pid, NULL, WNOHANG) == pid)
            fail ("%s ended at once", argv[0]);
        if (now_ns () > deadline)
            fail ("%s does not listen", argv[0]);
    }
}

void servers_stop (void)
{
    for (int i = 0; i < server_count; i++) {
        kill (servers[i], SIGKILL);
        waitpid (servers[i], NULL, 0);
    }
    server_count = 0;
}

/* Sums what one file of each thread of a process says. */
static uint64_t sum_over_threads (pid_t pid, const char *file, uint64_t (*read_it) (FILE *))
{
    char path[300];
    uint64_t sum = 0;
    snprintf (path, sizeof path, "/proc/%d/task", (int) pid);
    DIR *folder = opendir (path);
    if (folder == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir (folder)) != NULL;) {
        snprintf (path, sizeof path, "/proc/%d/task/%.16s/%s", (int) pid, entry->d_name, file);
        FILE *in = entry->d_name[0] == '.' ? NULL : fopen (path, "r");
        if (in != NULL) {
            sum += read_it (in);
            fclose (in);
        }
    }
    closedir (folder);
    return sum;
}

static uint64_t read_schedstat (FILE *in)
{
    unsigned long long on_cpu = 0;
    return fscanf (in, "%llu", &on_cpu) == 1 ? on_cpu : 0;
}

static uint64_t read_switches (FILE *in)
{
    char line[128];
    uint64_t sum = 0;
    while (fgets (line, sizeof line, in) != NULL) {
        const char *colon = strchr (line, ':');
        if (colon != NULL && strstr (line, "ctxt_switches") != NULL)
            sum += strtoull (colon + 1, NULL, 10);
    }
    return sum;
}

uint64_t servers_cpu_ns (void)
{
    uint64_t sum = 0;
    for (int i = 0; i < server_count; i++)
        sum += sum_over_threads (servers[i], "schedstat", read_schedstat);
    return sum;
}

uint64_t servers_switches (void)
{
    uint64_t sum = 0;
    for (int i = 0; i < server_count; i++)
        sum += sum_over_threads (servers[i], "status", read_switches);
    return sum;
}
