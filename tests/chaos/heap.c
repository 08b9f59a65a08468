/*  heap.c - tells how much memory malloc has given out in a program that does not tell itself

    Build   cc -shared -fPIC -o heap.so tests/chaos/heap.c -pthread
    Run     LD_PRELOAD=./heap.so PROGRAM, and kill -USR2 it whenever that is wanted
    Prints  heap=N                          on standard output, where the program prints nothing of its own then

    A thread waits for the signal, so that malloc is not asked while it is at work in the same thread. */

#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void *tell (void *arg)
{
    sigset_t *wanted = (sigset_t *) arg;
    char line[32];
    for (int number; sigwait (wanted, &number) == 0;) {
        struct mallinfo2 info = mallinfo2 ();
        int size = snprintf (line, sizeof line, "heap=%zu\n", info.uordblks + info.hblkhd);
        if (write (STDOUT_FILENO, line, (size_t) size) != size)
            break;
    }
    return NULL;
}

__attribute__ ((constructor)) static void start (void)
{
    static sigset_t wanted;
    pthread_t thread;
    sigemptyset (&wanted);
    sigaddset (&wanted, SIGUSR2);
    pthread_sigmask (SIG_BLOCK, &wanted, NULL); /* in all threads that are to come */
    pthread_create (&thread, NULL, tell, &wanted);
}
