/*  zqbroker.h - an LRU and Majordomo message broker, its workers and its clients, in one file, over libzmq

    In ONE C or C++ file, before the include:       #define ZQBROKER_IMPLEMENTATION
    In every other file just:                       #include "zqbroker.h"
    Link with:                                      -lzmq

        #define ZQBROKER_IMPLEMENTATION
        #include "zqbroker.h"
        #include <ctype.h>
        #include <stdio.h>

        static int upper (zqb_request_t *request, zqb_msg_t *reply, void *arg)
        {
            zqb_msg_t *body = zqb_request_body (request);
            if (zqb_msg_add (reply, zqb_msg_data (body, 0), zqb_msg_size (body, 0)) != 0)
                return -1;
            char *text = (char *) zqb_msg_data (reply, 0);
            for (size_t i = 0; i < zqb_msg_size (reply, 0); i++)
                text[i] = (char) toupper ((unsigned char) text[i]);
            return 0;
        }

        int main (void)
        {
            void *ctx = zmq_ctx_new ();
            zqb_broker_t *broker = zqb_broker_new (ctx, NULL);
            zqb_broker_bind (broker, "inproc://jobs");
            zqb_broker_start (broker);
            zqb_pool_t *pool = zqb_pool_start (ctx, "inproc://jobs", "upper", upper, NULL, NULL);
            zqb_client_t *client = zqb_client_new (ctx, "inproc://jobs", NULL);

            zqb_msg_t request, reply;
            zqb_msg_init (&request);
            zqb_msg_init (&reply);
            zqb_msg_add_str (&request, "hello, world");
            if (zqb_client_call (client, "upper", &request, &reply) == 0)
                printf ("%.*s\n", (int) zqb_msg_size (&reply, 0), (char *) zqb_msg_data (&reply, 0));

            zqb_msg_close (&reply);
            zqb_msg_close (&request);
            zqb_client_destroy (&client);
            zqb_pool_stop (&pool);
            zqb_broker_destroy (&broker);
            return zmq_ctx_term (ctx);
        }

    It prints HELLO, WORLD. To run the three roles as processes, or on several machines, change the endpoint to
    "ipc:///tmp/jobs" or "tcp://10.0.0.1:5555" and put each role in a program of its own. Nothing else changes.

    ============================================================================================================
    MANUAL

    1  Concepts       2  Ownership and threads       3  What is guaranteed, and what is not
    4  Options        5  Errors                      6  The mmi services
    7  Wire formats   8  ZQB/1, byte by byte         9  Building                    10  Changes

    1 CONCEPTS

        client  ---request--->  +--------+  ---request--->  worker "upper"
        client  <---reply----   | broker |  <---reply----   worker "upper"
        client                  +--------+                  worker "count"

    A SERVICE is a name, 1 to 255 bytes. Workers register for one; clients call one. The broker makes it when it is
    first named, and forgets it when it has neither workers nor requests.

    A REQUEST is QUEUED until a worker of its service has room, then RUNNING, then over: replied, failed, expired,
    cancelled, dead (too many workers were lost over it), or its client is gone. If its worker is lost it goes back
    to the head of its queue.

    A WORKER holds at most as many requests as its CREDIT: 1, unless it speaks ZQB/1 and asks for more. The least
    loaded worker is served first, and among equals the one that has waited longest: LRU.

    A DIALECT is how a peer talks. The broker tells it from what a peer sends, answers in kind, and lets any client be
    served by any worker:

        ZQB/1            what zqb_client_t and zqb_worker_t speak; see 8
        MDP/0.1          Majordomo, RFC 7; also with the commands in words (READY, REQUEST, REPLY ...)
        MDP/0.2          Majordomo, RFC 18, with partial replies
        LRU              REQ workers of the Guide, chapters 3 and 4; any REQ client
        PPP              Paranoid Pirate workers, RFC 6; any REQ client

    The first three share the endpoints of zqb_broker_bind. LRU and PPP name no service, so zqb_broker_bind_lru gives
    them a frontend and a backend that belong to one service.

    HEARTBEATS go both ways, as the protocols say. An idle worker that is silent for liveness x heartbeat_ms is lost;
    one that is at work may be silent as long as it likes, for a single thread cannot work and talk: of such a worker
    its connection tells whether it lives. LRU workers know no heartbeats.

    2 OWNERSHIP AND THREADS

    Messages are values; each function says when it takes one over. A broker may be used by any thread. A worker, a
    client and a request belong to one thread at a time. zqb_broker_stop and zqb_worker_stop may be called in signal
    handlers. A pool and a started broker have threads of their own, made by zmq_threadstart, which block all signals.
    Handlers of a pool run in several threads at once.

    The host keeps its context, its signals, its standard output and its process: nothing here prints, exits, aborts,
    or handles a signal. Destroy workers, clients, pools and brokers before zmq_ctx_term, which otherwise waits for
    them; after zmq_ctx_shutdown everything that blocks returns ETERM. Nothing of this may be used in a child after
    fork, except to exec another program.

    3 WHAT IS GUARANTEED, AND WHAT IS NOT

    - Every request that was accepted ends in exactly one way, and is counted so (zqb_stats_t).
    - A reply reaches the client whose request that worker holds, and no other; a late, repeated or forged one
      reaches nobody, and is counted.
    - A worker never holds more than its credit.
    - First come, first served within a service.
    - A worker that says goodbye, registers again, falls silent or cannot be reached loses what it holds to others, at
      once when that is known: at most `attempts` times, then the request is dead.
    - So a request may be executed more than once, when a worker was lost that had begun it: work that must not be
      done twice has to be recognised by the worker. With attempts = 1 it is executed at most once.
    - A client of ZQB/1 that tries again, even over a new connection, joins the request if the broker still has it.
    - Nothing a peer sends ends the process, leaks, or blocks the loop. What is refused is counted.
    - Requests live in memory: when the broker's process ends, they are gone. Clients then try again.
    - If a worker is lost after some partial replies, those already sent come again from the next one.
    - There is no encryption and no authentication yet: bind tcp only where you trust who can connect.

    4 OPTIONS

    zqb_broker_options_t, zqb_worker_options_t, zqb_client_options_t and zqb_pool_options_t below, each field with its
    default beside it. Zero means the default, so start from a struct of zeros, or pass NULL. -1 means off or without
    limit.

    5 ERRORS

    Functions return -1, or NULL, and set errno. ZQB_ERRORS below lists the codes of our own with their texts;
    zqb_strerror knows them and all others. A broker tells ZQB/1 clients what became of a request. The older dialects
    have no words for it: their clients hear nothing, and time out, as they expect to.

    6 THE MMI SERVICES (RFC 8, and three of our own)

    Any client may call them. Each takes and returns text frames.

        mmi.service   body: the name of a service. Reply: "200" it has workers (or a handler), "404" it has none.
        mmi.services  Reply: one frame a service, "NAME queued=N running=N workers=N handler=0|1", in which bytes of
                      NAME that are not printable ASCII, and spaces and backslashes, are written \xHH.
        mmi.workers   Reply: one frame a worker, "SERVICE dialect=NAME load=N credit=N served=N silent_ms=N".
        mmi.stats     Reply: one frame a counter of zqb_stats_t, "name=N".
        mmi.anything  else: "501".

    mmi.services and mmi.workers list at most 1000 and then end with the frame "...". Workers may not register for
    names that start with "mmi.".

    7 WIRE FORMATS OF THE OTHER DIALECTS

    [x] is a frame; "" is an empty one; the first frame of all, the address, is libzmq's. `token` is 8 bytes that
    name an assignment; a worker gives them back unread, as its "client address".

        MDP/0.1   client        [""][MDPC01][service][body]...                      reply: the same
                  worker READY  [""][MDPW01][0x01][service]                         HEARTBEAT 0x04, DISCONNECT 0x05
                  to it         [""][MDPW01][0x02][token][""][body]...
                  REPLY         [""][MDPW01][0x03][token][""][body]...              the [""] behind token is optional
        in words  the same, with READY REQUEST REPLY HEARTBEAT DISCONNECT as text instead of the numbers
        MDP/0.2   client        [MDPC02][0x01][service][body]...                    reply: 0x02 partial, 0x03 final
                  worker READY  [MDPW02][0x01][service]                             HEARTBEAT 0x05, DISCONNECT 0x06
                  to it         [MDPW02][0x02][token][""][body]...
                  reply         [MDPW02][0x03 or 0x04][token][""][body]...          0x03 partial, 0x04 final
        LRU       client        [""][body]...                                       reply: the same
                  worker READY  [""][READY or 0x01]
                  to it, reply  [""][token][""][body]...
        PPP       worker READY  [READY or 0x01]                                     HEARTBEAT [HEARTBEAT or 0x02]
                  to it, reply  [token][""][body]...

    In MDP/0.1, MDP/0.2 and ZQB/1 any frames in front of the header, up to 8, are an envelope and come back as they
    were: the empty frame of a REQ socket, addresses of proxies. So MDP/0.2 works with and without an empty frame in
    front. On an LRU frontend the envelope ends with the first empty frame. A request has at least one frame of body,
    except in ZQB/1. A worker that registers again under the same address starts anew.

    8 ZQB/1, BYTE BY BYTE

    What MDP cannot say - ids, credit, errors, cancel - and many commands in one message. Sent by DEALER sockets to the
    broker's ROUTER. All integers are unsigned and big-endian. A MESSAGE is one frame of commands, and behind it the
    large body frames that those commands mention, in that order.

        the first frame
            0   4   "ZQB" and 0x01
            4   8   the sender's life: a random number, kept as long as the sender's object lives, whatever becomes
                    of its connections. A peer that reconnects is known by it. A broker that changes it was restarted:
                    workers then register again and forget what they held, clients send again what has no answer.
           12       commands, one behind the other, until the frame ends; at least one

        a command
            0   4   its size in bytes, from here to the end of its body block; at least 16
            4   1   its type, see below; a receiver skips a type that it does not know
            5   1   0; a receiver ignores it
            6   2   bytes of the fields
            8   8   id, see below
           16       the fields: tag (1 byte), length (1 byte), value; a receiver skips a tag that it does not know
           ..       the body block, up to the size: frame by frame, 4 bytes of length and so many bytes; or, if the top bit
                    of the length is set, 4 bytes only: this frame is the next of the large frames behind the first
                    frame, and the lower 31 bits are its size

        fields      1  service   1 to 255 bytes
                    2  credit    2 bytes, 1 to 65535: how many requests the worker may hold
                    3  status    2 bytes: one of ZQB_ERRORS
                    4  text      0 to 255 bytes of UTF-8, for people

        types       id                       from, to           what
         1 READY       0                     worker -> broker   service, credit (1 if missing): I serve this. A second
                                                                one starts anew: what the worker held goes to others.
         2 REQUEST     the client's number   client -> broker   service, body. The number is the client's choice, and
                                                                unique in its life. The same number again, while the
                                                                broker has that request, joins it.
                       token                 broker -> worker   body: do this
         3 PARTIAL     token, number         worker -> broker -> client    body: a part of the reply
         4 REPLY       token, number         worker -> broker -> client    body: the reply, or its last part
         5 ERROR       token                 worker -> broker   text: the work failed
                       number                broker -> client   status, text: there will be no reply
                       0                     broker -> any      status, text: about the whole peer
         6 HEARTBEAT   0                     both               I live; any message says the same. A broker answers that
                                                                of a stranger with DISCONNECT.
         7 DISCONNECT  0                     worker -> broker   goodbye; what it held goes to others
                                             broker -> worker   you are not registered (any more); status if refused
         8 CANCEL      number                client -> broker   no answer is wanted; a queued request is dropped

    A sender packs what it has for a peer at that moment into one message, up to about 16 KiB, and never waits for
    more. How large a body frame must be to travel on its own is its choice (ours: more than 1024 bytes). Every worker
    sends something at least every heartbeat_ms while it is idle. Types 9 to 31 and tags 5 to 31 are kept for later
    versions, the rest is free for experiments.

    9 BUILDING

    C99 or C++17; libzmq 4.2 or newer; nothing else. Define these before the include with the implementation:

        ZQBROKER_IMPLEMENTATION       compile it here; in one file of the program
        ZQBROKER_STATIC               everything static: each file that defines both has a copy of its own
        ZQB_MALLOC, ZQB_REALLOC, ZQB_FREE   all three or none: instead of malloc, realloc and free

    10 CHANGES

    0.1.0   the first: six dialects, one engine; broker, worker, client and pool.

    ============================================================================================================
*/

/* The implementation needs POSIX.1-2008, which a compiler in strict C99 hides unless asked before any system header. */
#if defined ZQBROKER_IMPLEMENTATION && defined __STRICT_ANSI__ && !defined __cplusplus && !defined _POSIX_C_SOURCE     \
  && !defined _XOPEN_SOURCE && !defined _GNU_SOURCE && !defined _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#ifndef ZQBROKER_H_INCLUDED
#define ZQBROKER_H_INCLUDED

/* ================================================================================================================
   >>api
   Everything that a program calls. Conventions, which are libzmq's:
   - int functions return 0, or -1 with errno set; functions that make something return NULL with errno set.
   - A caller's mistake (NULL, an empty name, a number out of range) is EINVAL, and changes nothing.
   - In options zero is the default, which stands beside each field; -1 means off, or without limit, where it says so.
   - zqb_x_destroy (&x) accepts NULL, and leaves NULL behind.
   - Unless it says "any thread", an object is used by one thread at a time, like a socket of libzmq.
   ================================================================================================================ */

#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#if ZMQ_VERSION < ZMQ_MAKE_VERSION (4, 2, 0)
#error "zqbroker needs libzmq 4.2 or newer"
#endif

#if defined ZQBROKER_STATIC
#define ZQB_API static
#elif defined __cplusplus
#define ZQB_API extern "C"
#else
#define ZQB_API extern
#endif

#define ZQB_VERSION_MAJOR 0
#define ZQB_VERSION_MINOR 1
#define ZQB_VERSION_PATCH 0

/* The version of the implementation that was compiled in, which may differ from the macros. Any thread. */
ZQB_API void zqb_version (int *major, int *minor, int *patch);

/* ---- errors ------------------------------------------------------------------------------------------------
   Why a request had no reply. The middle column is the status on the wire (ZQB/1, field 3); errno is that number
   above ZQB_ERRNO. Errors of libzmq and of the system keep their own numbers. */

#define ZQB_ERRNO (ZMQ_HAUSNUMERO + 1000)

#define ZQB_ERRORS(X)                                                                                              \
    X (ZQB_ENOWORKER,  1, "no worker for this service came in time")                                               \
    X (ZQB_EQUEUEFULL, 2, "the broker has no room for this request")                                               \
    X (ZQB_EEXPIRED,   3, "the request expired before it was answered")                                            \
    X (ZQB_EREFUSED,   4, "refused by the broker")                                                                 \
    X (ZQB_ELOST,      5, "every worker that tried the request was lost")                                          \
    X (ZQB_ECANCELLED, 6, "the request was cancelled")                                                             \
    X (ZQB_EFAILED,    7, "the worker reported a failure")                                                         \
    X (ZQB_EMALFORMED, 8, "the peer did not understand the message")

#define ZQB_X(name, status, text) name = ZQB_ERRNO + (status),
enum { ZQB_ERRORS (ZQB_X) ZQB_ERRNO_END_ };
#undef ZQB_X

/* The text of an errno, whether of zqbroker, libzmq or the system. Static memory, never NULL. Any thread. */
ZQB_API const char *zqb_strerror (int errnum);

/* ---- messages ----------------------------------------------------------------------------------------------
   A message is an ordered list of frames, each any bytes. It is a value: declare it, init it, close it. Up to two
   frames of up to 33 bytes take no allocation. Never copy the struct; use zqb_msg_move or zqb_msg_copy. Where a
   function takes a message over, it leaves it empty but initialised, so that it can be filled again. */

typedef struct zqb_msg_t {
    size_t count_;
    size_t capacity_;
    zmq_msg_t *many_;
    zmq_msg_t few_[2];
} zqb_msg_t;

/* An empty message. Never fails. */
ZQB_API int zqb_msg_init (zqb_msg_t *msg);

/* Releases all frames and leaves an empty message. Never fails; NULL is accepted. */
ZQB_API int zqb_msg_close (zqb_msg_t *msg);

/* Moves the frames of src to dst, whose own are released; src is left empty. Never fails. */
ZQB_API int zqb_msg_move (zqb_msg_t *dst, zqb_msg_t *src);

/* Makes dst a copy of src; the bytes of larger frames are shared, not copied, so do not write to them afterwards.
   ENOMEM leaves dst as it was. */
ZQB_API int zqb_msg_copy (zqb_msg_t *dst, const zqb_msg_t *src);

/* Appends a frame with a copy of these bytes (data may be NULL when size is 0), or of a string without its NUL.
   ENOMEM leaves the message as it was. */
ZQB_API int zqb_msg_add (zqb_msg_t *msg, const void *data, size_t size);
ZQB_API int zqb_msg_add_str (zqb_msg_t *msg, const char *text);

/* Appends a frame that is the caller's own memory. It must stay as it is until free_fn (data, hint) is called, which
   happens once, in whichever thread drops the last use of it. ENOMEM leaves the memory with the caller. */
ZQB_API int zqb_msg_add_zero_copy (zqb_msg_t *msg, void *data, size_t size, zmq_free_fn *free_fn, void *hint);

/* Appends a frame by moving a libzmq message into it; frame is left empty. ENOMEM leaves it as it was. */
ZQB_API int zqb_msg_add_frame (zqb_msg_t *msg, zmq_msg_t *frame);

/* How many frames; the bytes, the size and the libzmq message of one of them. The pointers are valid until the
   message changes. An index out of range gives NULL or 0, with errno EINVAL. */
ZQB_API size_t zqb_msg_count (const zqb_msg_t *msg);
ZQB_API void *zqb_msg_data (const zqb_msg_t *msg, size_t index);
ZQB_API size_t zqb_msg_size (const zqb_msg_t *msg, size_t index);
ZQB_API zmq_msg_t *zqb_msg_frame (zqb_msg_t *msg, size_t index);

/* ---- dialects ----------------------------------------------------------------------------------------------
   What our own workers and clients speak. The broker itself understands all dialects at once. */

enum {
    ZQB_DIALECT_ZQB1 = 0, /* the native one, the default */
    ZQB_DIALECT_MDP01 = 1, /* Majordomo 0.1, RFC 7: to serve or call any other Majordomo broker */
    ZQB_DIALECT_MDP02 = 2 /* Majordomo 0.2, RFC 18 */
};

/* ---- requests, as a worker sees them -----------------------------------------------------------------------
   A request comes from zqb_worker_recv, or is handed to a handler. It ends with exactly one of reply and fail, which
   also releases it. All of this is for the thread that has the worker. */

typedef struct zqb_request_t zqb_request_t;

/* Does the work: reads (or takes) zqb_request_body, fills reply, returns 0 to send it. Any other value fails the
   request: the client gets ZQB_EFAILED with the first frame of reply as its text, if there is one. */
typedef int (zqb_handler_fn) (zqb_request_t *request, zqb_msg_t *reply, void *arg);

/* The body. It belongs to the request, but may be moved out. Its bytes are for reading: over inproc the frames that are
   not copied are shared with the client and the broker, who may have to send them again. */
ZQB_API zqb_msg_t *zqb_request_body (zqb_request_t *request);

/* The name of the service: NUL-terminated; size (which may be NULL) gets its length, as a name may contain NULs. */
ZQB_API const char *zqb_request_service (zqb_request_t *request, size_t *size);

/* Sends a part of the reply, and more will come; takes msg over on success. Clients whose dialect has no partial
   replies get all parts as the frames of one reply. ENOTCONN: the broker was lost; EAGAIN: it does not take more
   for now. */
ZQB_API int zqb_request_partial (zqb_request_t *request, zqb_msg_t *msg);

/* Sends the reply, or its last part, takes msg over and releases the request: not for use in a handler, whose reply
   is sent when it returns (EINVAL). ENOTCONN: the broker that asked is gone; the request is released all the same. */
ZQB_API int zqb_request_reply (zqb_request_t *request, zqb_msg_t *msg);

/* Reports that the work failed for good, with a text for the client (NULL for none, at most 255 bytes are sent),
   and releases the request. The request is not tried again. MDP has no word for this: the client gets an empty
   reply. Errors as for zqb_request_reply. */
ZQB_API int zqb_request_fail (zqb_request_t *request, const char *text);

/* ---- the broker --------------------------------------------------------------------------------------------
   Any thread may call any function of a broker at any time, except that nothing may be called while or after it is
   destroyed. Its context stays the host's. */

typedef struct zqb_broker_t zqb_broker_t;

enum { ZQB_LOG_ERROR = 1, ZQB_LOG_WARNING = 2, ZQB_LOG_INFO = 3, ZQB_LOG_DEBUG = 4 };

/* Called by the broker's thread, with a line of text without a newline, valid during the call. */
typedef void (zqb_log_fn) (int level, const char *text, void *arg);

typedef struct zqb_broker_options_t {
    int heartbeat_ms;    /* 2500     how often workers hear from us and we expect to hear from idle ones */
    int liveness;        /* 3        an idle worker that is silent for so many heartbeats is gone */
    int attempts;        /* 3        so many workers may be lost over a request before it is given up; -1 all */
    int no_worker_ms;    /* 60000    how long a request waits for a service that has no worker; -1 for ever */
    int max_services;    /* 65536    services known at once */
    int max_workers;     /* 65536    workers registered at once */
    int max_clients;     /* 65536    clients with requests at once */
    int max_requests;    /* 1000000  requests queued and running, in all */
    int max_queue;       /* 1000000  requests queued for one service */
    int max_outstanding; /* 100000   requests queued and running of one client */
    int max_frames;      /* 1000     frames of a body */
    int64_t max_message; /* 64 MiB   bytes of a body */
    int64_t max_bytes;   /* 1 GiB    bytes of all bodies queued and running */
    int send_hwm;        /* 10000    messages that may wait in libzmq for one peer, before we give it up */
    int log_level;       /* ZQB_LOG_INFO, if there is a log function */
    zqb_log_fn *log;     /* NULL     nothing is printed, ever, but through this */
    void *log_arg;
} zqb_broker_options_t;

/* A broker in this context. options may be NULL, and is copied. EINVAL, ENOMEM, or what zmq_socket says (ETERM, EMFILE).
 */
ZQB_API zqb_broker_t *zqb_broker_new (void *ctx, const zqb_broker_options_t *options);

/* An endpoint for clients and workers that speak Majordomo or ZQB/1. As often as wanted, before or while it runs.
   Errors are zmq_bind's: EADDRINUSE, EINVAL, ENODEV, EPROTONOSUPPORT ... */
ZQB_API int zqb_broker_bind (zqb_broker_t *broker, const char *endpoint);

/* A frontend for plain REQ or DEALER clients and a backend for LRU and PPP workers, which name no service: both are
   of this one. It is the same service that Majordomo and ZQB/1 peers know by that name. Errors as for
   zqb_broker_bind; EINVAL for a name that is empty, over 255 bytes, or starts with "mmi.". On failure neither is bound.
 */
ZQB_API int zqb_broker_bind_lru (zqb_broker_t *broker, const char *frontend, const char *backend, const char *service);

/* An endpoint as libzmq spells it: "tcp://127.0.0.1:49152" for "tcp://127.0.0.1:*". index counts in the order of binding
   from 0 (bind_lru adds its frontend, then its backend), or back from the last, which is -1. buffer gets it with its
   NUL, size says how large it is (256 is enough). EINVAL if it is too small, or there is no such endpoint. */
ZQB_API int zqb_broker_endpoint (zqb_broker_t *broker, int index, char *buffer, size_t size);

/* Serves a service inside the broker's own thread: for what takes microseconds, as everything else waits meanwhile.
   A handler for a name replaces the one before, and NULL removes it. EINVAL for a bad name (see zqb_broker_bind_lru;
   "mmi." names are allowed here); ENOMEM; EADDRINUSE if workers serve that name. */
ZQB_API int zqb_broker_handle (zqb_broker_t *broker, const char *service, zqb_handler_fn *handler, void *arg);

/* Three ways to run it. EALREADY if it runs already.
   start: in a thread of its own, until stop or destroy. EAGAIN when there is no thread to be had.
   run: in the calling thread, until stop (returns 0) or the end of the context (-1, ETERM).
   step: from a loop of the host's: takes what there is, waiting at most timeout_ms for it (0 not at all, -1 as long as
   it takes), and returns in how many milliseconds it wants to be called again at the latest. To wait elsewhere, poll
   zqb_broker_fd for reading, call step with 0 when it is readable or that time is over, and call it again until it
   did nothing more: the descriptor tells changes, as ZMQ_FD does. ETERM when the context ends. */
ZQB_API int zqb_broker_start (zqb_broker_t *broker);
ZQB_API int zqb_broker_run (zqb_broker_t *broker);
ZQB_API int zqb_broker_step (zqb_broker_t *broker, int timeout_ms);

/* A descriptor that becomes readable when there is something to do; see zqb_broker_step. It belongs to the broker.
   ENOTSUP after zqb_broker_bind_lru, except on Linux. */
ZQB_API int zqb_broker_fd (zqb_broker_t *broker);

/* Asks start's thread, run or step to end, and returns at once. May be called in a signal handler. The sockets stay
   bound and the requests stay queued, until it is started again or destroyed. */
ZQB_API void zqb_broker_stop (zqb_broker_t *broker);

/* Stops it, waits for its thread, and frees everything. Workers that can be told are told to disconnect; requests
   that were not answered are gone, and those of ZQB/1 clients are told so (ZQB_ECANCELLED). Not in a handler. */
ZQB_API void zqb_broker_destroy (zqb_broker_t **broker);

/* Counters since the broker was made, and how things stand now. At any moment
   accepted = replied + failed + expired + cancelled + dead + client_gone + queued + running */

#define ZQB_STATS(X)                                                                                               \
    X (accepted, "requests taken into a queue, or given to a handler")                                             \
    X (replied, "requests answered")                                                                               \
    X (failed, "requests that a worker or a handler reported as failed")                                           \
    X (expired, "requests that found no worker in time")                                                           \
    X (cancelled, "requests that their client cancelled, or cut off by the end of the broker")                     \
    X (dead, "requests given up after too many lost workers")                                                      \
    X (client_gone, "requests whose client went away")                                                             \
    X (queued, "requests waiting now")                                                                             \
    X (running, "requests held by workers now")                                                                    \
    X (bytes, "bytes of the bodies of both, now")                                                                  \
    X (services, "services known now")                                                                             \
    X (workers, "workers registered now")                                                                          \
    X (clients, "clients with requests now")                                                                       \
    X (partials, "partial replies passed on")                                                                      \
    X (requeued, "times that a request went back to its queue because its worker was lost")                        \
    X (joined, "retries that found their request still here")                                                      \
    X (workers_lost, "workers gone without a word: silent, unreachable or broken")                                 \
    X (workers_left, "workers that said goodbye")                                                                  \
    X (refused_full, "requests refused because a limit was reached")                                               \
    X (refused_name, "requests and workers refused because of the name of the service")                            \
    X (refused_large, "messages refused because of their size or number of frames")                                \
    X (refused_worker, "workers refused because a limit was reached")                                              \
    X (bad_header, "messages without a header that we know")                                                       \
    X (bad_command, "messages with a command that is not known, or not in that direction")                         \
    X (bad_frames, "messages with frames missing, or too many, or cut short")                                      \
    X (bad_state, "commands of a worker that is not registered")                                                   \
    X (stale, "replies to what that worker does not hold: late, repeated or forged")                               \
    X (unsendable, "messages that could not be sent, because the peer was gone or did not read")                   \
    X (no_memory, "messages lost because there was no memory for them")                                            \
    X (messages_in, "messages received") X (messages_out, "messages sent")

#define ZQB_X(name, text) uint64_t name;
typedef struct zqb_stats_t {
    ZQB_STATS (ZQB_X)
} zqb_stats_t;
#undef ZQB_X

ZQB_API int zqb_broker_stats (zqb_broker_t *broker, zqb_stats_t *stats);

/* ---- the worker --------------------------------------------------------------------------------------------
   It belongs to one thread. It registers, sends heartbeats whenever it is in recv, registers again when the broker was
   lost or started anew, and says goodbye when it is destroyed. */

typedef struct zqb_worker_t zqb_worker_t;

typedef struct zqb_worker_options_t {
    int dialect;          /* ZQB_DIALECT_ZQB1 */
    int credit;           /* 1      requests it may hold at once, up to 65535; MDP allows only one */
    int heartbeat_ms;     /* 2500   how often it tells the broker that it lives, and expects to be told */
    int liveness;         /* 3      a broker that is silent for so many heartbeats is lost */
    int reconnect_ms;     /* 100    pause before a lost broker is tried again; doubles each time, give or take a half */
    int reconnect_max_ms; /* 10000  and goes no higher */
    zqb_log_fn *log;      /* NULL */
    void *log_arg;
} zqb_worker_options_t;

/* A worker for this service (1 to 255 bytes) at this endpoint, or at the first of several that answers, separated by
   commas. Returns at once; the broker need not be there yet. EINVAL for a bad endpoint, name or option, or a name that
   starts with "mmi."; ENOMEM; what zmq_socket and zmq_connect say. */
ZQB_API zqb_worker_t *zqb_worker_new (
    void *ctx, const char *endpoints, const char *service, const zqb_worker_options_t *options);

/* The next request, which is the caller's until zqb_request_reply or _fail. Waits at most timeout_ms (0 not at all, -1
   for ever). NULL and errno: EAGAIN (none came), EINTR (a signal came), ECANCELED (zqb_worker_stop), ETERM (the
   context ended), ZQB_EREFUSED (the broker does not want it; going on tries again later). */
ZQB_API zqb_request_t *zqb_worker_recv (zqb_worker_t *worker, int timeout_ms);

/* recv, handler, reply, for ever: until zqb_worker_stop (returns 0), or ETERM or ZQB_EREFUSED (-1). */
ZQB_API int zqb_worker_run (zqb_worker_t *worker, zqb_handler_fn *handler, void *arg);

/* Ends run, and makes recv say ECANCELED, from now on. Returns at once. Any thread, and signal handlers. */
ZQB_API void zqb_worker_stop (zqb_worker_t *worker);

/* Readable when zqb_worker_recv with a timeout of 0 might do something; like ZMQ_FD it tells changes: call recv until
   EAGAIN before waiting, and at least every heartbeat_ms. */
ZQB_API int zqb_worker_fd (zqb_worker_t *worker);

/* Says goodbye, so that the requests it holds go to others at once, and frees it, its requests too. */
ZQB_API void zqb_worker_destroy (zqb_worker_t **worker);

/* ---- the client --------------------------------------------------------------------------------------------
   It belongs to one thread. Each request has an id of its own, so that a late answer can never be taken for another's. */

typedef struct zqb_client_t zqb_client_t;

typedef struct zqb_client_options_t {
    int dialect;     /* ZQB_DIALECT_ZQB1; with MDP one request is under way at a time, the others wait in the client */
    int timeout_ms;  /* 2500    how long one try may take; -1 for ever */
    int retries;     /* 2       how often it is tried again after the first time; -1 never. ZQB/1 does not run it twice */
    int max_pending; /* 100000  requests outstanding at once */
} zqb_client_options_t;

/* What zqb_client_recv gives. */
enum { ZQB_REPLY_FINAL = 0, ZQB_REPLY_PARTIAL = 1, ZQB_REPLY_ERROR = 2 };

typedef struct zqb_reply_t {
    uint64_t id;    /* which request this is about */
    int kind;       /* FINAL and ERROR end a request, PARTIAL is followed by more */
    int error;      /* why, for ERROR: ETIMEDOUT or one of ZQB_ERRORS; else 0 */
    zqb_msg_t body; /* the reply, or a text about the error in one frame, or nothing */
} zqb_reply_t;

/* A client of the broker at this endpoint, or, with several separated by commas, of one after the other when one does
   not answer. Returns at once; the broker need not be there yet. EINVAL, ENOMEM; what zmq_socket and zmq_connect say. */
ZQB_API zqb_client_t *zqb_client_new (void *ctx, const char *endpoints, const zqb_client_options_t *options);

/* Sends a request and waits for its reply, which replaces what was in reply; the parts of a partial reply come as the
   frames of one. On success request is left empty. On failure request is as it was, and reply holds the text of the
   error, if there is one: ETIMEDOUT (no answer to any try), one of ZQB_ERRORS, EINVAL (bad service name: 1 to 255
   bytes), EMSGSIZE (a frame of 2 GiB or more), EAGAIN (max_pending), ENOMEM, EINTR, ETERM. After EINTR the request is cancelled. */
ZQB_API int zqb_client_call (zqb_client_t *client, const char *service, zqb_msg_t *request, zqb_msg_t *reply);

/* Takes a request over and returns at once; id (which may be NULL) gets its number, never 0. It leaves at once, unless
   another left within the last 50 microseconds: then it leaves together with those that follow, at the latest in the
   next zqb_client_recv or zqb_client_flush. Errors leave request as it was: EINVAL, EMSGSIZE, EAGAIN, ENOMEM, ETERM. */
ZQB_API int zqb_client_submit (zqb_client_t *client, const char *service, zqb_msg_t *request, uint64_t *id);

/* Sends what waits to be sent. Only needed when no zqb_client_recv follows soon. ETERM. */
ZQB_API int zqb_client_flush (zqb_client_t *client);

/* The next reply to a submitted request, in the order in which they arrive. Initialise reply->body before the first
   use; it is replaced. Waits at most timeout_ms (0 not at all, -1 as long as it takes). EAGAIN (none came), ENOENT
   (nothing is outstanding), EINTR, ETERM. */
ZQB_API int zqb_client_recv (zqb_client_t *client, zqb_reply_t *reply, int timeout_ms);

/* Gives a request up: no reply to it will be delivered any more, and the broker drops it if it has not begun. ENOENT
   if it has ended already. */
ZQB_API int zqb_client_cancel (zqb_client_t *client, uint64_t id);

/* Readable when zqb_client_recv with a timeout of 0 might do something; like ZMQ_FD it tells changes: call recv until
   EAGAIN before waiting, and at least every timeout_ms. It changes when the client tries another broker. */
ZQB_API int zqb_client_fd (zqb_client_t *client);

ZQB_API void zqb_client_destroy (zqb_client_t **client);

/* ---- the pool: threads of workers --------------------------------------------------------------------------*/

typedef struct zqb_pool_t zqb_pool_t;

typedef struct zqb_pool_options_t {
    int threads;                 /* as many as the machine has processors */
    zqb_worker_options_t worker; /* of each of them */
} zqb_pool_options_t;

/* Starts threads, each with a worker that runs this handler; the handler is called by several threads at once. Errors
   as for zqb_worker_new; EAGAIN when there is no thread to be had, and then none is left running. */
ZQB_API zqb_pool_t *zqb_pool_start (void *ctx, const char *endpoints, const char *service, zqb_handler_fn *handler,
                                    void *arg, const zqb_pool_options_t *options);

/* Ends them all: each finishes the request that it works on, says goodbye, and those it held besides go to others.
   Waits for that. Call it before the context is terminated. */
ZQB_API void zqb_pool_stop (zqb_pool_t **pool);

/* ----------------------------------------------------------------------------------------------------------------
   The API ends here, you can stop reading. What follows is how it works.
   ---------------------------------------------------------------------------------------------------------------- */

#endif /* ZQBROKER_H_INCLUDED */
