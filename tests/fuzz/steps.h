/*  The steps of a script, by their first byte (script.h), for each fuzzer, and for seeds.c, which writes the first scripts. */

#ifndef FUZZ_STEPS_H
#define FUZZ_STEPS_H

/* fuzz_broker: kind, actor, and then what it needs. A pass of the loop follows, but to the second. */
enum {
    BROKER_SAY,          /* frames */
    BROKER_SAY_AND_MORE, /* frames; the broker does not look yet */
    BROKER_PASS,
    BROKER_WAIT,       /* microseconds (2 bytes), shifted left by */
    BROKER_LOSE,       /* bits: 1 unreachable, 2 comes back from another address, 4 as another, 8 connection in the rest */
    BROKER_STATE,      /* whether something can be sent: 0 yes, 1 no, 2 it does not read */
    BROKER_MEMORY,     /* so many allocations succeed, so many fail */
    BROKER_HANDLE,     /* bits: 1, 2 which service, 4 a handler, or none */
    BROKER_INTERRUPT,  /* so many calls */
    BROKER_CONNECTION, /* which one it comes over from now on */
    BROKER_LIMIT,      /* of time: of lru if odd, or of echo, in 100 ms; 0 and 1 none */
    BROKER_POLICY,     /* bits: 1, 2 of which service; the rest: which */
    BROKER_DRAIN,      /* bits: 1, 2 of which service; the rest: which worker, 0 all */
    BROKER_SCALE,      /* the same; the rest: most workers, 0 not any more */
    BROKER_USER,       /* who it is from now on, over any connection */
    BROKER_RULES,      /* bits: 1 allow, 2, 4 whom, 8, 16, 32 call, serve, manage, 64, 128 which service; 0 no rules */
    BROKER_STEPS
};

/* What a hostile broker does to our client or worker (hostile.h), and then what these do. */
enum {
    HOSTILE_SAY, /* frames */
    HOSTILE_WAIT,
    HOSTILE_EVENT, /* bits: 1 connected, 0 disconnected, 2 another broker */
    HOSTILE_STATE, /* 1: it does not read */
    HOSTILE_MEMORY,
    HOSTILE_SOCKETS, /* so many cannot be made, so many cannot be connected */
    HOSTILE_INTERRUPT,
    HOSTILE_CONTEXT, /* 'E': its end */
    HOSTILE_STEPS
};

enum {
    CLIENT_SUBMIT = HOSTILE_STEPS, /* service, frames */
    CLIENT_RECEIVE,                /* time-out */
    CLIENT_CALL,                   /* as submit */
    CLIENT_CANCEL,                 /* which */
    CLIENT_FLUSH,
    CLIENT_SUBMIT_WITH, /* wishes (fuzz_client.c), and as submit */
    CLIENT_CALL_WITH,   /* the same */
    CLIENT_SURVEY       /* deadline, and as submit */
};

enum {
    WORKER_RECEIVE = HOSTILE_STEPS, /* time-out */
    WORKER_REPLY,                   /* which, frames */
    WORKER_PARTIAL,
    WORKER_FAIL,
    WORKER_RUN, /* so many requests */
    WORKER_STOP, /* 'S' */
    WORKER_PROGRESS, /* which, how far, of how much, length of the text */
    WORKER_REFUSE,   /* which */
    WORKER_ASK,      /* which: is it cancelled, how much is left */
    WORKER_DRAIN     /* 'D' */
};

/* fuzz_auth */
enum {
    AUTH_ASK,     /* mechanism, address, user, password, which field is wrong (0 none), how, bytes for it */
    AUTH_FRAMES,  /* frames */
    AUTH_TEXT,    /* of a file: how it begins, bytes */
    AUTH_LINE,    /* of a file: its end */
    AUTH_RELOAD,  /* bits: 1 others may read the file, 2 the text is kept */
    AUTH_CALL,    /* which, and two arguments */
    AUTH_ADDRESS, /* bytes */
    AUTH_MEMORY,  /* so many allocations succeed, so many fail */
    AUTH_STEPS
};

enum { OWN_KINDS = 32 }; /* kinds of client, worker and hostile broker are taken modulo this */

#endif
