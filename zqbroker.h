/*  zqbroker.h 0.2.0 - an LRU and Majordomo message broker, its workers and its clients, in one file, over libzmq

    In ONE C or C++ file, before the include:       #define ZQBROKER_IMPLEMENTATION
    In every other file just:                       #include "zqbroker.h"
    Link with:                                      -lzmq       (and -pthread, if glibc is older than 2.34)

        #define ZQBROKER_IMPLEMENTATION
        #include "zqbroker.h"
        #include <ctype.h>
        #include <stdio.h>

        static int upper (zqb_request_t *request, zqb_msg_t *reply, void *arg)
        {
            zqb_msg_t *body = zqb_request_body (request);
            (void) arg;
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

    What it does: requests wait in queues, by priority, until a worker is free; what a dead worker held goes to another;
    deadlines, delays, cancelling, progress, replies in parts; pools that grow with the load; keys, passwords and rules
    for users; limits for everything. Other peers may speak Majordomo, Paranoid Pirate or plain REQ.
    What it does not: requests live in memory, and are gone with the broker's process; one that was begun by a worker
    that was lost is executed again, unless attempts is 1 (see 3). Linux is tested, Windows is only compiled, macOS was
    not tried. Licence: MIT or public domain, at the end of this file.

    Where to read on: the manual is below. Behind it, at ">>api", is every function with its errors.

    ============================================================================================================
    MANUAL

    1  Concepts       2  Ownership and threads       3  What is guaranteed, and what is not
    4  Options        5  Errors                      6  The mmi services
    7  Wire formats   8  ZQB/1, byte by byte         9  Building                    10  Security
    11 Who may connect                               12 Changes

    1 CONCEPTS

        client  ---request--->  +--------+  ---request--->  worker "upper"
        client  <---reply----   | broker |  <---reply----   worker "upper"
        client                  +--------+                  worker "count"

    A SERVICE is a name, 1 to 255 bytes. Workers register for one; clients call one. The broker makes it when it is
    first named, and forgets it when it has neither workers nor requests. A worker may also register for a PATTERN, a
    name that ends with "*": "img.*" serves all that start with "img.", but those that have workers or a handler of
    their own, or workers for a longer pattern. What waits for a service without workers moves to one that serves it.

    A REQUEST is QUEUED until a worker of its service has room, then RUNNING, then over: replied, failed, expired,
    cancelled, dead (too many workers were lost over it), or its client is gone. If its worker is lost it goes back
    to the head of its queue, at once, or after a pause if it asked for one (backoff_ms).

    WHAT A REQUEST MAY ASK FOR stands in zqb_request_options_t; here is what comes of it. Only clients of ZQB/1 can ask
    for it; a worker of any dialect can do the work.

        priority    the highest that waits is served first. With ageing_ms what has waited for long rises, so that
                    nothing waits for ever.
        deadline    when it is over the client is told, wherever the request is. A worker that is at it is told, too,
                    and may ask how much time is left (zqb_request_left_ms) and whether to go on (_cancelled).
        delay       the broker keeps it until then, and queues it behind what is there. A deadline begins at once.
        attempts, backoff   how many workers may be lost over it, and how long it rests in between.
        unique      it joins one with the same key that the broker has for this service: one execution, an answer for
                    each. The key is free again when that has ended; it is no memory of what was done. Who cancels,
                    or whose deadline is over, leaves the others in it.
        affinity    requests with the same key go to the same worker as long as it lives: to keep a cache warm, or a
                    session. They wait for it when it is busy, while others are idle.
        one_way     no answer, nor an error. That it was refused only the broker's counters tell.
        fail_fast   no waiting for a service that has no worker.
        survey      each worker that the service has at that moment is asked, once. Each answer comes as it is there,
                    and at the end how many of how many answered. Delay, unique and affinity mean nothing to it.

    The host's FILTER (zqb_broker_options_t.filter) sees each request before it is queued: it may refuse it, or change
    what it asks for. It does not see what handlers and mmi services serve.

    A WORKER holds at most as many requests as its CREDIT. It is 1 in all dialects but ZQB/1, where the worker fixes it,
    or leaves it to the broker, who lets each hold about a millisecond of its own work (credit_us): a slow worker one
    request, a fast one hundreds, for which neither has to wait. The least loaded worker is served first, an idle one
    before all others, and among equals the one that has waited longest: LRU. zqb_broker_policy has others.

    A worker says how far it is (zqb_request_progress), sends the reply in parts (_partial), or at once (_reply), fails
    the request for good (_fail), or REFUSES it (_refuse): then another gets it. With 32 parts under way it waits for
    the client to read. If it fails again and again, or is too slow, it can be RESTED for a while (rest_failures).

    A worker that is DRAINED takes no more requests, finishes those that it has, and leaves: nothing is lost or done
    twice. That is how to end one (zqb_worker_drain, in a handler of SIGTERM) or to exchange it (zqb_broker_drain).
    zqb_worker_stop and _destroy are faster: what it had goes to others.

    A pool may be ELASTIC: threads come while requests have to wait, and are drained when fewer would do (scale, in its
    options). For processes zqb_broker_scale tells the host how many workers a service should have.

    A DIALECT is how a peer talks. The broker tells it from what a peer sends, answers in kind, and lets any client be
    served by any worker:

        ZQB/1            what zqb_client_t and zqb_worker_t speak; see 8
        MDP/0.1          Majordomo, RFC 7; also with the commands in words (READY, REQUEST, REPLY ...)
        MDP/0.2          Majordomo, RFC 18, with partial replies
        LRU              REQ workers of the ZeroMQ Guide (zguide.zeromq.org), chapters 3 and 4; any REQ client
        PPP              Paranoid Pirate workers, RFC 6; any REQ client

    The first three share the endpoints of zqb_broker_bind. LRU and PPP name no service, so zqb_broker_bind_lru gives
    them a frontend and a backend that belong to one service.

    HEARTBEATS go both ways, as the protocols say. An idle worker that is silent for liveness x heartbeat_ms is lost;
    one that is at work may be silent as long as it likes, for a single thread cannot work and talk: of such a worker
    its connection tells whether it lives, and so of LRU workers, who know no heartbeats. When the connection of a
    worker is gone (its process died, or its machine no longer answers TCP), it is lost at once. Our workers and clients
    also send the heartbeats of ZMTP: a process of theirs that is frozen at work is lost like a silent one, if such a
    heartbeat was the last that came from it. One that was frozen before it sent the next, and a handler that hangs, are
    found by zqb_broker_time_limit alone. If the broker itself stood still for long, nobody gets a request for up to 50
    ms, until it has heard who is there.

    2 OWNERSHIP AND THREADS

    Messages are values; each function says when it takes one over. A broker, a pool and what zqb_auth_start gives may
    be used by any thread, and have threads of their own when they are started. A worker, a client and a request belong
    to one thread at a time. Handlers of a pool, and the log and cancelled functions of its workers, run in several
    threads at once. What the host gives to the broker (handlers, filter, outcome, choose, on_scale, dead_letter,
    access, log) is called by the broker's thread, or by one that calls a function of the broker, which waits for it;
    never by two at once. What it gives to zqb_auth_start is called by the thread that answers.

    The host keeps its context, its signals, its standard output and its process: nothing here prints, exits, aborts,
    or handles a signal.

    SIGNALS. Threads of ours block all of them, but for those by which the system tells a thread of its own mistake
    (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS); a program that a handler starts inherits that. In a thread of
    the host's a signal that is handled ends the waiting, with or without SA_RESTART: zqb_worker_recv, zqb_client_recv
    and zqb_client_call return EINTR, and zqb_broker_step early; run goes on. Nothing is lost by it, but that a call is
    cancelled. zqb_broker_stop, zqb_worker_stop and zqb_worker_drain are all that may be called in a signal handler.

    THE END OF THE CONTEXT. After zmq_ctx_shutdown whatever blocks returns ETERM, and so does all that needs a socket
    from then on; requests and replies that had come before may still be handed out. The threads of pools and of a
    started broker end. Destroy workers, clients, pools and brokers before zmq_ctx_term, which otherwise waits for them.
    It waits half a second at most for what was sent to peers that are away.

    FORK. Nothing of this may be used in a child after fork, except to exec another program or to _exit, in which it
    disturbs nobody. A program that is executed inherits no descriptor of ours. A child that does neither has them all:
    should the parent die, its endpoints stay taken, and its peers hear of its death from heartbeats only. exit may be
    called by any thread, whatever is at work; what is not answered by then is gone.

    3 WHAT IS GUARANTEED, AND WHAT IS NOT

    - Every request that was accepted ends in exactly one way, and is counted so (zqb_stats_t).
    - A reply reaches the client whose request that worker holds, and no other; a late, repeated or forged one
      reaches nobody, and is counted.
    - A worker never holds more than its credit.
    - Of the requests that wait for a service, those of the highest priority are served first. Within one priority
      clients take turns, one request each, so none has to wait behind all that another has sent; the requests of
      one client are served in the order in which they came. Each client behind a proxy is one.
    - At its deadline the client is told that it is over, whatever the broker or the worker does. The worker is told,
      but not stopped: what it answers later reaches nobody.
    - While a request with a `unique` key is queued or running, it is executed once for all of one user (10) that have
      this key. One whose worker is lost is executed again, like any other.
    - Requests with the same `affinity` key are with one worker at a time, but for what one that was lost or drained
      may still be doing.
    - A worker that is drained gets nothing more as soon as the broker hears of it, and finishes what it got by then.
      MDP has no word for that: what crosses the goodbye of such a worker goes to another, and counts as an attempt.
    - A worker that says goodbye, registers again, falls silent or cannot be reached loses what it holds to others, at
      once when that is known: at most `attempts` times, then the request is dead, and the host gets it (dead_letter).
      When a ZQB/1 worker says goodbye that has begun nothing of it, that does not count as an attempt, nor does what
      one refuses.
    - So a request may be executed more than once, when a worker was lost that had begun it: work that must not be
      done twice has to be recognised by the worker. Also when its reply was lost with the client's connection, and the
      client asks again. With attempts = 1 a broker has it executed at most once each time that it is asked, and a
      client with retries = -1 asks once: if its connection is lost, it is told ETIMEDOUT.
    - A client of ZQB/1 that tries again, even over a new connection, joins the request if the broker still has it.
    - Nothing a peer sends ends the process, leaks, or blocks the loop. What is refused is counted.
    - Requests live in memory: when the broker's process ends, they are gone. Clients then try again.
    - If a worker is lost after some partial replies, those already sent come again from the next one.
    - Without rules (10) everybody who can connect may call and serve everything.
    - With CURVE (server_secret, server_public) nobody on the network reads or changes what is said, and a client or
      worker talks to the broker that has that key, or to none. Whom the broker talks to, a ZAP handler decides; without
      one, everybody who has its public key. With PLAIN passwords and all else can be read on the way.
    - Without a mechanism there is no encryption and no authentication: bind tcp only where you trust who can connect.

    4 OPTIONS

    zqb_broker_options_t, zqb_worker_options_t, zqb_client_options_t, zqb_pool_options_t, zqb_request_options_t (of a
    single request), zqb_scale_options_t (of an elastic pool) and zqb_auth_options_t below, each field with its default
    beside it. Zero means the default, so start from a struct of zeros, or pass NULL. -1 means off or without limit:
    for each time and limit of a broker, a client and zqb_auth_start, for all but min and max of a scale, and else where
    it stands beside the field. Names end with the unit: _ms milliseconds, _us microseconds; sizes are bytes. Strings
    are copied; functions, their arg and auth have to last as long as the object.

    5 ERRORS

    Functions return -1, or NULL, and set errno. ZQB_ERRORS below lists the codes of our own with their texts;
    zqb_strerror knows them and all others. A broker tells ZQB/1 clients what became of a request. The older dialects
    have no words for it: their clients hear nothing, and time out, as they expect to.

    ZQB_EFAILED comes with a code of the worker's own and a text; ZQB_EREFUSED with the text of the host's filter, or
    because every worker of the service has refused the request, or eight have, or because its body is over max_message
    or max_frames. What is over another limit is ZQB_EQUEUEFULL, but ZQB_ENOWORKER at max_no_worker. None of these is
    tried again: that is for the caller to decide. ETIMEDOUT is the client's own: nobody answered any try. With a
    deadline it is ZQB_EEXPIRED, but for a client with retries = -1 that loses its connection.

    A CONNECTION THAT IS REFUSED, as the client or worker sees it, with libzmq 4.3 or newer:

        the ZAP handler says no, with 400 or 500     client: EACCES at once; worker: log, and longer and longer pauses
        mechanisms differ, or no broker is there     client: EPROTO, mostly within a second, as libzmq does not tell
                                                     of each try; worker: the same
        server_public is not the broker's            silence: client: ETIMEDOUT after the last try, or ZQB_EEXPIRED;
        the handler says 300 (later), or is missing  worker: log after liveness x heartbeat_ms. libzmq tries again and
        where it is needed (auth, plain,             again, so that it goes on when that is put right. With libzmq 4.2
        zap_domain)                                  all of these look so

    What the broker refuses it does not count: its sockets do not tell it. The handler knows.

    6 THE MMI SERVICES (RFC 8, and three of our own)

    Any client may call them, unless there are rules (10). Each takes and returns text frames.

        mmi.service   body: the name of a service. Reply: "200" it has workers (its own, or those of a pattern) or a
                      handler, "404" it has none; "400" without a body.
        mmi.services  body: the name of a service, or nothing (or an empty frame), for all. Reply: one frame a service,
                      "NAME queued=N running=N workers=N handler=0|1 oldest_ms=N delayed=N pinned=N", in which bytes
                      of NAME that are not printable ASCII, and spaces and backslashes, are written \xHH. Of those
                      queued some are delayed and some wait for one worker (pinned); oldest_ms is how long the oldest
                      of the others has waited. No frame for a service that is not known.
        mmi.workers   Reply: one frame a worker, "SERVICE dialect=NAME load=N credit=N served=N silent_ms=N id=N
                      failed=N slow=N resting=0|1 draining=0|1", where NAME is ZQB/1, MDP/0.1, MDP/0.1-words, MDP/0.2,
                      LRU, PPP or PPP-words, and id is what zqb_broker_drain takes.
        mmi.stats     Reply: one frame a counter of zqb_stats_t, "name=N", as they were before this call.
        mmi.anything  else: "501", unless the host serves it (zqb_broker_handle).

    mmi.services and mmi.workers list at most 1000, or 2000 together for what one message asks for, and then end with
    the frame "...". Workers may not register for
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

    In MDP/0.1, MDP/0.2 and ZQB/1 any frames in front of the header, up to 8 of up to 1024 bytes, are an envelope and
    come back as they were: the empty frame of a REQ socket, addresses of proxies. So MDP/0.2 works with and without an
    empty frame in front. On an LRU frontend the envelope ends with the first empty frame. A request has at least one
    frame of body, except in ZQB/1. A worker that registers again under the same address starts anew.

    8 ZQB/1, BYTE BY BYTE

    What MDP cannot say - ids, credit, errors, cancel - and many commands in one message. Sent by DEALER sockets to the
    broker's ROUTER. All integers are unsigned and big-endian. A MESSAGE is one frame of commands, and behind it the
    large body frames that those commands mention, in that order.

        the first frame
            0   4   "ZQB" and 0x01
            4   8   the sender's life: a random number, kept as long as the sender's object lives, whatever becomes
                    of its connections. A client that reconnects is known by it; a worker must register from where it
                    speaks. Who changes it is another. A broker that changes it was restarted:
                    workers then register again and forget what they held, clients send again what has no answer.
           12       commands, one behind the other, until the frame ends; at least one

        a command
            0   4   its size in bytes, from here to the end of its body block; at least 16
            4   1   its type, see below; a receiver skips a type that it does not know
            5   1   flags, of which a receiver ignores those that it does not know:
                    0x01 AGAIN      in a client's REQUEST: the broker may have it already
                    0x02 UNBEGUN    in a worker's DISCONNECT: it has begun nothing of what it holds
                    0x04 ONE_WAY    in a client's REQUEST: no answer is wanted, nor an error; its number may be 0
                    0x08 FAIL_FAST  in a client's REQUEST: an error (status 1) rather than to wait for a service without
                                    workers
                    0x10 SURVEY     in a client's REQUEST: for each worker of the service
                    0x20 WINDOW     in a REQUEST to a worker: who reads the parts of the reply says MORE
            6   2   bytes of the fields
            8   8   id, see below
           16       the fields: tag (1 byte), length (1 byte), value; a receiver skips a tag that it does not know, and
                    drops the rest of a message from a value on that has another length than it should
           ..       the body block, up to the size: frame by frame, 4 bytes of length and so many bytes; or, if the top
                    bit of the length is set, 4 bytes only: this frame is the next of the large frames behind the first
                    frame, and the lower 31 bits are its size

        fields      1  service   1 to 255 bytes
                    2  credit    2 bytes: how many requests the worker may hold; 0: as many as the broker thinks best
                    3  status    2 bytes: one of ZQB_ERRORS
                    4  text      0 to 255 bytes of UTF-8, for people
                    5  heartbeat 4 bytes: how many milliseconds pass between a worker's heartbeats; 0: it sends none,
                                 and needs none. Without this field, what the broker has as its own.
                    6  priority  1 byte: 128 is normal, 124 the lowest, 132 the highest; beyond is the nearest of these
                    7  deadline  4 bytes: milliseconds that are left until nobody wants a reply any more, and the client
                                 is told status 3; 0: none
                    8  delay     4 bytes: milliseconds before which it is not to be begun
                    9  attempts  2 bytes: so many workers may be lost over it; 65535: all; 0: the broker's option
                    10 backoff   4 and 4 bytes: milliseconds between the first attempt and the second, which double
                                 with each; and the most that they get to
                    11 unique    1 to 255 bytes: while another request with this key is here, at the same service, this
                                 one joins it: it is not executed, but gets the answer to that, and what comes before
                    12 affinity  1 to 255 bytes: those with this key go to the same worker, at the same service
                    13 progress  8 and 8 bytes: so much is done, of so much in all
                    14 code      4 bytes: why it failed, as the worker numbers it
                    15 user      1 to 255 bytes: whose request it is

        types       id                       from, to           what
         1 READY       0                     worker -> broker   service, credit (1 if missing), heartbeat: I serve this.
                                                                A second one starts anew: what the worker held goes to
                                                                others.
         2 REQUEST     the client's number   client -> broker   service, body; fields 6 to 12, each of which may be
                                                                missing. The number is the client's choice, and unique
                                                                in its life. Who sends a number for the second time
                                                                sets AGAIN: it joins the first, if the broker has that
                                                                still.
                       token                 broker -> worker   body: do this; deadline, if there is one; service, if
                                                                the worker registered for a pattern; user, if the
                                                                client has proved to be one. From a client, user means
                                                                nothing.
         3 PARTIAL     token, number         worker -> broker -> client    body: a part of the reply
         4 REPLY       token, number         worker -> broker -> client    body: the reply, or its last part
         5 ERROR       token                 worker -> broker   code, text: the work failed. With status 4 (refused):
                                                                it is not for me, give it to another.
                       number                broker -> client   status, code, text: there will be no reply
                       0                     broker -> any      status, text: about the whole peer
         6 HEARTBEAT   0                     both               I live; any message says the same. A broker answers that
                                                                of a stranger with DISCONNECT.
         7 DISCONNECT  0                     worker -> broker   goodbye; what it held goes to others. With UNBEGUN it
                                                                has begun none of them: that is no attempt.
                                             broker -> worker   you are not registered (any more); status if refused
         8 CANCEL      number                client -> broker   no answer is wanted; a queued request is dropped
                       token                 broker -> worker   nobody wants an answer any more. The worker still ends
                                                                it, with a REPLY or an ERROR, whenever it likes.
         9 PROGRESS    token, number         worker -> broker -> client    progress, text: how far it is
        10 MORE        number, token         client -> broker -> worker    credit: so many parts more may come;
                                                                65535: any number
        11 DRAIN       0                     worker -> broker   I take no more requests. The broker answers with DRAIN,
                                                                behind which there is none; the worker ends what it
                                                                has, and says DISCONNECT. Ours does not wait for
                                                                longer than 10 seconds for that answer.
                                             broker -> worker   the same, if the broker wants it

    A sender packs what it has for a peer at that moment into one message, and never waits for more. No command starts
    behind the first 65536 bytes, nor when 256 large frames are behind the first already. How large a body frame must
    be to travel on its own is the sender's choice (ours: more than 1024 bytes). An idle worker sends something at least
    as often as its READY says, and the broker to it, so that their settings need not be the same. Types 12 to 31 and
    tags 16 to 31 are kept for later versions, the rest is free for experiments.

    A worker's service that ends with "*" is a pattern: it serves all names that start with what stands before, and have
    neither workers of their own nor those of a longer pattern.

    A reply in parts: a worker that is asked with WINDOW sends at most 32 PARTIALs, and one more for each that it is
    granted by MORE: so a client that reads slowly slows the worker down, and nobody hoards. A client says MORE for
    every 16 parts that it has read, with 16 as the credit; and with 32 behind each request that it sends again over a
    new connection, as what was lost with the old one will not be read. The broker passes on one MORE for each part, and
    32 besides.

    A SURVEY is answered by a PARTIAL for each worker that answers, in the order in which they do, and at the end by a
    REPLY without a body, with progress: so many answered, of so many that were asked. What becomes of it when its
    deadline is over is the same: who has not answered by then is not waited for. It takes no part in unique, affinity
    and delay, and ends with status 1 if there is no worker.

    9 BUILDING

    C99 or C++17; libzmq 4.2 or newer; nothing else, but -pthread where the C library does not have threads itself
    (glibc before 2.34). Define these before the include with the implementation:

        ZQBROKER_IMPLEMENTATION       compile it here; in one file of the program
        ZQBROKER_STATIC               everything static: each file that defines both has a copy of its own
        ZQB_MALLOC, ZQB_REALLOC, ZQB_FREE   all three or none: instead of malloc, realloc and free; ZQB_FREE is called
                                            by libzmq's threads, too, until zmq_ctx_term

    10 SECURITY

    WHO IS WHO. A peer is what the connection proves that it came over: a USER ID, which libzmq's authentication (ZAP,
    RFC 27) gives to a connection, when that is made. It counts if the broker has `auth`, `plain` or `zap_domain`: then
    nobody gets in without a handler that says who he is. Else all are nobody, as libzmq may know only what they say of
    themselves; so are peers of a connection without a user id. What a peer says of itself counts for nothing: routing
    ids, ids of requests, properties of its handshake and the `life` of ZQB/1 are no proof of anything, and none of them
    gives a peer what another user's is. Who comes over an endpoint of inproc is of our own process.

    RULES say who may do what. There are none at first, and then everything is allowed. They stand in a file
    (zqb_broker_rules), or come one by one (zqb_broker_rule):

        # who           what          services
        group  shop     web.* alice                     # names of users, or their beginnings
        group  shop     bob                             # adds to it
        deny   web.test call          pay.refund
        allow  @shop    call          pay.* stock.*
        allow  pay-1    serve         pay.*
        allow  ops      call,manage   *
        allow  @inproc  call,serve,manage  *            # our own pools ask for mmi.services if they are elastic

    The first rule that is about it says whether something is allowed; what none is about is denied. So it is best to
    have rules before the first endpoint is bound.

        who        "alice"; "web.*", all that begin so; "*", all that have a user id; "-", who has none, and so also who
                   is in the broker's own process; "@inproc", the latter alone, who are as good as the host; "@NAME", a
                   group that is defined above
        what       call: to ask for something; serve: to be a worker; manage: to ask for mmi services, and for surveys.
                   A rule of calls will do for mmi services that it names: "call mmi.service", "call mmi.*".
        services   names, or patterns with a star at the end. A worker that registers for a pattern has to be allowed
                   to serve all that it stands for. A request is judged by the name that the client calls, whoever
                   serves it.

    A line is read by words, and ends at one that begins with "#". In names each byte may be written as \xHH, and
    blanks, control characters and backslashes must be; so must "*" at the end, "#" at the beginning, and of a user "-"
    alone and "@" at the beginning, if they are meant. A group has users, "-" and "@inproc", but no groups. At most
    65536 rules, one for each of the services in a line; 256 groups; 1 MiB. Nothing of a file holds if anything in it is
    wrong.

    What is denied: a client of ZQB/1 hears ZQB_EDENIED, a worker DISCONNECT with that status (zqb_worker_recv says
    ZQB_EDENIED, and going on tries again later). The older dialects have no word for it: their clients hear nothing;
    an MDP worker is sent away; workers of LRU and PPP hear nothing. It is counted (denied_call, denied_serve), and
    logged: at most once a second for each user; of all that peers do wrong ten lines a second, and a hundred of workers
    that come and go, and then how many there were besides. What is found out is remembered for each client, so that it
    costs next to nothing. What is not, as nobody knows the service, costs the same however many rules there are, but
    for those of the same services that are about groups or beginnings of users; for how many different sizes patterns
    have; and, for who serves a pattern or calls what is served by one, those that deny something to him or to these.

    WHEN RULES CHANGE that holds at once. Workers that may serve no more are sent away; what they held goes to others,
    and counts as an attempt. What clients have asked for, and may not any more, is cancelled, whether it is queued or
    running, and they are told. One-way requests of clients that are gone stay.

    USERS KEEP TO THEMSELVES. A client that reconnects is known again only as the same user; so is a worker. Over a
    connection of another user, nobody answers, cancels, continues or joins what is not his: also requests with a
    `unique` key are joined by the same user only. Who is nobody shares that with all who are nobody: without
    authentication, whoever guesses a key sees the reply.

    WHO CALLS is told to handlers, filters, dead letters and workers of ZQB/1 (zqb_request_user), so that they can
    decide more than rules do. MDP has no word for it: what a worker of MDP, LRU or PPP does must not depend on who
    asks.

    LIMITS OF A USER, over all his connections: max_user_outstanding, max_user_requests and max_user_bytes of the
    broker's options; of each client: max_outstanding, max_client_requests and max_client_bytes, but one that comes
    again under another name is another. Beyond them requests are refused with ZQB_EQUEUEFULL, and counted
    (refused_user, refused_rate; refused_outstanding, refused_client_rate). A user who may serve has no more than
    max_user_workers.

    WHAT IS NOT PROTECTED. Who is let in can end the whole process by two faults of libzmq 4.3: by a PING of ZMTP behind
    more messages than libzmq keeps, and a reset; and by a routing id that libzmq is about to choose for another. A
    routing id may be as long as a message, and is copied with each. So let in only whom you trust, and have something
    start the broker again. A user who floods the broker with messages that it refuses costs it the time to read them;
    connections take turns by messages, each of which may be 64 KiB of commands. A worker fixes how often it is to hear
    from the broker. libzmq keeps the frames of a message until its last is there, for which it has no limit: who is let
    in can fill the memory with one that does not end; who is not, can hold max_message and a MiB for 10 seconds with
    each connection. When there is no descriptor for one more connection, those that there are go on, and libzmq's
    thread tries in vain until some end: ulimit -n should leave room for as many as may come. Where many users come over
    one proxy, they are one. Whoever may serve a service sees all that is asked of it, and whoever may serve and call
    can keep it busy with himself. Of two peers with the same routing id libzmq refuses the second at once, without a
    word to us, so that this is not counted; when the first is gone, and its name is another user's, that one has
    nothing of what was the first's. Clients do not know who answers: they trust the broker, and its rules, for that.

    11 WHO MAY CONNECT

    libzmq asks ZAP (RFC 27) about each connection over tcp and ipc of a socket that has the mechanism PLAIN or CURVE,
    or a ZAP domain; over inproc it asks nobody. zqb_auth_start answers, in a thread of its own, for all sockets of its
    context:

        the address is denied, or others are allowed           refused
        NULL                                                   let in, without a user id
        PLAIN     user and password are listed, or `verify`    let in, as that user
        CURVE     the public key is listed, or "*" is          let in, as the user of that key
        else, or if `decide` says so                           refused

    So keys and passwords that are listed are asked for by a socket with that mechanism only: a broker with neither
    server_secret nor plain lets in everybody whose address is not refused, whatever keys the lists have, if `decide`
    does not say no.

    A context has one such handler. If the host has its own already, zqb_auth_start says EADDRINUSE, and that one
    answers for the broker, who only reads the User-Id that comes with each message, with `zap_domain` or `plain`.

    THE FILE is text, a line for each entry, words with spaces or tabs between them; a line that begins with # tells
    nothing (elsewhere # is a character like others, as keys have it). A key or user that is there twice is an error:

        # the office, but not the printer; and what runs on this machine
        allow 192.0.2.0/24
        allow 2001:db8::/32
        deny  192.0.2.66
        allow ipc
        curve rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7 alice
        curve * guest
        plain bob correct-horse

    It has at most 16 MiB, 100000 lines (max_lines) of up to 1024 bytes, and 100000 entries (max_entries). It has to be
    ours or root's, others may not write to it, nor read it if it has passwords (EPERM; Windows keeps no modes that we
    look at). Replace it by renaming a new one over it, as half a file may look whole. Passwords with spaces can be
    listed by call only. A call goes before the file.

    OVER IPC there is no address of IP: libzmq gives "localhost:UID:GID:PID" on Linux, which "ipc" stands for in lists.
    Where it gives none, or we cannot read it, the peer is refused as soon as there is any list of addresses. IPv6 peers
    on a link ("fe80::1%eth0") are listed without the "%".

    CHANGES hold for the next connection; libzmq does not ask again about one that is there. A broker that has `auth`
    among its options does, as soon as the lists have changed: of each peer it knows the address and what let it in, a
    key or a password. Who would not be let in now, as the same user, may nothing any more, as if a rule denied it all:
    requests end with ZQB_EDENIED, workers are sent away, and what they held goes to others. Then its connection is
    ended (let_go), by shutdown of the descriptor, over tcp and ipc, but not on Windows. It comes again, and is refused
    (EACCES). A connection over which nothing has been said, or not for long, is ended when it speaks. What a client
    without a connection has asked for stays until it is back or given up, and its one-way requests stay. A peer that
    was let in by `decide` or `verify` alone is the host's to send away, by rules. Each change costs the broker the time
    for its connections times the addresses that are listed: many are best made by the file.

    WHAT IT DOES NOT DO. PLAIN and NULL do not encrypt: whoever can listen reads passwords. While no handler answers,
    libzmq lets in by CURVE whoever knows the server's public key, but not where auth or zap_domain is given. Passwords
    of lists are kept as they are, not hashed; they are compared in a time that does not depend on them, never logged,
    and overwritten when they are removed, but libzmq has copies of its own of what peers send. Nobody is slowed down
    who tries passwords; `decide` is not asked about wrong ones. The time of a lookup tells little, but something, of
    which users there are. Who is refused comes again after its ZMQ_RECONNECT_IVL; the log has at most ten lines a
    second of that.

    12 CHANGES

    0.2.0   requests with priorities, deadlines, delays and keys; progress, cancelling, refusing, draining; surveys,
            patterns, policies, filters; elastic pools; CURVE and PLAIN, lists of who may connect, rules and limits of
            users and clients. A user id counts with auth, plain or zap_domain only. zqb_request_fail takes a code,
            zqb_pool_options_t has scale in front of worker, and a handler that returns ZQB_EREFUSED refuses.
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
   - In options zero is the default, which stands beside each field; -1 means off, or without limit (manual, 4).
   - zqb_x_destroy (&x) accepts NULL, and leaves NULL behind.
   - Unless it says "any thread", an object is used by one thread at a time, like a socket of libzmq.
   ================================================================================================================ */

#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#if ZMQ_VERSION < ZMQ_MAKE_VERSION (4, 2, 0)
#error "zqbroker needs libzmq 4.2 or newer"
#endif

#if defined ZQBROKER_STATIC && defined __GNUC__
#define ZQB_API static __attribute__ ((unused))
#elif defined ZQBROKER_STATIC
#define ZQB_API static
#elif defined __cplusplus
#define ZQB_API extern "C"
#else
#define ZQB_API extern
#endif

#define ZQB_VERSION_MAJOR 0
#define ZQB_VERSION_MINOR 2
#define ZQB_VERSION_PATCH 0

/* The version of the implementation that was compiled in, which may differ from the macros. Each may be NULL. Any
   thread. */
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
    X (ZQB_EMALFORMED, 8, "the peer did not understand the message")                                               \
    X (ZQB_EDENIED,    9, "not allowed")

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

/* ---- requests, as a client makes them -----------------------------------------------------------------------
   What a single request may ask for, of a ZQB/1 client; each goes with each, but a survey is not one_way, and knows no
   delay, unique and affinity. Zero is the default, so start from a struct of zeros. Peers of other dialects never see
   any of it, and are served beside it. */

enum { ZQB_PRIORITY_LOWEST = -4, ZQB_PRIORITY_HIGHEST = 4 };

typedef struct zqb_request_options_t {
    int priority;         /* 0      higher first, -4 to 4; first come, first served (client by client) within one */
    int deadline_ms;      /* 0 none so long from now on a reply is of use: then it ends with ZQB_EEXPIRED, wherever it
                                    is, and its worker is told. Until then it is asked for again as often as need be,
                                    whatever `retries` says, but for -1 */
    int delay_ms;         /* 0      it is not begun before so much time has passed */
    int attempts;         /* 0      so many workers may be lost over it, up to 65534; -1 all; 0 the broker's option */
    int backoff_ms;       /* 0      a pause behind the first lost worker, which doubles with each */
    int backoff_max_ms;   /* 0      and goes no higher; 0 a minute */
    const char *unique;   /* NULL   a key of 1 to 255 bytes: while a request with this key is queued or running at the
                                    service, others of the same user join it: it is executed once, with the body of the
                                    first, and all are answered. It has the priority of the highest, and begins when
                                    the first of them may; the rest, like attempts, is that of the first */
    const char *affinity; /* NULL   a key of 1 to 255 bytes: requests with this key go to the same worker, in order, as
                                    long as it lives; when it is gone, to another */
    int one_way;          /* 0      1: no reply is wanted, nor an error; it is executed even if the client is gone. Its
                                    number is 0. Whether it reached a broker is not told: who wants to know calls
                                    mmi.service behind it */
    int fail_fast;        /* 0      1: it ends with ZQB_ENOWORKER rather than wait for a service that has no worker */
    int survey;           /* 0      1: for each worker that the service has now: see zqb_client_survey */
} zqb_request_options_t;

/* ---- requests, as a worker sees them -----------------------------------------------------------------------
   A request comes from zqb_worker_recv, or is handed to a handler. It ends with exactly one of reply, fail and refuse,
   which also releases it. All of this is for the thread that has the worker. */

typedef struct zqb_request_t zqb_request_t;

/* Does the work: reads (or takes) zqb_request_body, fills reply, returns 0 to send it. ZQB_EREFUSED refuses the
   request, as zqb_request_refuse does. Any other value fails it: the client gets ZQB_EFAILED with that value as the
   code, and with the first frame of reply as its text, if there is one. */
typedef int (zqb_handler_fn) (zqb_request_t *request, zqb_msg_t *reply, void *arg);

/* The body. It belongs to the request, but may be moved out. Its bytes are for reading: over inproc the frames that are
   not copied are shared with the client and the broker, who may have to send them again. */
ZQB_API zqb_msg_t *zqb_request_body (zqb_request_t *request);

/* The name of the service, as the client called it, which matters to a worker that serves a pattern: NUL-terminated;
   size (which may be NULL) gets its length, as a name may contain NULs. A worker that speaks MDP knows only its own
   name. It is valid as long as the request. */
ZQB_API const char *zqb_request_service (zqb_request_t *request, size_t *size);

/* The user id of the client, as its connection has proved it to the broker, or the first 255 bytes of a longer one,
   which only a ZAP handler of your own would give; "" if it has none. NULL: the worker speaks MDP, which has no word
   for it. It is valid as long as the request. Of requests that were joined (unique) all are the same user's. Over
   several brokers, or a proxy, it is that of the connection to the last. */
ZQB_API const char *zqb_request_user (zqb_request_t *request);

/* Sends a part of the reply, and more will come; takes msg over on success. Clients whose dialect has no partial
   replies get all parts as the frames of one reply; so do all clients of a handler inside the broker. When 32 parts are
   under way that a ZQB/1 client has not read yet, it waits until some are, or zqb_worker_stop is called, so that nobody
   hoards them: so the thread that has the client must be another. ENOTCONN: the broker that asked is gone, or the
   context has ended; ZQB_ECANCELLED: nobody wants it any more; ENOTSUP: the worker speaks MDP/0.1; ENOMEM, EMSGSIZE (a
   frame of 2 GiB or more). */
ZQB_API int zqb_request_partial (zqb_request_t *request, zqb_msg_t *msg);

/* Tells the client how far the work is: done of total, in whatever unit, total 0 if that is not known, and a text (NULL
   for none, at most 255 bytes are sent). It comes as ZQB_REPLY_PROGRESS; clients whose dialect has no word for it, and
   those of a handler inside the broker, hear nothing. It also starts the client's time for a try anew. Like
   zqb_request_partial, it looks at what the broker has sent, and sends the heartbeat that is due. ENOTCONN,
   ZQB_ECANCELLED, ENOMEM as for zqb_request_partial; ENOTSUP: the worker speaks MDP. */
ZQB_API int zqb_request_progress (zqb_request_t *request, uint64_t done, uint64_t total, const char *text);

/* Whether nobody wants a reply any more: 1 if the client has cancelled the request or is gone, or its deadline is over,
   or the broker that asked is gone; else 0. It looks at what the broker has sent meanwhile, without waiting, and sends
   the heartbeat that is due: so ask it now and then in long work. The request still has to be ended, however, which
   then reaches nobody. */
ZQB_API int zqb_request_cancelled (zqb_request_t *request);

/* How many milliseconds are left until its deadline: 0 when it is over, -1 if there is none, or if the worker speaks
   MDP, which has no word for it. Inside the broker it is always -1. */
ZQB_API int zqb_request_left_ms (zqb_request_t *request);

/* Sends the reply, or its last part, takes msg over and releases the request: not for use in a handler, whose reply
   is sent when it returns (EINVAL). ENOTCONN: the broker that asked is gone, or the context has ended, and the request
   is released all the same, but msg is still yours; ENOMEM, EMSGSIZE: both are as before. */
ZQB_API int zqb_request_reply (zqb_request_t *request, zqb_msg_t *msg);

/* Reports that the work failed for good, with a code of your own (zqb_reply_t.code) and a text for the client (NULL for
   none, at most 255 bytes are sent), and releases the request. The request is not tried again. MDP has no word for
   this: an MDP client hears nothing, and a worker that speaks MDP has to send an empty reply. Errors as for
   zqb_request_reply. */
ZQB_API int zqb_request_fail (zqb_request_t *request, int code, const char *text);

/* Gives the request back, as it is not for this worker, and releases it: it goes to another, at once, and does not
   count as an attempt. When all workers of the service have refused it, the client gets ZQB_EREFUSED: so it is no way
   to give work back because this worker wants to end, which may be the only one (zqb_worker_drain, zqb_worker_destroy).
   Errors as for zqb_request_reply; ENOTSUP (not released): the worker speaks MDP. A handler returns ZQB_EREFUSED
   instead; one inside the broker fails the request with that. */
ZQB_API int zqb_request_refuse (zqb_request_t *request);

/* ---- security ----------------------------------------------------------------------------------------------
   The mechanisms of libzmq, for tcp and ipc; over inproc there is none. Whatever a broker asks for, it asks for on all
   of its endpoints, in any dialect. Where a peer does not fit, nothing is exchanged with it.

   A KEY in options is 40 characters of Z85, or "file:PATH": a file of zqkeygen's, or a certificate of CZMQ's or
   pyzmq's, which has a line public-key = "KEY" or secret-key = "KEY". A PASSWORD is 1 to 255 bytes, or "file:PATH": the
   first line of that file. Files are read when the object is made, with these errors: what open says (ENOENT, EACCES
   ...); EPERM: it is not ours or root's, or others than its owner may write to it, or read it although it is for a
   secret key or a password; EFBIG: it has more than 4095 bytes; EAGAIN: it is being written; EINVAL: it is no plain
   file, there is no such line, or what is given is no key or password; ENOTSUP: this libzmq has no CURVE. Our copies
   of secrets are wiped when the object is destroyed; libzmq has its own, and the strings are yours. */

/* A new pair of keys as text, 40 characters and a NUL each. The secret one is yours to wipe. EINVAL; ENOTSUP: this
   libzmq has no CURVE. Any thread. */
ZQB_API int zqb_curve_keypair (char public_key[41], char secret_key[41]);

/* ---- the broker --------------------------------------------------------------------------------------------
   Any thread may call any function of a broker at any time, except that nothing may be called while or after it is
   destroyed, and that nobody may be in run or step by then. A handler inside it, or a log function, runs while the
   broker waits: calling a client of the same broker from there would wait for ever. Its context stays the host's. */

typedef struct zqb_broker_t zqb_broker_t;

enum { ZQB_LOG_ERROR = 1, ZQB_LOG_WARNING = 2, ZQB_LOG_INFO = 3, ZQB_LOG_DEBUG = 4 };

/* Takes a line of printable text, valid during the call. That of a broker is called by its thread, or by one that calls
   the broker; it must not call what changes the broker (EBUSY), nor wait for anything that the broker has to do. That
   of a worker is called by the thread that has it: in a pool, by several at once. */
typedef void (zqb_log_fn) (int level, const char *text, void *arg);

/* Called by the broker's thread with a request that is given up, as too many workers were lost over it, before its
   client hears of that. Reads zqb_request_service and reads or takes zqb_request_body; what is not taken is released.
   The same rules as for a log function. Without memory for it, it is not called, which counts as no_memory. */
typedef void (zqb_dead_letter_fn) (zqb_request_t *request, void *arg);

/* Sees each request before it is queued, in the broker's thread: what it asks for, which may be changed (not unique,
   affinity, one_way and survey), and its body, which is for reading. Returns 0 to accept it; any other value refuses
   it: the client gets ZQB_EREFUSED, with the first frame of refusal as its text. Not for handlers and mmi services. The
   same rules as for a log function. */
typedef int (zqb_filter_fn) (zqb_request_t *request, zqb_request_options_t *options, zqb_msg_t *refusal, void *arg);

/* Who may do what: see zqb_broker_rules. MANAGE is to ask for mmi services, and for surveys. */
enum { ZQB_MAY_CALL = 1, ZQB_MAY_SERVE = 2, ZQB_MAY_MANAGE = 4 };

typedef struct zqb_access_t {
    const char *user;     /* the user id that the peer has proved; "" nobody */
    const char *address;  /* where it is: "10.0.0.7"; ipc: what the system says of the process; "inproc"; "" unknown */
    int action;           /* ZQB_MAY_... */
    const char *service;  /* NUL-terminated, but there may be others in it; a worker's may be a pattern */
    size_t service_size;
} zqb_access_t;

/* Asked before the rules, in the broker's thread: 1 it is allowed, 0 it is denied, -1 the rules say (if there are none,
   it is allowed). For a client and a service that is known, and has workers or a handler of its own, it is asked once,
   and again when the rules change. The same rules as for a log function. */
typedef int (zqb_access_fn) (const zqb_access_t *access, void *arg);

/* Sees what became of each request that was accepted, in the broker's thread. The same rules as for a log function. */
typedef struct zqb_outcome_t {
    const char *service;  /* as the client called it, NUL-terminated */
    size_t service_size;
    int error;            /* 0 replied; ZQB_EFAILED, _EEXPIRED, _ENOWORKER, _ECANCELLED (also as rules have changed),
                             _ELOST (dead), _EREFUSED; ZQB_EQUEUEFULL: no memory to go where its unique key went; or
                             EHOSTUNREACH: the client is gone */
    int attempts;         /* how many workers had it */
    int64_t took_us;      /* since it was accepted */
} zqb_outcome_t;

typedef void (zqb_outcome_fn) (const zqb_outcome_t *outcome, void *arg);

/* When there is no room for a request (max_requests, max_bytes; on LRU frontends max_queue and max_no_worker, too), a
   ZQB/1 client is told, but the other dialects have no word for it. Either their requests are dropped, and their
   clients time out; or what comes over endpoints for clients alone (zqb_broker_bind_clients, LRU frontends) waits in
   their sockets, 16 messages of each connection, until there is room, and the rest in the clients. So do then calls of
   handlers and mmi services there, but requests of ZQB/1 are refused there (ZQB_EREFUSED): who cancels and tries again
   must be heard. Limits of one client, and of names, are never waited for, nor is a body of more than a quarter of
   max_bytes. */
enum { ZQB_FULL_DROP = 0, ZQB_FULL_WAIT = 1 };

typedef struct zqb_broker_options_t {
    int heartbeat_ms;    /* 2500     how often workers hear from us and we expect to hear from idle ones, unless they
                                     said something else */
    int liveness;        /* 3        an idle worker that is silent for so many heartbeats is gone */
    int credit_us;       /* 1000     work that a worker may hold, unless it fixed its credit; -1 one request */
    int attempts;        /* 3        so many workers may be lost over a request before it is given up; -1 all */
    int no_worker_ms;    /* 60000    how long a request waits for a service that has no worker; -1 for ever */
    int max_services;    /* 65536    services known at once */
    int max_workers;     /* 65536    workers registered at once */
    int max_clients;     /* 65536    clients with requests at once */
    int max_requests;    /* 1000000  requests queued and running, in all */
    int max_queue;       /* 1000000  requests queued for one service */
    int max_no_worker;   /* 1000000  the same as long as it has no worker; then the error is ZQB_ENOWORKER */
    int max_outstanding; /* 100000   requests queued and running of one client */
    int max_frames;      /* 1000     frames of a body */
    int64_t max_message; /* 64 MiB   bytes of a body, with 4 more for each frame; a frame of a MiB more
                                     ends its connection, and is not read */
    int64_t max_bytes;   /* 1 GiB    the same, of all bodies queued and running; and as many of what waits to be sent */
    int64_t max_unsent;  /* 1 GiB    bytes that may wait to be sent over one connection, before its peers are given up
                                     as too slow; less if much waits for others: no more than is left of max_bytes
                                     then, but always one message. Over inproc, and of messages below 4096 bytes, only
                                     send_hwm holds */
    int send_hwm;        /* 10000    messages that may wait in libzmq for one peer, before we give it up */
    int when_full;       /* ZQB_FULL_DROP */
    int spin_us;         /* 0        how long to look again and again before sleeping: buys latency with a core */
    int log_level;       /* ZQB_LOG_INFO, if there is a log function; -1 none */
    zqb_log_fn *log;     /* NULL     nothing is printed, ever, but through this */
    void *log_arg;
    zqb_dead_letter_fn *dead_letter; /* NULL */
    void *dead_letter_arg;
    zqb_filter_fn *filter; /* NULL */
    void *filter_arg;
    zqb_outcome_fn *outcome; /* NULL */
    void *outcome_arg;
    int ageing_ms;        /* 0 off   a request rises by one priority for each such time that it has waited, so that none
                                     waits for ever behind more important ones */
    int rest_failures;    /* 0 off   a worker that failed so many times in a row is rested: it gets nothing for a while,
                                     then one request, and all again if that goes well */
    int rest_ms;          /* 5000    how long; doubles each time that it fails again, up to 16 times as long */
    int slow_ms;          /* 0 off   an answer that took longer counts as slow, and as a failure for rest_failures */
    zqb_access_fn *access;       /* NULL */
    void *access_arg;
    int max_user_outstanding;    /* 0 off   requests queued and running of one user, over all his connections. Who has
                                            no user id is limited by himself, each client apart; so below */
    int max_user_requests;       /* 0 off   requests a second of one user; as many may come at once */
    int64_t max_user_bytes;      /* 0 off   the same, of the bytes of their bodies; one larger than that may come now
                                            and then */
    int max_client_requests;     /* 0 off   the same of a single client, whoever it is; how many it may have queued and
                                            running is max_outstanding */
    int64_t max_client_bytes;    /* 0 off */
    int max_user_workers;        /* 0 off   workers registered of one user; nobody's are limited by max_workers alone */
    const char *server_secret; /* NULL CURVE: the broker's secret key: see "security" above */
    int plain;                 /* 0    1: PLAIN: users with passwords, of which a ZAP handler is asked; not together
                                       with server_secret */
    const char *zap_domain;    /* NULL what ZAP handlers are told, 1 to 255 bytes: with CURVE, PLAIN and auth
                                       "zqbroker"; else none is asked. If it is given, or with PLAIN or auth, nobody
                                       gets in as long as there is no handler, and only then user ids count */
    struct zqb_auth_t *auth;   /* NULL from zqb_auth_start: whose lists say who gets in, in the same context: who is on
                                       them no more is let go. It is to be stopped after the broker was destroyed */
} zqb_broker_options_t;

/* A broker in this context, which is not bound to anything yet, and does nothing before it runs. options may be NULL,
   and is copied. EINVAL, ENOMEM, or what zmq_socket says (ETERM, EMFILE). EINVAL, too, if auth belongs to another
   context; ENOTSUP: with plain, zap_domain or auth libzmq before 4.2.3, which lets in everybody as long as there is no
   handler. Of server_secret: see "security" above. */
ZQB_API zqb_broker_t *zqb_broker_new (void *ctx, const zqb_broker_options_t *options);

/* An endpoint for clients and workers that speak Majordomo or ZQB/1. As often as wanted, before or while it runs.
   Endpoints of inproc share one socket, and all others another. Errors are zmq_bind's: EADDRINUSE, EINVAL, ENODEV,
   EPROTONOSUPPORT ...; EMFILE, ENOSPC, ENOMEM; EBUSY inside a handler or a log function. */
ZQB_API int zqb_broker_bind (zqb_broker_t *broker, const char *endpoint);

/* The same for clients alone: workers that register here are refused. Errors as for zqb_broker_bind. */
ZQB_API int zqb_broker_bind_clients (zqb_broker_t *broker, const char *endpoint);

/* A frontend for plain REQ or DEALER clients and a backend for LRU and PPP workers, which name no service: both are
   of this one. It is the same service that Majordomo and ZQB/1 peers know by that name. Errors as for
   zqb_broker_bind; EINVAL for a name that is empty, over 255 bytes, or starts with "mmi.". On failure neither is bound.
 */
ZQB_API int zqb_broker_bind_lru (zqb_broker_t *broker, const char *frontend, const char *backend, const char *service);

/* An endpoint as libzmq spells it: "tcp://127.0.0.1:49152" for "tcp://127.0.0.1:*". index counts in the order of
   binding from 0 (bind_lru adds its frontend, then its backend), or back from the last, which is -1. buffer gets it
   with its NUL, size says how large it is (256 is enough, unless one of inproc was given a longer name). EINVAL if it
   is too small, or there is none. */
ZQB_API int zqb_broker_endpoint (zqb_broker_t *broker, int index, char *buffer, size_t size);

/* Serves a service inside the broker's own thread: for what takes microseconds, as everything else waits meanwhile.
   A handler for a name replaces the one before, and NULL removes it. EINVAL for a bad name (see zqb_broker_bind_lru;
   "mmi." names are allowed here); ENOMEM; ENOSPC at max_services; EADDRINUSE if workers serve that name; EBUSY inside
   a handler or a log function. Requests that are queued already are served at once, in the calling thread. */
ZQB_API int zqb_broker_handle (zqb_broker_t *broker, const char *service, zqb_handler_fn *handler, void *arg);

/* How long a worker of this service may be at work without finishing a request: after that it is taken to hang, and
   is lost like one whose connection is gone: what it holds goes to others, and counts as an attempt. 0 or -1: for
   ever, as at first. A worker that was busy and not hung registers again, and what it then answers late is counted as
   stale. Errors as for zqb_broker_bind_lru's service; ENOMEM; ENOSPC at max_services; EBUSY inside a handler or a log
   function. */
ZQB_API int zqb_broker_time_limit (zqb_broker_t *broker, const char *service, int limit_ms);

/* Which worker of a service gets the next request, of those that have room. LRU, the default: the least loaded, and of
   those the one that has waited longest. MRU: the one that has waited for the shortest time, so that caches stay warm,
   and the others can be let go. LEAST: the one that holds the smallest share of its credit. ROUND_ROBIN: one after the
   other, whatever they hold. CUSTOM: what choose returns: the index of one of count workers, which are those of the
   first 64 with room; out of range: the first. It is called in the broker's thread, and the rules are those of a log
   function. Errors as for zqb_broker_time_limit; EINVAL: CUSTOM without choose. */
enum {
    ZQB_POLICY_LRU = 0, ZQB_POLICY_MRU = 1, ZQB_POLICY_LEAST = 2, ZQB_POLICY_ROUND_ROBIN = 3, ZQB_POLICY_CUSTOM = 4
};

typedef struct zqb_worker_info_t {
    uint64_t id;          /* in the broker's life: see mmi.workers */
    int load, credit;     /* how many requests it holds, and may hold */
    uint64_t served, failed, slow;
    int64_t idle_us;      /* since it last had something to do; 0: it has */
} zqb_worker_info_t;

typedef size_t (zqb_choose_fn) (const zqb_worker_info_t *workers, size_t count, void *arg);

ZQB_API int zqb_broker_policy (zqb_broker_t *broker, const char *service, int policy, zqb_choose_fn *choose, void *arg);

/* Has a worker of a service, or with 0 all that it has now, take no more requests, finish those that it holds, and
   leave. A worker that speaks MDP is sent away when it is done, and may come again. id: see mmi.workers. EINVAL;
   ENOENT: there is no such worker; EBUSY inside a handler or a log function. */
ZQB_API int zqb_broker_drain (zqb_broker_t *broker, const char *service, uint64_t id);

/* Adds a rule behind those that are there: allow is 1, or 0 to deny. who: a user id, or with a star behind it all that
   begin so ("*": all that have one); "-": who has none; "@NAME": a group of the rules file; "@inproc": who is in this
   process. actions: some of ZQB_MAY_..., added up. services: names or patterns, with spaces between them. In names,
   bytes may be written as \xHH. The first rule that is about it says whether something is allowed, and what none is
   about is denied: so as soon as there is one rule, only what is allowed may be done. It takes effect at once, as
   zqb_broker_rules does. EINVAL; ENOMEM; ENOSPC: 65536 rules; EBUSY inside a handler or a log function. */
ZQB_API int zqb_broker_rule (zqb_broker_t *broker, int allow, const char *who, int actions, const char *services);

/* Replaces all rules by those of a file (see the manual, 10), or, if there is anything wrong with it, none: EINVAL, and
   the log says in which line. An empty file denies all; NULL takes all rules away, and then everything is allowed.
   EPERM: others than its owner, who is us or root, may write to it; EINVAL: it is no plain file; EFBIG: it has more
   than a MiB; EAGAIN: it is being written; ENOMEM; what open and read say; EBUSY inside a handler or a log function.
   It takes effect at once: workers that may serve no more are sent away, and what they held goes to others; what
   clients have asked for and may not any more is cancelled, and they are told ZQB_EDENIED. */
ZQB_API int zqb_broker_rules (zqb_broker_t *broker, const char *path);

/* How many workers a service should have, by its load: so that pools add threads, and hosts start processes. There are
   more as long as more than queue_per_worker requests wait for each, or the oldest has waited for wait_ms; there is one
   less when for idle_ms fewer would have done. */
typedef struct zqb_scale_options_t {
    int min;              /* 1 */
    int max;              /* 0       off */
    int queue_per_worker; /* 10 */
    int wait_ms;          /* 1000    -1: however long it waits */
    int idle_ms;          /* 5000 */
} zqb_scale_options_t;

typedef struct zqb_scale_t {
    const char *service;  /* NUL-terminated */
    int queued;
    int64_t oldest_us;    /* how long the oldest has waited; 0: none does */
    int idle, busy;       /* workers */
    int wanted;           /* how many there should be, between min and max */
} zqb_scale_t;

/* Called in the broker's thread when another number is wanted than the last time, and at first. The same rules as for a
   log function. */
typedef void (zqb_scale_fn) (const zqb_scale_t *scale, void *arg);

/* Watches a service, and calls on_scale; NULL options end that. Errors as for zqb_broker_time_limit; EINVAL: no
   on_scale, or max below 1 or below min. */
ZQB_API int zqb_broker_scale (zqb_broker_t *broker, const char *service, const zqb_scale_options_t *options,
                              zqb_scale_fn *on_scale, void *arg);

/* Three ways to run it. EALREADY if it runs already, or has not ended since it was asked to; EBUSY inside a handler or
   a log function.
   start: in a thread of its own, until stop, destroy or the end of the context. EAGAIN when there is no thread to be
   had; ENOMEM.
   run: in the calling thread, until stop (returns 0) or the end of the context (-1, ETERM); signals do not end it.
   step: from a loop of the host's: takes what there is, waiting at most timeout_ms for it (0 not at all, -1 as long as
   it takes) or until a signal comes, and returns in how many milliseconds it wants to be called again at the latest. To
   wait elsewhere, poll zqb_broker_fd for reading, call step with 0 when it is readable or that time is over, and call
   it again until it did nothing more: the descriptor tells changes, as ZMQ_FD does. ETERM when the context ends. */
ZQB_API int zqb_broker_start (zqb_broker_t *broker);
ZQB_API int zqb_broker_run (zqb_broker_t *broker);
ZQB_API int zqb_broker_step (zqb_broker_t *broker, int timeout_ms);

/* A descriptor that becomes readable when there is something to do; see zqb_broker_step. It belongs to the broker.
   ENOTSUP, except on Linux, if there is more than one socket: after zqb_broker_bind_lru or _bind_clients, or with
   endpoints of inproc and others; EMFILE, ENOMEM, ENOSPC. */
ZQB_API int zqb_broker_fd (zqb_broker_t *broker);

/* Asks start's thread, run or step to end, and returns at once. Any thread, and signal handlers, as often as wanted. If
   none of them is under way, the next run or step ends at once; start forgets it. The sockets stay bound and the
   requests stay queued, until it is started again or destroyed. */
ZQB_API void zqb_broker_stop (zqb_broker_t *broker);

/* Stops it, waits for its thread, and frees everything. Workers that can be told are told to disconnect; requests
   that were not answered are gone, and those of ZQB/1 clients are told so (ZQB_ECANCELLED); outcome hears of them from
   the calling thread. Not in a handler. */
ZQB_API void zqb_broker_destroy (zqb_broker_t **broker);

/* Counters since the broker was made, and how things stand now. At any moment
   accepted = replied + failed + expired + cancelled + dead + client_gone + queued + running */

#define ZQB_STATS(X)                                                                                               \
    X (accepted, "requests taken into a queue, or given to a handler")                                             \
    X (replied, "requests answered")                                                                               \
    X (failed, "requests that a worker or a handler reported as failed, or all workers refused")                   \
    X (expired, "requests that found no worker in time, or were not answered by their deadline")                   \
    X (cancelled, "requests that their client cancelled, or cut off by the end of the broker")                     \
    X (dead, "requests given up after too many lost workers")                                                      \
    X (client_gone, "requests whose client went away")                                                             \
    X (queued, "requests waiting now")                                                                             \
    X (delayed, "of them: before their time")                                                                      \
    X (following, "of them: joined to another by their unique key")                                                \
    X (running, "requests held by workers now")                                                                    \
    X (bytes, "bytes that the bodies of both take, now")                                                           \
    X (services, "services known now")                                                                             \
    X (workers, "workers registered now")                                                                          \
    X (clients, "clients with requests now")                                                                       \
    X (partials, "partial replies passed on")                                                                      \
    X (progress, "reports of progress passed on")                                                                  \
    X (requeued, "times that a request went back to its queue because its worker was lost")                        \
    X (joined, "retries that found their request still here")                                                      \
    X (given_back, "times that a worker refused a request")                                                        \
    X (rested, "times that a worker was rested after failures")                                                    \
    X (workers_lost, "workers gone without a word: silent, unreachable or broken")                                 \
    X (workers_left, "workers that said goodbye")                                                                  \
    X (refused_requests, "requests refused at max_requests")                                                       \
    X (refused_queue, "requests refused at max_queue")                                                             \
    X (refused_no_worker, "requests refused at max_no_worker, or as there was none and they would not wait")       \
    X (refused_filter, "requests refused by the host's filter")                                                    \
    X (denied_call, "requests refused, or cancelled, because their user may not call that service")                \
    X (denied_serve, "workers refused, or sent away, because their user may not serve that service")               \
    X (let_go, "connections ended, as their peers would not be let in any more")                                   \
    X (refused_user, "requests refused at max_user_outstanding")                                                   \
    X (refused_rate, "requests refused at max_user_requests or max_user_bytes")                                    \
    X (refused_client_rate, "requests refused at max_client_requests or max_client_bytes")                         \
    X (refused_outstanding, "requests refused at max_outstanding")                                                 \
    X (refused_clients, "requests refused at max_clients")                                                         \
    X (refused_bytes, "requests and replies refused at max_bytes")                                                 \
    X (refused_services, "requests and workers refused at max_services")                                           \
    X (refused_workers, "workers refused at max_workers or max_user_workers")                                      \
    X (refused_endpoint, "workers at an endpoint for clients, requests of ZQB/1 at one that waits")                \
    X (refused_name, "requests and workers refused because of the name of the service")                            \
    X (refused_large, "messages refused at max_message")                                                           \
    X (refused_frames, "messages refused at max_frames")                                                           \
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

/* Copies them. Also in a handler or a log function. */
ZQB_API int zqb_broker_stats (zqb_broker_t *broker, zqb_stats_t *stats);

/* ---- the worker --------------------------------------------------------------------------------------------
   It belongs to one thread. It registers, sends heartbeats whenever it is in recv, registers again when the broker was
   lost or started anew, and says goodbye when it is destroyed. */

typedef struct zqb_worker_t zqb_worker_t;

/* Called within zqb_worker_recv, zqb_request_cancelled, _partial or _progress, in that thread, once for a request in
   the hands of the user of which the broker says that nobody wants it any more; not when the broker itself is gone. It
   still has to be ended, which this function must not do; nor may it call zqb_worker_recv, _run or _destroy. */
typedef void (zqb_cancelled_fn) (zqb_request_t *request, void *arg);

typedef struct zqb_worker_options_t {
    int dialect;          /* ZQB_DIALECT_ZQB1 */
    int credit;           /* 0      requests it may hold at once, up to 65535; 0 the broker decides; of MDP 1 */
    int heartbeat_ms;     /* 2500   how often it tells the broker that it lives, and expects to be told; -1 never */
    int liveness;         /* 3      a broker that is silent for so many heartbeats is lost */
    int reconnect_ms;     /* 100    pause before a lost broker is tried again; doubles each time, give or take a half */
    int reconnect_max_ms; /* 10000  and goes no higher */
    int spin_us;          /* 0      how long to look again and again before sleeping: buys latency with a core */
    zqb_log_fn *log;      /* NULL   hears when it is not registered, and why: ZQB_LOG_WARNING */
    void *log_arg;
    zqb_cancelled_fn *cancelled; /* NULL */
    void *cancelled_arg;
    const char *server_public; /* NULL CURVE: the broker's public key, which both others need. See "security" above */
    const char *public_key;    /* NULL CURVE: its own, with secret_key; NULL: the one that belongs to that */
    const char *secret_key;    /* NULL CURVE: NULL: a new pair, which the broker does not know, as long as it lives */
    const char *user;          /* NULL PLAIN: 1 to 255 bytes, not together with CURVE. Both go over the network as */
    const char *password;      /* NULL PLAIN: they are: over ipc or a tunnel only. May be "file:PATH" */
} zqb_worker_options_t;

/* A worker for this service (1 to 255 bytes) at this endpoint, or at the first of several that answers, separated by
   commas. Returns at once; the broker need not be there yet. A name that ends with "*" is a pattern: it serves all
   names that start with what stands before, as long as these have no worker of their own, nor one with a longer
   pattern. EINVAL for a bad endpoint, name or option, or a name that starts with "mmi."; ENOMEM; what zmq_socket and
   zmq_connect say; of keys: see "security" above. A broker that refuses its key or password is tried again, after
   longer and longer pauses, and the log says so. */
ZQB_API zqb_worker_t *zqb_worker_new (
    void *ctx, const char *endpoints, const char *service, const zqb_worker_options_t *options);

/* The next request, which is the caller's until zqb_request_reply, _fail or _refuse. Waits at most timeout_ms (0 not at
   all, -1 for ever). NULL and errno: EAGAIN (none came), EINTR (a signal came), ECANCELED (zqb_worker_stop; or it was
   drained, and has left), ETERM (the context ended), ZQB_EREFUSED (the broker does not want it: it has max_workers or
   max_services, a handler serves that name, or the endpoint is for clients; going on tries again later), ZQB_EDENIED
   (it may not serve that; the same). */
ZQB_API zqb_request_t *zqb_worker_recv (zqb_worker_t *worker, int timeout_ms);

/* recv, handler, reply, for ever: until zqb_worker_stop, or it was drained (returns 0), or ETERM, ZQB_EREFUSED or
   ZQB_EDENIED (-1; calling it again tries again). A reply that cannot be sent, as it is too large or memory is short,
   fails its request. Signals do not end it. */
ZQB_API int zqb_worker_run (zqb_worker_t *worker, zqb_handler_fn *handler, void *arg);

/* Ends run, and makes recv say ECANCELED, from now on; a recv that the signal itself interrupts may say EINTR first.
   Returns at once. Any thread, and signal handlers. */
ZQB_API void zqb_worker_stop (zqb_worker_t *worker);

/* Asks it to take no more, to do what it has, and to leave: then recv says ECANCELED, and run returns 0. Nothing that
   it has is lost or done twice. Also the broker may want it: zqb_broker_drain. As long as requests are in your hands,
   recv goes on as before, though none comes any more. A broker of another make that does not answer is left when it had
   its time for that, liveness x heartbeat_ms, but 1 to 10 seconds: what is not begun then goes to others. Returns at
   once. Any thread, and signal handlers. */
ZQB_API void zqb_worker_drain (zqb_worker_t *worker);

/* Readable when zqb_worker_recv with a timeout of 0 might do something; like ZMQ_FD it tells changes: call recv until
   EAGAIN before waiting, and at least every heartbeat_ms. It is another after the worker has connected anew, which
   happens in recv, and tells nothing of zqb_worker_stop and _drain. ENOTCONN while there is none. */
ZQB_API int zqb_worker_fd (zqb_worker_t *worker);

/* Says goodbye, so that the requests it holds go to others at once, and frees it, its requests too. */
ZQB_API void zqb_worker_destroy (zqb_worker_t **worker);

/* ---- the client --------------------------------------------------------------------------------------------
   It belongs to one thread. Each request has an id of its own: a late answer can never be taken for another's. */

typedef struct zqb_client_t zqb_client_t;

typedef struct zqb_client_options_t {
    int dialect;     /* ZQB_DIALECT_ZQB1; with MDP one request is under way at a time, the others wait in the client */
    int timeout_ms;  /* 2500    how long one try may take; -1 for ever */
    int retries;     /* 2       how often it is tried again after the first time; -1 never */
    int max_pending; /* 100000  requests outstanding at once */
    int spin_us;     /* 0       how long to look again and again before sleeping: buys latency with a core */
    const char *server_public; /* NULL CURVE: the broker's public key, which both others need. See "security" above */
    const char *public_key;    /* NULL CURVE: its own, with secret_key; NULL: the one that belongs to that */
    const char *secret_key;    /* NULL CURVE: NULL: a new pair, which the broker does not know, as long as it lives */
    const char *user;          /* NULL PLAIN: 1 to 255 bytes, not together with CURVE. Both go over the network as */
    const char *password;      /* NULL PLAIN: they are: over ipc or a tunnel only. May be "file:PATH" */
} zqb_client_options_t;

/* What zqb_client_recv gives. */
enum { ZQB_REPLY_FINAL = 0, ZQB_REPLY_PARTIAL = 1, ZQB_REPLY_ERROR = 2, ZQB_REPLY_PROGRESS = 3 };

typedef struct zqb_reply_t {
    uint64_t id;          /* which request this is about */
    int kind;             /* FINAL and ERROR end a request, PARTIAL and PROGRESS are followed by more */
    int error;            /* why, for ERROR: ETIMEDOUT, ENOMEM (what came of it is lost), EACCES or EPROTO (the broker
                             wants none of ours: zqb_client_new) or one of ZQB_ERRORS; else 0 */
    int code;             /* of ZQB_EFAILED: the worker's own; else 0 */
    uint64_t done, total; /* of PROGRESS; and of the end of a survey: how many answered, of how many; else 0 */
    zqb_msg_t body;       /* the reply, or a text about the error or the progress in one frame, or nothing */
} zqb_reply_t;

/* A client of the broker at this endpoint, or, with several separated by commas, of one after the other when one does
   not answer. Returns at once; the broker need not be there yet. EINVAL, ENOMEM; what zmq_socket, zmq_connect say; of
   keys: see "security" above. When the broker (or, of several, each) refuses its key or password, requests end at once
   with EACCES; soon, with EPROTO, if it wants another mechanism, or what is there is no broker. The next request tries
   again. If server_public is wrong, or the broker has no ZAP handler where it needs one, it ends the connection without
   a word: that looks like a broker that is away, and ends with ETIMEDOUT. */
ZQB_API zqb_client_t *zqb_client_new (void *ctx, const char *endpoints, const zqb_client_options_t *options);

/* Sends a request and waits for its reply, which replaces what was in reply, another message; the parts of a partial
   reply come as the frames of one. On success request is left empty. On failure request is as it was, and reply holds
   the text of the error, if there is one: ETIMEDOUT (no answer to any try), one of ZQB_ERRORS, EINVAL (bad service
   name: 1 to 255 bytes), EMSGSIZE (a frame of 2 GiB or more), EAGAIN (max_pending), ENOMEM, EINTR, ETERM; EACCES and
   EPROTO: see zqb_client_new. After EINTR the request is cancelled. What comes meanwhile of requests that were
   submitted is kept for zqb_client_recv. */
ZQB_API int zqb_client_call (zqb_client_t *client, const char *service, zqb_msg_t *request, zqb_msg_t *reply);

/* The same, with options, which may be NULL, and need not outlive the call. One that is one_way returns as soon as it
   is sent. Also EINVAL (a number out of range; a survey that is one_way), ENOTSUP (options, and the client speaks MDP).
   */
ZQB_API int zqb_client_call_with (zqb_client_t *client, const char *service, const zqb_request_options_t *options,
                                  zqb_msg_t *request, zqb_msg_t *reply);

/* Takes a request over and returns at once; id (which may be NULL) gets its number, never 0. It leaves at once if you
   submit one at a time, and take its reply. Those that you submit in a row leave together: as soon as the first has
   waited for 50 microseconds, and at the latest in the next zqb_client_recv or zqb_client_flush. Errors leave request
   as it was: EINVAL, EMSGSIZE, EAGAIN, ENOMEM; ETERM from when the end of the context is noticed, which may be some
   milliseconds later, and is only where something is sent or received. */
ZQB_API int zqb_client_submit (zqb_client_t *client, const char *service, zqb_msg_t *request, uint64_t *id);

/* The same, with options, which may be NULL, and need not outlive the call. The number of one that is one_way is 0, and
   nothing of it will be received. Errors as for zqb_client_submit and zqb_client_call_with; EAGAIN, too, if it is
   one_way and there is no connection at the moment: others wait for one. */
ZQB_API int zqb_client_submit_with (zqb_client_t *client, const char *service, const zqb_request_options_t *options,
                                    zqb_msg_t *request, uint64_t *id);

/* Asks every worker that the service has at that moment, and calls each (answer, arg) for every one that answers, in
   the order in which they do, until all have, or deadline_ms is over (-1: none). Answers may be taken (moved). each may
   call and submit with this client, but not receive, nor destroy it. A worker that fails, refuses or is lost counts as
   one that did not answer. Returns how many did, and asked (which may be NULL) gets how many were asked; request is
   left empty then. -1: as for zqb_client_call_with (EINVAL: a deadline of 0); ZQB_ENOWORKER: there is none;
   ZQB_EEXPIRED: the broker itself said nothing, for the time of a try past the deadline. For a survey without waiting,
   submit it with that option: each answer comes as PARTIAL, and at the end FINAL. */
typedef void (zqb_survey_fn) (zqb_msg_t *answer, void *arg);
ZQB_API int zqb_client_survey (zqb_client_t *client, const char *service, zqb_msg_t *request, int deadline_ms,
                               zqb_survey_fn *each, void *arg, int *asked);

/* Sends what waits to be sent. Only needed when no zqb_client_recv follows soon. ENOMEM (it waits on); ETERM as for
   zqb_client_submit. */
ZQB_API int zqb_client_flush (zqb_client_t *client);

/* The next reply to a submitted request, in the order in which they arrive. Initialise reply->body before the first
   use; it is replaced. Waits at most timeout_ms (0 not at all, -1 as long as it takes). EAGAIN (none came), ENOENT
   (nothing is outstanding), EINTR, ETERM. */
ZQB_API int zqb_client_recv (zqb_client_t *client, zqb_reply_t *reply, int timeout_ms);

/* Gives a request up: that is its one outcome, and nothing about it will be delivered any more. The broker drops it if
   it has not begun, and else tells the worker (zqb_request_cancelled), unless others wait for it, too (`unique`). MDP
   has no word for that: there the work is done for nobody. ENOENT if it has ended already: then its outcome has been
   delivered, or will be. */
ZQB_API int zqb_client_cancel (zqb_client_t *client, uint64_t id);

/* Readable when zqb_client_recv with a timeout of 0 might do something; like ZMQ_FD it tells changes: call recv until
   EAGAIN before waiting, and at least every timeout_ms, or at the next deadline if that is sooner. It is another after
   the client has connected anew, which happens in recv. ENOTCONN while there is none. */
ZQB_API int zqb_client_fd (zqb_client_t *client);

/* What was submitted still leaves, and is done if it is one_way; of the rest nothing will be heard. */
ZQB_API void zqb_client_destroy (zqb_client_t **client);

/* ---- the pool: threads of workers --------------------------------------------------------------------------*/

typedef struct zqb_pool_t zqb_pool_t;

typedef struct zqb_pool_options_t {
    int threads;                 /* as many as the machine has processors; with scale.max: scale.min */
    zqb_scale_options_t scale;   /* with max > 0 threads come and go with the load */
    zqb_worker_options_t worker; /* of each of them */
} zqb_pool_options_t;

/* Starts threads, each with a worker that runs this handler; the handler is called by several threads at once. Errors
   as for zqb_worker_new; EAGAIN when there is no thread to be had, and then none is left running. Workers that the
   broker refuses (ZQB_EREFUSED, ZQB_EDENIED) try again and again. With scale.max one thread more asks the broker how
   long the service's queue is (by mmi.services, which rules have to allow); a thread that is to leave is drained, so
   that nothing is lost. If one is drained by the broker, another takes its place; in a pool of a fixed size that was
   never resized, none does. */
ZQB_API zqb_pool_t *zqb_pool_start (void *ctx, const char *endpoints, const char *service, zqb_handler_fn *handler,
                                    void *arg, const zqb_pool_options_t *options);

/* Ends them all: each finishes the request that it works on, says goodbye, and those it held besides go to others.
   Waits for that. Call it before the context is terminated. */
ZQB_API void zqb_pool_stop (zqb_pool_t **pool);

/* From now on there are so many threads: those that are missing start, those too many are drained. With min below max
   the pool is elastic between them; min = max fixes it. Returns at once. Any thread. EINVAL: min below 1 or above max.
   EAGAIN, EMFILE, ENOMEM: a pool that was not elastic takes one thread more for this, and it is not to be had. */
ZQB_API int zqb_pool_resize (zqb_pool_t *pool, int min, int max);

typedef struct zqb_pool_stats_t {
    int threads;           /* now, with those that are leaving */
    int busy;              /* of them in a handler */
    uint64_t started, left; /* since the pool was started */
} zqb_pool_stats_t;

/* Copies them. Any thread. */
ZQB_API int zqb_pool_stats (zqb_pool_t *pool, zqb_pool_stats_t *stats);

/* ---- who may connect -----------------------------------------------------------------------------------------
   What libzmq asks by ZAP (RFC 27) before it lets a peer in, over tcp and ipc, is answered here for all sockets of a
   context: those of brokers, and the host's own. See section 11 of the manual. All of this: any thread. */

typedef struct zqb_auth_t zqb_auth_t;

/* Who wants to come in. The strings are valid during the call. */
typedef struct zqb_auth_peer_t {
    const char *domain;     /* ZMQ_ZAP_DOMAIN of the socket */
    const char *address;    /* "192.0.2.1", "2001:db8::1"; over ipc "localhost:UID:GID:PID" on Linux */
    const char *mechanism;  /* "NULL", "PLAIN", "CURVE" */
    const char *public_key; /* of CURVE, in Z85; else NULL */
    char user[256];         /* the user id that it gets, NUL-terminated; "" none. decide may put another one there */
} zqb_auth_peer_t;

/* The host's own opinion, asked last, in the thread that answers: 1 let it in, 0 do not, -1 what the lists say. It is
   asked about who the lists would let in, and about CURVE keys that they do not have, whose user is the key; but not
   about addresses that are refused and passwords that are wrong: nobody can let these in. Peers that connect wait for
   it. It may call all of zqb_auth_* but zqb_auth_stop. */
typedef int (zqb_auth_fn) (zqb_auth_peer_t *peer, void *arg);

/* Whether this is the password of a user that the lists do not have: 1; anything else: no. The password is overwritten
   when it returns. In the thread that answers. */
typedef int (zqb_verify_fn) (const char *user, const char *password, void *arg);

typedef struct zqb_auth_options_t {
    const char *file;      /* NULL   see section 11; read at once, and at each zqb_auth_reload */
    zqb_auth_fn *decide;   /* NULL */
    void *decide_arg;
    zqb_verify_fn *verify; /* NULL */
    void *verify_arg;
    int max_entries;       /* 100000 addresses, keys and users together, of calls; and so many of the file */
    int max_lines;         /* 100000 lines of the file, each of up to 1024 bytes; it may have 16 MiB */
    int log_level;         /* ZQB_LOG_INFO, if there is a log function; -1 none. INFO: who was let in; WARNING: who was
                              not, 10 times a second at most */
    zqb_log_fn *log;       /* NULL   called by the thread that answers, and within zqb_auth_start and _reload */
    void *log_arg;
} zqb_auth_options_t;

/* Begins to answer, in a thread of its own. Before it is started and after it was stopped libzmq lets anybody in by
   CURVE who has the server's key: so start it before the sockets are bound, and stop it when they are closed. options
   may be NULL, and is copied. EADDRINUSE: the context has a handler already (CZMQ's zauth, say), which then answers for
   us, too; EINVAL: options, or the file; EPERM and others: see zqb_auth_reload; ENOMEM, EMFILE, EAGAIN (no thread),
   ETERM. */
ZQB_API zqb_auth_t *zqb_auth_start (void *ctx, const zqb_auth_options_t *options);

/* Adds an address, "192.0.2.1", or all with the same first bits, "10.0.0.0/8", "2001:db8::/32"; or "ipc", all peers
   over ipc. IPv6 addresses that stand for one of IPv4 (::ffff:192.0.2.1) are taken for that, so "::/0" is nobody with
   IPv4. Who is denied is refused, whatever allows it; and if any is allowed, all others are refused. There is no call
   that takes one back: addresses that change belong into the file. EINVAL, ENOSPC (max_entries), ENOMEM. */
ZQB_API int zqb_auth_allow (zqb_auth_t *auth, const char *cidr);
ZQB_API int zqb_auth_deny (zqb_auth_t *auth, const char *cidr);

/* Lets the owner of this key, 40 characters of Z85, in by CURVE, as this user, 1 to 255 bytes; replaces what was said
   of the key before, and goes before what the file says. With "*" as the key: all who have a key that is not listed.
   NULL as the user removes it; of the file, too, until that is read again. EINVAL, ENOSPC, ENOMEM; ENOENT: there is
   none to remove. */
ZQB_API int zqb_auth_curve (zqb_auth_t *auth, const char *public_key, const char *user);

/* Lets a user in by PLAIN, with this password, each of 1 to 255 bytes. NULL as the password removes it. Passwords are
   kept as they are: libzmq has no hash that one may call, and we make up none of our own. If yours are hashed, see
   `verify`. Otherwise as zqb_auth_curve. */
ZQB_API int zqb_auth_plain (zqb_auth_t *auth, const char *user, const char *password);

/* Reads the file again, which replaces what was read from it before, all of it or, if anything is wrong, nothing. What
   was added by calls stays. EINVAL: there is no such option, it is no plain file, or a line is wrong, which the log
   tells; EPERM: others may write to the file, or read passwords in it, or it is neither ours nor root's; EAGAIN: it is
   being written; ENOENT and whatever else the system says; ENOSPC, EFBIG: it is too large; ENOMEM. */
ZQB_API int zqb_auth_reload (zqb_auth_t *auth);

#define ZQB_AUTH_STATS(X)                                                                                          \
    X (accepted, "peers let in")                                                                                   \
    X (refused_address, "peers refused for their address")                                                         \
    X (refused_key, "peers whose key is not known")                                                                \
    X (refused_password, "peers whose user or password is wrong")                                                  \
    X (refused_mechanism, "peers with a mechanism other than NULL, PLAIN and CURVE")                               \
    X (refused_host, "peers that the host refused")                                                                \
    X (malformed, "requests that are none")                                                                        \
    X (dropped, "of them: without an answer, as it could not be told whose they are")                              \
    X (no_memory, "peers let in, but for the memory to say so: they are closed, and try again")                    \
    X (entries, "addresses, keys and users listed now")                                                            \
    X (reloads, "times that the file was read")                                                                    \
    X (reloads_failed, "times that it could not be, or was wrong")

#define ZQB_X(name, text) uint64_t name;
typedef struct zqb_auth_stats_t {
    ZQB_AUTH_STATS (ZQB_X)
} zqb_auth_stats_t;
#undef ZQB_X

/* Counters since it was started, but for entries. */
ZQB_API int zqb_auth_stats (zqb_auth_t *auth, zqb_auth_stats_t *stats);

/* Answers what was asked already, ends, and wipes all passwords. Brokers that have it as an option are destroyed
   before. */
ZQB_API void zqb_auth_stop (zqb_auth_t **auth);

/* ----------------------------------------------------------------------------------------------------------------
   The API ends here, you can stop reading. What follows is how it works.
   ---------------------------------------------------------------------------------------------------------------- */

#endif /* ZQBROKER_H_INCLUDED */

#if defined ZQBROKER_IMPLEMENTATION && !defined ZQBROKER_IMPLEMENTATION_INCLUDED
#define ZQBROKER_IMPLEMENTATION_INCLUDED

/* ================================================================================================================
   >>platform
   Owns:    the clock, memory, random bytes, threads, locks, what several threads count together, the signal that wakes
            a thread, wiping, files that are trusted, text by words, the end of a connection. Every #ifdef for a
            system is here.
   Door:    zqb__clock, zqb__alloc, zqb__random, zqb__thread_*, zqb__lock_*, zqb__ledger_*, zqb__account_*,
            zqb__signal_*, zqb__wait, zqb__processors, zqb__wipe, zqb__secret_same, zqb__file_*, zqb__text_*,
            zqb__connection_hold, _cut, _let
   Uses:    libc
   Never:   knows what it is used for
   ================================================================================================================ */

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined ZQB_MALLOC || defined ZQB_REALLOC || defined ZQB_FREE
#if !defined ZQB_MALLOC || !defined ZQB_REALLOC || !defined ZQB_FREE
#error "define all of ZQB_MALLOC, ZQB_REALLOC and ZQB_FREE, or none"
#endif
#else
#define ZQB_MALLOC(size) malloc (size)
#define ZQB_REALLOC(pointer, size) realloc (pointer, size)
#define ZQB_FREE(pointer) free (pointer)
#endif

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#else
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifndef CLOCK_MONOTONIC
#error "include zqbroker.h with the implementation before any other header, or define _POSIX_C_SOURCE=200809L"
#endif
#endif
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

/* What is done seldom, in the midst of what is done often, which is faster if it is by itself. */
#ifdef __GNUC__
#define ZQB__SELDOM __attribute__ ((noinline))
#else
#define ZQB__SELDOM
#endif

/* Zeroed memory, or NULL with errno ENOMEM. */
static void *zqb__alloc (size_t size)
{
    void *memory = ZQB_MALLOC (size);
    if (memory)
        memset (memory, 0, size);
    else
        errno = ENOMEM;
    return memory;
}

/* A copy with a NUL behind it, or NULL with errno ENOMEM. */
static char *zqb__copy_text (const void *text, size_t size)
{
    char *copy = (char *) ZQB_MALLOC (size + 1);
    if (!copy) {
        errno = ENOMEM;
        return NULL;
    }
    memcpy (copy, text, size);
    copy[size] = 0;
    return copy;
}

/* Makes room for at least `wanted` items, at least doubling; -1 and ENOMEM leave everything as it was. */
static int zqb__grow (void **items, size_t *capacity, size_t wanted, size_t item_size)
{
    size_t larger = *capacity * 2 > wanted ? *capacity * 2 : wanted;
    if (wanted <= *capacity)
        return 0;
    void *moved = larger > SIZE_MAX / item_size ? NULL : ZQB_REALLOC (*items, larger * item_size);
    if (!moved) {
        errno = ENOMEM;
        return -1;
    }
    *items = moved;
    *capacity = larger;
    return 0;
}

#ifdef _WIN32

typedef CRITICAL_SECTION zqb__mutex_t;
typedef HANDLE zqb__native_thread_t;

static int zqb__mutex_init (zqb__mutex_t *mutex)
{
    InitializeCriticalSection (mutex);
    return 0;
}

#define zqb__mutex_enter(mutex) EnterCriticalSection (mutex)
#define zqb__mutex_leave(mutex) LeaveCriticalSection (mutex)
#define zqb__mutex_close(mutex) DeleteCriticalSection (mutex)
#define zqb__give_way() SwitchToThread ()

/* Microseconds of a clock that never jumps. */
static uint64_t zqb__clock (void)
{
    LARGE_INTEGER now, per_second;
    QueryPerformanceCounter (&now);
    QueryPerformanceFrequency (&per_second);
    return (uint64_t) ((double) now.QuadPart * 1e6 / (double) per_second.QuadPart);
}

#ifdef __cplusplus
extern "C"
#endif
BOOLEAN NTAPI SystemFunction036 (void *buffer, ULONG size); /* RtlGenRandom, of advapi32 */

static uint64_t zqb__random (void)
{
    uint64_t value = 0;
    if (!SystemFunction036 (&value, sizeof value))
        value = zqb__clock () * 0x9e3779b97f4a7c15u ^ (uint64_t) GetCurrentProcessId ();
    return value;
}

static int zqb__processors (void)
{
    SYSTEM_INFO info;
    GetSystemInfo (&info);
    return (int) info.dwNumberOfProcessors;
}

typedef WSAPOLLFD zqb__poll_t;
#define zqb__poll(items, count, timeout) WSAPoll ((items), (ULONG) (count), (timeout))

/* A datagram socket that is connected to itself: Windows cannot wait for a pipe together with sockets. */
static int zqb__pipe_open (zmq_fd_t ends[2])
{
    struct sockaddr_in self;
    int size = (int) sizeof self;
    u_long on = 1;
    memset (&self, 0, sizeof self);
    self.sin_family = AF_INET;
    self.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    ends[0] = ends[1] = socket (AF_INET, SOCK_DGRAM, 0);
    if (ends[0] != INVALID_SOCKET && bind (ends[0], (struct sockaddr *) &self, size) == 0
        && getsockname (ends[0], (struct sockaddr *) &self, &size) == 0
        && connect (ends[0], (struct sockaddr *) &self, size) == 0 && ioctlsocket (ends[0], (long) FIONBIO, &on) == 0)
        return 0;
    errno = EMFILE;
    return -1;
}

static int zqb__pipe_read (zmq_fd_t end, char *buffer, size_t size)
{
    return recv (end, buffer, (int) size, 0);
}

static int zqb__pipe_write (zmq_fd_t end)
{
    return send (end, "", 1, 0);
}

static void zqb__pipe_close (zmq_fd_t ends[2])
{
    closesocket (ends[0]);
}

typedef volatile LONG zqb__flag_t;
#define zqb__flag_set(flag) InterlockedExchange ((flag), 1)
#define zqb__flag_clear(flag) InterlockedExchange ((flag), 0)
#define zqb__flag_get(flag) InterlockedCompareExchange ((flag), 0, 0)
#define zqb__flag_add(flag, value) InterlockedExchangeAdd ((flag), (value))
#define zqb__flag_take(flag) InterlockedExchange ((flag), 0)
#define zqb__flag_swap(flag, before, value) (InterlockedCompareExchange ((flag), (value), (before)) == (before))
#define zqb__flag_note(flag, value) (void) (*(flag) = (value))
#define zqb__flag_look(flag) (*(flag))

#else /* POSIX */

#if ZMQ_VERSION < ZMQ_MAKE_VERSION (4, 3, 3)
typedef int zmq_fd_t;
#endif
typedef pthread_mutex_t zqb__mutex_t;
typedef pthread_t zqb__native_thread_t;

/* Recursive, as a handler inside the broker's thread may call the broker. */
static int zqb__mutex_init (zqb__mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init (&attributes);
    pthread_mutexattr_settype (&attributes, PTHREAD_MUTEX_RECURSIVE);
    int failed = pthread_mutex_init (mutex, &attributes);
    pthread_mutexattr_destroy (&attributes);
    if (failed)
        errno = failed;
    return failed ? -1 : 0;
}

#define zqb__mutex_enter(mutex) pthread_mutex_lock (mutex)
#define zqb__mutex_leave(mutex) pthread_mutex_unlock (mutex)
#define zqb__mutex_close(mutex) pthread_mutex_destroy (mutex)
#define zqb__give_way() sched_yield ()

/* Microseconds of a clock that never jumps. */
static uint64_t zqb__clock (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000u + (uint64_t) now.tv_nsec / 1000u;
}

static uint64_t zqb__random (void)
{
    uint64_t value = 0;
    int fd = open ("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read (fd, &value, sizeof value);
    if (fd >= 0)
        close (fd);
    if (got != (ssize_t) sizeof value) /* a jail without devices: unique enough, though not secret */
        value = zqb__clock () * 0x9e3779b97f4a7c15u ^ (uint64_t) getpid () << 32 ^ (uint64_t) (uintptr_t) &value;
    return value;
}

static int zqb__processors (void)
{
#ifdef _SC_NPROCESSORS_ONLN
    long count = sysconf (_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int) count : 1;
#else
    return 4;
#endif
}

typedef struct pollfd zqb__poll_t;
#define zqb__poll(items, count, timeout) poll ((items), (nfds_t) (count), (timeout))

static int zqb__pipe_read (zmq_fd_t end, char *buffer, size_t size)
{
    return (int) read (end, buffer, size);
}

#ifdef __linux__

/* Closed on exec from the first moment: another thread may be forking. */
static int zqb__pipe_open (zmq_fd_t ends[2])
{
    ends[0] = ends[1] = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    return ends[0] < 0 ? -1 : 0;
}

static int zqb__pipe_write (zmq_fd_t end)
{
    uint64_t one = 1;
    return (int) write (end, &one, sizeof one);
}

static void zqb__pipe_close (zmq_fd_t ends[2])
{
    close (ends[0]);
}

#else

static int zqb__pipe_open (zmq_fd_t ends[2])
{
    if (pipe (ends) != 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl (ends[i], F_SETFL, O_NONBLOCK);
        fcntl (ends[i], F_SETFD, FD_CLOEXEC);
    }
    return 0;
}

static int zqb__pipe_write (zmq_fd_t end)
{
    return (int) write (end, "", 1);
}

static void zqb__pipe_close (zmq_fd_t ends[2])
{
    close (ends[0]);
    close (ends[1]);
}

#endif

typedef int zqb__flag_t;
#define zqb__flag_set(flag) __atomic_store_n ((flag), 1, __ATOMIC_SEQ_CST)
#define zqb__flag_clear(flag) __atomic_store_n ((flag), 0, __ATOMIC_SEQ_CST)
#define zqb__flag_get(flag) __atomic_load_n ((flag), __ATOMIC_SEQ_CST)
#define zqb__flag_add(flag, value) __atomic_fetch_add ((flag), (value), __ATOMIC_SEQ_CST)
#define zqb__flag_take(flag) __atomic_exchange_n ((flag), 0, __ATOMIC_SEQ_CST)
#define zqb__flag_swap(flag, before, value)                                                                        \
    __atomic_compare_exchange_n ((flag), &(before), (value), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define zqb__flag_note(flag, value) __atomic_store_n ((flag), (value), __ATOMIC_RELAXED)
#define zqb__flag_look(flag) __atomic_load_n ((flag), __ATOMIC_RELAXED)

#endif

/* Raises it to that value, if it is less. (zqb__flag_note and _look cost nothing: others see it a moment later.) */
static void zqb__flag_raise (zqb__flag_t *flag, int value)
{
    int before = zqb__flag_get (flag);
    while (before < value && !zqb__flag_swap (flag, before, value))
        before = zqb__flag_get (flag);
}

/* A thread, which blocks all signals: they are the host's. But for those by which the system tells a thread of its own
   mistake: were they blocked, it would end the process without asking the host's handler. NULL and EAGAIN if there is
   none to be had. */
typedef struct zqb__thread_t {
    zqb__native_thread_t native;
    void (*run) (void *arg);
    void *arg;
} zqb__thread_t;

#ifdef _WIN32

static DWORD WINAPI zqb__thread_main (void *arg)
{
    zqb__thread_t *thread = (zqb__thread_t *) arg;
    thread->run (thread->arg);
    return 0;
}

static int zqb__thread_begin (zqb__thread_t *thread)
{
    thread->native = CreateThread (NULL, 0, zqb__thread_main, thread, 0, NULL);
    return thread->native ? 0 : -1;
}

static void zqb__thread_wait (zqb__thread_t *thread)
{
    WaitForSingleObject (thread->native, INFINITE);
    CloseHandle (thread->native);
}

#else

static void *zqb__thread_main (void *arg)
{
    zqb__thread_t *thread = (zqb__thread_t *) arg;
    thread->run (thread->arg);
    return NULL;
}

static int zqb__thread_begin (zqb__thread_t *thread)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t others, before;
    sigfillset (&others);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset (&others, own[i]);
    pthread_sigmask (SIG_SETMASK, &others, &before);
    int failed = pthread_create (&thread->native, NULL, zqb__thread_main, thread);
    pthread_sigmask (SIG_SETMASK, &before, NULL);
    return failed ? -1 : 0;
}

static void zqb__thread_wait (zqb__thread_t *thread)
{
    pthread_join (thread->native, NULL);
}

#endif

static zqb__thread_t *zqb__thread_start (void (*run) (void *arg), void *arg)
{
    zqb__thread_t *thread = (zqb__thread_t *) zqb__alloc (sizeof *thread);
    if (!thread)
        return NULL;
    thread->run = run;
    thread->arg = arg;
    if (zqb__thread_begin (thread) == 0)
        return thread;
    ZQB_FREE (thread);
    errno = EAGAIN;
    return NULL;
}

/* Waits for its end. */
static void zqb__thread_join (zqb__thread_t **thread)
{
    if (!*thread)
        return;
    zqb__thread_wait (*thread);
    ZQB_FREE (*thread);
    *thread = NULL;
}

/* A lock that its busiest user can offer to others, who would hardly ever get it if it were just let go and taken. */
typedef struct zqb__lock_t {
    zqb__mutex_t mutex;
    zqb__flag_t waiting;
    unsigned turns; /* how often somebody entered */
} zqb__lock_t;

static int zqb__lock_init (zqb__lock_t *lock)
{
    lock->waiting = 0;
    lock->turns = 0;
    return zqb__mutex_init (&lock->mutex);
}

static void zqb__lock_enter (zqb__lock_t *lock)
{
    zqb__flag_add (&lock->waiting, 1);
    zqb__mutex_enter (&lock->mutex);
    zqb__flag_add (&lock->waiting, -1);
    lock->turns++;
}

static void zqb__lock_leave (zqb__lock_t *lock)
{
    zqb__mutex_leave (&lock->mutex);
}

/* Lets one in, if somebody waits. */
static void zqb__lock_yield (zqb__lock_t *lock)
{
    unsigned turns = lock->turns;
    while (zqb__flag_get (&lock->waiting) && lock->turns == turns) {
        zqb__mutex_leave (&lock->mutex);
        zqb__give_way ();
        zqb__mutex_enter (&lock->mutex);
    }
}

static void zqb__lock_close (zqb__lock_t *lock)
{
    zqb__mutex_close (&lock->mutex);
}

/* What is under way, in bytes, counted by several threads: of each account, and in all accounts of a ledger together.
   Each lives as long as anybody uses it. */
typedef struct zqb__ledger_t {
    zqb__mutex_t mutex;
    uint64_t most, most_each;
    uint64_t bytes;
    size_t users;
} zqb__ledger_t;

typedef struct zqb__account_t {
    zqb__ledger_t *ledger;
    uint64_t bytes;
    size_t users;
} zqb__account_t;

/* NULL and ENOMEM. most: in all; most_each: of one account, or what is left of most if that is less. */
static zqb__ledger_t *zqb__ledger_new (uint64_t most, uint64_t most_each)
{
    zqb__ledger_t *ledger = (zqb__ledger_t *) zqb__alloc (sizeof *ledger);
    if (ledger && zqb__mutex_init (&ledger->mutex) == 0) {
        ledger->most = most;
        ledger->most_each = most_each;
        ledger->users = 1;
        return ledger;
    }
    ZQB_FREE (ledger);
    return NULL;
}

static void zqb__ledger_release (zqb__ledger_t *ledger)
{
    if (!ledger)
        return;
    zqb__mutex_enter (&ledger->mutex);
    size_t users = --ledger->users;
    zqb__mutex_leave (&ledger->mutex);
    if (users)
        return;
    zqb__mutex_close (&ledger->mutex);
    ZQB_FREE (ledger);
}

/* NULL and ENOMEM */
static zqb__account_t *zqb__account_new (zqb__ledger_t *ledger)
{
    zqb__account_t *account = (zqb__account_t *) zqb__alloc (sizeof *account);
    if (!account)
        return NULL;
    zqb__mutex_enter (&ledger->mutex);
    ledger->users++;
    zqb__mutex_leave (&ledger->mutex);
    account->ledger = ledger;
    account->users = 1;
    return account;
}

/* So many bytes of the account are no longer under way; one of its users leaves. */
static void zqb__account_release (zqb__account_t *account, uint64_t bytes)
{
    if (!account)
        return;
    zqb__ledger_t *ledger = account->ledger;
    zqb__mutex_enter (&ledger->mutex);
    account->bytes -= bytes;
    ledger->bytes -= bytes;
    size_t users = --account->users;
    zqb__mutex_leave (&ledger->mutex);
    if (users)
        return;
    ZQB_FREE (account);
    zqb__ledger_release (ledger);
}

/* Another user, with so many bytes. -1 and EAGAIN: too many are under way. An account that has none may always have
   some: however slow the others are, who is not gets on. */
static int zqb__account_use (zqb__account_t *account, uint64_t bytes)
{
    zqb__ledger_t *ledger = account->ledger;
    zqb__mutex_enter (&ledger->mutex);
    uint64_t left = ledger->most - (ledger->bytes < ledger->most ? ledger->bytes : ledger->most);
    int fits = !account->bytes || account->bytes < (left < ledger->most_each ? left : ledger->most_each);
    account->users += fits ? 1 : 0;
    account->bytes += fits ? bytes : 0;
    ledger->bytes += fits ? bytes : 0;
    zqb__mutex_leave (&ledger->mutex);
    errno = EAGAIN;
    return fits ? 0 : -1;
}

/* A signal: a flag that says stop, and a descriptor that wakes whoever waits for it. Raised by any thread and in signal
   handlers. */
typedef struct zqb__signal_t {
    zqb__flag_t stop;
    zmq_fd_t ends[2];
} zqb__signal_t;

static int zqb__signal_init (zqb__signal_t *signal)
{
    signal->stop = 0;
    return zqb__pipe_open (signal->ends);
}

static void zqb__signal_close (zqb__signal_t *signal)
{
    zqb__pipe_close (signal->ends);
}

static void zqb__signal_wake (zqb__signal_t *signal)
{
    int keep = errno;
    (void) !zqb__pipe_write (signal->ends[1]); /* a full pipe wakes as well */
    errno = keep;
}

static void zqb__signal_stop (zqb__signal_t *signal)
{
    zqb__flag_set (&signal->stop);
    zqb__signal_wake (signal);
}

static int zqb__signal_stopped (zqb__signal_t *signal)
{
    return zqb__flag_get (&signal->stop) != 0;
}

/* Forgets the wake-ups so far, not the stop. */
static void zqb__signal_drain (zqb__signal_t *signal)
{
    char bytes[64];
    while (zqb__pipe_read (signal->ends[0], bytes, sizeof bytes) == (int) sizeof bytes) {
    }
}

/* Waits until one of the descriptors is readable or timeout_us is over (UINT64_MAX: for ever); -1 and EINTR on a
   signal. Only raw descriptors: a socket of libzmq is read until EAGAIN first, and its ZMQ_FD then tells what is new.
   That takes fewer system calls than zmq_poll, which looks at everything twice. */
static int zqb__wait (zqb__poll_t *items, int count, uint64_t timeout_us)
{
    uint64_t ms = timeout_us / 1000 + (timeout_us % 1000 ? 1 : 0);
    int timeout = timeout_us == UINT64_MAX ? -1 : ms > INT_MAX ? INT_MAX : (int) ms;
    return zqb__poll (items, count, timeout);
}

static zqb__poll_t zqb__poll_item (zmq_fd_t fd)
{
    zqb__poll_t item;
    memset (&item, 0, sizeof item);
    item.fd = fd;
    item.events = POLLIN;
    return item;
}

/* The descriptor of a socket of libzmq. */
static zmq_fd_t zqb__socket_fd (void *socket)
{
    zmq_fd_t fd = 0;
    size_t size = sizeof fd;
    zmq_getsockopt (socket, ZMQ_FD, &fd, &size);
    return fd;
}

static void zqb__set_int (void *socket, int option, int value)
{
    zmq_setsockopt (socket, option, &value, sizeof value);
}

/* ---- secrets, and files that are trusted */

/* Overwrites what nobody is to find. No compiler may leave that out, as it may a memset in front of a free. */
static void zqb__wipe (void *memory, size_t size)
{
    volatile unsigned char *at = (volatile unsigned char *) memory;
    for (size_t i = 0; i < size; i++)
        at[i] = 0;
}

/* A secret lies in so many bytes, with zeros behind it. */
enum { ZQB__SECRET_ROOM = 256 };

/* Whether two are the same. It always takes the same time, whatever they are, and however long. */
static int zqb__secret_same (const unsigned char *a, size_t a_size, const unsigned char *b, size_t b_size)
{
    volatile size_t differ = a_size ^ b_size;
    for (size_t i = 0; i < ZQB__SECRET_ROOM; i++)
        differ = differ | (size_t) (a[i] ^ b[i]);
    return differ == 0;
}

/* All of a file, with a NUL behind it. */
typedef struct zqb__file_t {
    char *text;
    size_t size;
    int is_shared; /* others may do something with it */
} zqb__file_t;

#ifdef _WIN32

typedef FILE *zqb__handle_t;
#define zqb__handle_read(handle, bytes, size) ((long) fread ((bytes), 1, (size), (handle)))
#define zqb__handle_close(handle) fclose (handle)

/* Who may read and write it, the lists of its owner say, which we do not look at. */
static int zqb__handle_open (zqb__handle_t *handle, const char *path, zqb__file_t *file)
{
    *handle = fopen (path, "rb");
    if (!*handle)
        return -1;
    setvbuf (*handle, NULL, _IONBF, 0); /* no library keeps a copy */
    fseek (*handle, 0, SEEK_END);
    file->size = (size_t) ftell (*handle);
    rewind (*handle);
    return 0;
}

#else

typedef int zqb__handle_t;
#define zqb__handle_read(handle, bytes, size) ((long) read ((handle), (bytes), (size)))
#define zqb__handle_close(handle) close (handle)

/* Looks at what was opened, not at what has the name meanwhile. -1: as for zqb__file_read. */
static int zqb__handle_open (zqb__handle_t *handle, const char *path, zqb__file_t *file)
{
    struct stat info;
    int error = 0;
    *handle = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*handle < 0)
        return -1;
    if (fstat (*handle, &info) != 0)
        error = errno;
    else if (!S_ISREG (info.st_mode))
        error = EINVAL;
    else if ((info.st_mode & (S_IWGRP | S_IWOTH)) || (info.st_uid != geteuid () && info.st_uid != 0))
        error = EPERM;
    if (error) {
        close (*handle);
        errno = error;
        return -1;
    }
    file->size = (size_t) info.st_size;
    file->is_shared = (info.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    return 0;
}

#endif

/* Nothing of it stays in memory. */
static void zqb__file_free (zqb__file_t *file)
{
    zqb__wipe (file->text, file->text ? file->size : 0);
    ZQB_FREE (file->text);
    memset (file, 0, sizeof *file);
}

/* Reads as many bytes as there were, and sees that these are all. */
static int zqb__file_fill (zqb__file_t *file, zqb__handle_t handle)
{
    size_t had = 0;
    long got = 1;
    while (had <= file->size && (got = zqb__handle_read (handle, file->text + had, file->size + 1 - had)) != 0) {
        if (got < 0 && errno != EINTR)
            return -1;
        had += got > 0 ? (size_t) got : 0;
    }
    file->text[file->size] = 0;
    errno = EAGAIN;
    return had == file->size ? 0 : -1;
}

/* Reads a whole file, for zqb__file_free. -1, and there is nothing to free: ENOENT, EACCES ...; EINVAL: it is no plain
   file; EPERM: it is not ours or root's, or others may write to it, or it is secret and not its owner's alone; EFBIG:
   it has more than that many bytes; EAGAIN: it is being written; ENOMEM. */
static int zqb__file_read (zqb__file_t *file, const char *path, size_t most, int is_secret)
{
    zqb__handle_t handle;
    memset (file, 0, sizeof *file);
    if (zqb__handle_open (&handle, path, file) != 0)
        return -1;
    int error = is_secret && file->is_shared ? EPERM : file->size > most ? EFBIG : 0;
    file->text = error ? NULL : (char *) zqb__alloc (file->size + 1);
    if (!error && (!file->text || zqb__file_fill (file, handle) != 0))
        error = errno;
    zqb__handle_close (handle);
    if (!error)
        return 0;
    zqb__file_free (file);
    errno = error;
    return -1;
}

/* ---- text by lines, and lines by words */

typedef struct zqb__word_t {
    const char *at;
    size_t size;
} zqb__word_t;

static int zqb__word_is (const zqb__word_t *word, const char *text)
{
    return word->size == strlen (text) && memcmp (word->at, text, word->size) == 0;
}

static int zqb__is_blank (char byte)
{
    return byte == ' ' || byte == '\t';
}

/* Takes the next line off a text, without what ends it, \n or \r\n: 1; 0: there is none. */
static int zqb__text_line (zqb__word_t *text, zqb__word_t *line)
{
    const char *end = text->size ? (const char *) memchr (text->at, '\n', text->size) : NULL;
    size_t step = end ? (size_t) (end - text->at) + 1 : text->size;
    line->at = text->at;
    line->size = step - (end != NULL);
    text->at += step;
    text->size -= step;
    line->size -= line->size && line->at[line->size - 1] == '\r';
    return step != 0;
}

/* Whether there is nothing in a line but text, of whatever encoding, and tabs. */
static int zqb__text_valid (const zqb__word_t *line)
{
    for (size_t i = 0; i < line->size; i++)
        if (((unsigned char) line->at[i] < 32 && line->at[i] != '\t') || line->at[i] == 127)
            return 0;
    return 1;
}

/* Takes the next word off a line: 1; 0: there is none. */
static int zqb__text_word (zqb__word_t *line, zqb__word_t *word)
{
    while (line->size && zqb__is_blank (*line->at))
        line->at++, line->size--;
    word->at = line->at;
    while (line->size && !zqb__is_blank (*line->at))
        line->at++, line->size--;
    word->size = (size_t) (line->at - word->at);
    return word->size != 0;
}

/* ---- the end of a connection: libzmq tells its descriptor, but closes none when asked to; and it may close this one,
   and open another with the same number, at any moment */

#ifdef _WIN32

/* There a socket cannot be held as below, and another one might be ended. */
static int zqb__connection_hold (int fd)
{
    (void) fd;
    errno = ENOTSUP;
    return -1;
}

static int zqb__connection_cut (int held, char *const *endpoints, size_t count)
{
    (void) held, (void) endpoints, (void) count;
    return -1;
}

static void zqb__connection_let (int held)
{
    (void) held;
}

#else

typedef union zqb__sockaddr_t {
    struct sockaddr any;
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;
    struct sockaddr_un local;
    struct sockaddr_storage room;
} zqb__sockaddr_t;

/* Whether the near end of a socket is at this endpoint, as libzmq spells it: "tcp://127.0.0.1:5555", of which the port
   says enough, "ipc:///tmp/x", "ipc://@x" of an abstract one. */
static int zqb__sockaddr_is_tcp (const zqb__sockaddr_t *name, const char *endpoint)
{
    const char *port = strrchr (endpoint, ':');
    unsigned bound = name->any.sa_family == AF_INET    ? name->ip4.sin_port
                     : name->any.sa_family == AF_INET6 ? name->ip6.sin6_port
                                                       : 0;
    return bound && strncmp (endpoint, "tcp://", 6) == 0 && ntohs ((uint16_t) bound) == strtoul (port + 1, NULL, 10);
}

static int zqb__sockaddr_is_ipc (const zqb__sockaddr_t *name, size_t size, const char *endpoint)
{
    if (name->any.sa_family != AF_UNIX || strncmp (endpoint, "ipc://", 6) != 0)
        return 0;
    const char *path = endpoint + 6, *bound = name->local.sun_path;
    size_t before = offsetof (struct sockaddr_un, sun_path), room = size > before ? size - before : 0;
    size_t first = room && !bound[0] && *path == '@', end = strnlen (bound + first, room - first) + first;
    return end == strlen (path) && memcmp (bound + first, path + first, end - first) == 0;
}

/* A copy of the descriptor: what it stands for stays the same, whatever gets that number meanwhile. -1: there is
   none. */
static int zqb__connection_hold (int fd)
{
    return fcntl (fd, F_DUPFD_CLOEXEC, 0);
}

static void zqb__connection_let (int held)
{
    if (held >= 0)
        close (held);
}

/* Ends a connection that was accepted at one of these endpoints, of which a copy is held. -1: it is none, as what
   listens there is not: libzmq aborts if that ends. */
static int zqb__connection_cut (int held, char *const *endpoints, size_t count)
{
    zqb__sockaddr_t name;
    socklen_t size = sizeof name;
    int listens = 0;
    socklen_t listens_size = sizeof listens;
    memset (&name, 0, sizeof name);
    if (getsockopt (held, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_size) != 0 || listens
        || getsockname (held, &name.any, &size) != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (zqb__sockaddr_is_tcp (&name, endpoints[i]) || zqb__sockaddr_is_ipc (&name, size, endpoints[i]))
            return shutdown (held, SHUT_RDWR);
    return -1;
}

#endif

/* ---- options: zero is the default, -1 is without limit */

static int zqb__option (int value, int standard)
{
    return value == 0 ? standard : value < 0 ? INT_MAX : value;
}

static int zqb__all_valid (const int64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] < -1)
            return 0;
    return 1;
}

static int64_t zqb__option64 (int64_t value, int64_t standard)
{
    return value == 0 ? standard : value < 0 ? INT64_MAX : value;
}

/* Microseconds of an option in milliseconds; UINT64_MAX for ever. */
static uint64_t zqb__option_us (int value, int standard)
{
    return value < 0 ? UINT64_MAX : (uint64_t) zqb__option (value, standard) * 1000u;
}

/* Microseconds of a time-out in milliseconds; UINT64_MAX for ever. */
static uint64_t zqb__timeout_us (int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : (uint64_t) timeout_ms * 1000u;
}

/* span * factor, where UINT64_MAX means for ever. */
static uint64_t zqb__times (uint64_t span, uint64_t factor)
{
    return factor && span > UINT64_MAX / factor ? UINT64_MAX : span * factor;
}

/* now + span, where UINT64_MAX means never. */
static uint64_t zqb__after (uint64_t now, uint64_t span)
{
    return span > UINT64_MAX - now ? UINT64_MAX : now + span;
}

/* How many milliseconds are left until then: 0 none, and never less than there are. */
static int zqb__left_ms (uint64_t until, uint64_t now)
{
    uint64_t left = until > now ? (until - now) / 1000 + ((until - now) % 1000 ? 1 : 0) : 0;
    return left > INT_MAX ? INT_MAX : (int) left;
}

/* ---- versions and errors */

ZQB_API void zqb_version (int *major, int *minor, int *patch)
{
    if (major)
        *major = ZQB_VERSION_MAJOR;
    if (minor)
        *minor = ZQB_VERSION_MINOR;
    if (patch)
        *patch = ZQB_VERSION_PATCH;
}

ZQB_API const char *zqb_strerror (int errnum)
{
    switch (errnum) {
#define ZQB_X(name, status, text)                                                                                  \
    case name:                                                                                                     \
        return text;
        ZQB_ERRORS (ZQB_X)
#undef ZQB_X
        default:
            return zmq_strerror (errnum);
    }
}

static int zqb__invalid (void)
{
    errno = EINVAL;
    return -1;
}

/* Names of services: 1 to 255 bytes; those that begin with "mmi." are the broker's own (RFC 8). */
static int zqb__name_valid (size_t size)
{
    return size >= 1 && size <= 255;
}

static int zqb__name_reserved (const void *name, size_t size)
{
    return size >= 4 && memcmp (name, "mmi.", 4) == 0;
}

static int zqb__service_valid (const char *service)
{
    return service && zqb__name_valid (strlen (service)) && !zqb__name_reserved (service, strlen (service));
}

/* Names of services as text: what is not printable ASCII, spaces and backslashes as \xHH. */
enum { ZQB__NAME_TEXT = 4 * 255 + 1 };

static const char *zqb__name_text (const char *name, size_t size, char text[ZQB__NAME_TEXT])
{
    char *end = text;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char) name[i];
        int plain = byte > 32 && byte < 127 && byte != '\\';
        end += snprintf (end, 5, plain ? "%c" : "\\x%02x", byte);
    }
    *end = 0;
    return text;
}

/* A line for the host's log function, if it wants that level. */
static void zqb__log (zqb_log_fn *log, void *arg, int wanted, int level, const char *format, va_list args)
{
    char line[1280];
    if (!log || level > wanted)
        return;
    vsnprintf (line, sizeof line, format, args);
    log (level, line, arg);
}

/* Lines on what peers have done, who would else fill the log: so many in a time, and then how many there were
   besides. */
typedef struct zqb__lines_t {
    uint64_t until;
    int said, unsaid;
} zqb__lines_t;

enum { ZQB__WARNINGS = 10, ZQB__NOTES = 100, ZQB__LINES_US = 1000000 };

/* Whether there may be another. In *unsaid how many there were that might not, if that is to be said first. */
static int zqb__lines_allow (zqb__lines_t *lines, int most, uint64_t now, int *unsaid)
{
    *unsaid = 0;
    if (now >= lines->until) {
        *unsaid = lines->unsaid;
        lines->until = now + ZQB__LINES_US;
        lines->said = lines->unsaid = 0;
    }
    if (lines->said == most) {
        lines->unsaid += lines->unsaid < INT_MAX;
        return 0;
    }
    lines->said++;
    return 1;
}

/* ================================================================================================================
   >>containers
   Owns:    intrusive list, hash table, timer heap, slab with tokens, byte buffer
   Door:    zqb__list_*, zqb__table_*, zqb__heap_*, zqb__slab_*, zqb__buffer_*
   Uses:    platform (memory)
   Never:   knows about messages, peers or protocols
   ================================================================================================================ */

#define ZQB__OF(type, member, pointer) ((type *) (void *) ((char *) (pointer) - offsetof (type, member)))

/* ---- list: a ring through the items; the head is a link of its own */

typedef struct zqb__link_t {
    struct zqb__link_t *prev, *next;
} zqb__link_t;

static void zqb__list_init (zqb__link_t *head)
{
    head->prev = head->next = head;
}

static int zqb__list_empty (const zqb__link_t *head)
{
    return head->next == head;
}

/* Puts an item in front of another, or, in front of the head, at the end. */
static void zqb__list_insert (zqb__link_t *before, zqb__link_t *item)
{
    item->prev = before->prev;
    item->next = before;
    before->prev->next = item;
    before->prev = item;
}

static void zqb__list_append (zqb__link_t *head, zqb__link_t *item)
{
    zqb__list_insert (head, item);
}

/* An item that is in no list may be removed, too. */
static void zqb__list_remove (zqb__link_t *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    zqb__list_init (item);
}

/* Moves all items of a list to the end of another. */
static void zqb__list_move (zqb__link_t *to, zqb__link_t *from)
{
    if (zqb__list_empty (from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    zqb__list_init (from);
}

/* ---- hash table: chained, intrusive. Hashes are keyed, so that peers cannot choose names that collide; but they can
   use one name many times, so a node is taken out without a walk along its chain. */

typedef struct zqb__node_t {
    struct zqb__node_t *next;
    struct zqb__node_t **at; /* what points to it */
    uint64_t hash;
} zqb__node_t;

typedef struct zqb__table_t {
    zqb__node_t **buckets;
    size_t size; /* a power of two */
    size_t count;
} zqb__table_t;

enum { ZQB__TABLE_FIRST_SIZE = 16, ZQB__TABLE_KEPT_SIZE = 4096 }; /* it shrinks no further: it would soon grow again */

static int zqb__table_init (zqb__table_t *table)
{
    table->buckets = (zqb__node_t **) zqb__alloc (ZQB__TABLE_FIRST_SIZE * sizeof *table->buckets);
    table->size = ZQB__TABLE_FIRST_SIZE;
    table->count = 0;
    return table->buckets ? 0 : -1;
}

static void zqb__table_close (zqb__table_t *table)
{
    ZQB_FREE (table->buckets);
    table->buckets = NULL;
}

/* The first node with this hash, and the next behind one. */
static zqb__node_t *zqb__table_same (zqb__node_t *node, uint64_t hash)
{
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

static zqb__node_t *zqb__table_first (const zqb__table_t *table, uint64_t hash)
{
    return zqb__table_same (table->buckets[hash & (table->size - 1)], hash);
}

static zqb__node_t *zqb__table_next (const zqb__node_t *node)
{
    return zqb__table_same (node->next, node->hash);
}

static void zqb__bucket_insert (zqb__node_t **bucket, zqb__node_t *node)
{
    node->next = *bucket;
    node->at = bucket;
    if (node->next)
        node->next->at = &node->next;
    *bucket = node;
}

static void zqb__table_resize (zqb__table_t *table, size_t size)
{
    zqb__node_t **buckets = (zqb__node_t **) zqb__alloc (size * sizeof *buckets);
    if (!buckets)
        return; /* longer chains, nothing worse */
    for (size_t i = 0; i < table->size; i++)
        for (zqb__node_t *node = table->buckets[i], *next; node; node = next) {
            next = node->next;
            zqb__bucket_insert (&buckets[node->hash & (size - 1)], node);
        }
    ZQB_FREE (table->buckets);
    table->buckets = buckets;
    table->size = size;
}

static void zqb__table_insert (zqb__table_t *table, zqb__node_t *node, uint64_t hash)
{
    if (table->count >= table->size)
        zqb__table_resize (table, table->size * 2);
    node->hash = hash;
    zqb__bucket_insert (&table->buckets[hash & (table->size - 1)], node);
    table->count++;
}

static void zqb__table_remove (zqb__table_t *table, zqb__node_t *node)
{
    *node->at = node->next;
    if (node->next)
        node->next->at = node->at;
    node->next = NULL;
    node->at = NULL;
    table->count--;
    if (table->size > ZQB__TABLE_KEPT_SIZE && table->count < table->size / 16)
        zqb__table_resize (table, table->size / 4);
}

/* SipHash-1-3 (Aumasson and Bernstein) of some bytes under a secret key. */
typedef struct zqb__key_t {
    uint64_t k0, k1;
} zqb__key_t;

#define ZQB__ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static void zqb__sip_round (uint64_t v[4])
{
    v[0] += v[1], v[2] += v[3];
    v[1] = ZQB__ROTATE (v[1], 13) ^ v[0], v[3] = ZQB__ROTATE (v[3], 16) ^ v[2];
    v[0] = ZQB__ROTATE (v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = ZQB__ROTATE (v[1], 17) ^ v[2], v[3] = ZQB__ROTATE (v[3], 21) ^ v[0];
    v[2] = ZQB__ROTATE (v[2], 32);
}

static void zqb__sip_word (uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    zqb__sip_round (v);
    v[0] ^= word;
}

static uint64_t zqb__hash (zqb__key_t key, const void *data, size_t size)
{
    uint64_t v[4] = {key.k0 ^ 0x736f6d6570736575u, key.k1 ^ 0x646f72616e646f6du, key.k0 ^ 0x6c7967656e657261u,
                     key.k1 ^ 0x7465646279746573u};
    const unsigned char *bytes = (const unsigned char *) data;
    uint64_t word, last = (uint64_t) size << 56;
    size_t left = size;
    for (; left >= 8; left -= 8, bytes += 8) {
        memcpy (&word, bytes, 8);
        zqb__sip_word (v, word);
    }
    while (left-- > 0)
        last |= (uint64_t) bytes[left] << (8 * left);
    zqb__sip_word (v, last);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        zqb__sip_round (v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- timers: a binary heap, the earliest on top; a timer knows its place, so that it can be moved and removed */

typedef struct zqb__timer_t {
    uint64_t at;
    uint32_t place; /* from 1; 0: not in the heap */
    int kind;       /* the owner's */
} zqb__timer_t;

typedef struct zqb__heap_t {
    zqb__timer_t **timers; /* timers[0] is not used */
    size_t count, capacity;
} zqb__heap_t;

static void zqb__heap_close (zqb__heap_t *heap)
{
    ZQB_FREE (heap->timers);
    memset (heap, 0, sizeof *heap);
}

static void zqb__heap_put (zqb__heap_t *heap, size_t place, zqb__timer_t *timer)
{
    heap->timers[place] = timer;
    timer->place = (uint32_t) place;
}

static void zqb__heap_up (zqb__heap_t *heap, size_t place, zqb__timer_t *timer)
{
    for (; place > 1 && timer->at < heap->timers[place / 2]->at; place /= 2)
        zqb__heap_put (heap, place, heap->timers[place / 2]);
    zqb__heap_put (heap, place, timer);
}

static void zqb__heap_down (zqb__heap_t *heap, size_t place, zqb__timer_t *timer)
{
    for (size_t child; (child = place * 2) <= heap->count; place = child) {
        if (child < heap->count && heap->timers[child + 1]->at < heap->timers[child]->at)
            child++;
        if (timer->at <= heap->timers[child]->at)
            break;
        zqb__heap_put (heap, place, heap->timers[child]);
    }
    zqb__heap_put (heap, place, timer);
}

static void zqb__heap_settle (zqb__heap_t *heap, size_t place, zqb__timer_t *timer)
{
    zqb__heap_up (heap, place, timer);
    zqb__heap_down (heap, timer->place, timer);
}

/* Makes sure that so many timers can run at once. -1 and ENOMEM. */
static int zqb__heap_reserve (zqb__heap_t *heap, size_t timers)
{
    return zqb__grow ((void **) &heap->timers, &heap->capacity, timers + 1, sizeof *heap->timers);
}

/* Sets a timer, whether it runs or not. -1 and ENOMEM: it does not run. A timer that runs can always be set. */
static int zqb__heap_set (zqb__heap_t *heap, zqb__timer_t *timer, uint64_t at)
{
    if (!timer->place && zqb__heap_reserve (heap, heap->count + 1) != 0)
        return -1;
    timer->at = at;
    zqb__heap_settle (heap, timer->place ? timer->place : ++heap->count, timer);
    return 0;
}

static void zqb__heap_remove (zqb__heap_t *heap, zqb__timer_t *timer)
{
    size_t place = timer->place;
    if (!place)
        return;
    zqb__timer_t *last = heap->timers[heap->count--];
    timer->place = 0;
    if (last != timer)
        zqb__heap_settle (heap, place, last);
}

/* The earliest timer, or NULL. */
static zqb__timer_t *zqb__heap_first (const zqb__heap_t *heap)
{
    return heap->count ? heap->timers[1] : NULL;
}

/* The earliest timer if its time has come, no longer running; or NULL. */
static zqb__timer_t *zqb__heap_due (zqb__heap_t *heap, uint64_t now)
{
    zqb__timer_t *timer = zqb__heap_first (heap);
    if (!timer || timer->at > now)
        return NULL;
    zqb__heap_remove (heap, timer);
    return timer;
}

static uint64_t zqb__heap_next_at (const zqb__heap_t *heap)
{
    return heap->count ? heap->timers[1]->at : UINT64_MAX;
}

/* ---- slab: items of one size that are found by a token. A token is a place and a generation, which changes whenever
   the place is given out, given back or renewed: an old token finds nothing. Generations start at a random number, so
   that tokens of a former life find nothing either. Memory is kept for later items. */

typedef struct zqb__slot_t { /* the first member of each item */
    uint32_t index;
    uint32_t generation; /* odd while the item is in use */
} zqb__slot_t;

typedef struct zqb__unused_t {
    zqb__slot_t slot;
    struct zqb__unused_t *next;
} zqb__unused_t;

typedef struct zqb__slab_t {
    unsigned char **chunks;
    size_t chunk_count, chunk_capacity;
    size_t item_size;
    zqb__unused_t *unused;
    uint32_t seed;
} zqb__slab_t;

enum { ZQB__SLAB_CHUNK = 256 };

static void zqb__slab_init (zqb__slab_t *slab, size_t item_size, uint32_t seed)
{
    memset (slab, 0, sizeof *slab);
    slab->item_size = (item_size + 7) & ~(size_t) 7;
    slab->seed = seed & ~1u;
}

static void zqb__slab_close (zqb__slab_t *slab)
{
    for (size_t i = 0; i < slab->chunk_count; i++)
        ZQB_FREE (slab->chunks[i]);
    ZQB_FREE (slab->chunks);
    memset (slab, 0, sizeof *slab);
}

/* How many items there is room for, with those that are unused. */
static size_t zqb__slab_room (const zqb__slab_t *slab)
{
    return slab->chunk_count * ZQB__SLAB_CHUNK;
}

static zqb__slot_t *zqb__slab_at (const zqb__slab_t *slab, size_t index)
{
    return (zqb__slot_t *) (void *) (slab->chunks[index / ZQB__SLAB_CHUNK]
                                     + index % ZQB__SLAB_CHUNK * slab->item_size);
}

static void zqb__slab_give_back (zqb__slab_t *slab, zqb__slot_t *slot)
{
    zqb__unused_t *unused = (zqb__unused_t *) (void *) slot;
    unused->next = slab->unused;
    slab->unused = unused;
}

static int zqb__slab_extend (zqb__slab_t *slab)
{
    size_t first = zqb__slab_room (slab);
    if (zqb__grow ((void **) &slab->chunks, &slab->chunk_capacity, slab->chunk_count + 1, sizeof *slab->chunks) != 0)
        return -1;
    unsigned char *chunk = (unsigned char *) zqb__alloc (ZQB__SLAB_CHUNK * slab->item_size);
    if (!chunk)
        return -1;
    slab->chunks[slab->chunk_count++] = chunk;
    for (size_t index = first + ZQB__SLAB_CHUNK; index-- > first;) {
        zqb__slot_t *slot = zqb__slab_at (slab, index);
        slot->index = (uint32_t) index;
        slot->generation = slab->seed;
        zqb__slab_give_back (slab, slot);
    }
    return 0;
}

/* An item, zeroed but for its slot; NULL and ENOMEM. */
static void *zqb__slab_new (zqb__slab_t *slab)
{
    if (!slab->unused && zqb__slab_extend (slab) != 0)
        return NULL;
    zqb__slot_t *slot = &slab->unused->slot;
    slab->unused = slab->unused->next;
    memset (slot + 1, 0, slab->item_size - sizeof *slot);
    slot->generation++;
    return slot;
}

static void zqb__slab_free (zqb__slab_t *slab, zqb__slot_t *slot)
{
    slot->generation++;
    zqb__slab_give_back (slab, slot);
}

static uint64_t zqb__slot_token (const zqb__slot_t *slot)
{
    return (uint64_t) slot->index << 32 | slot->generation;
}

/* From now on only a new token finds the item. */
static uint64_t zqb__slot_renew (zqb__slot_t *slot)
{
    slot->generation += 2;
    return zqb__slot_token (slot);
}

/* The item of a token, or NULL. */
static void *zqb__slab_find (const zqb__slab_t *slab, uint64_t token)
{
    size_t index = (size_t) (token >> 32);
    if (!(token & 1) || index >= zqb__slab_room (slab))
        return NULL;
    zqb__slot_t *slot = zqb__slab_at (slab, index);
    return slot->generation == (uint32_t) token ? slot : NULL;
}

/* ---- buffer: bytes that grow */

typedef struct zqb__buffer_t {
    unsigned char *bytes;
    size_t size, capacity;
} zqb__buffer_t;

static void zqb__buffer_close (zqb__buffer_t *buffer)
{
    ZQB_FREE (buffer->bytes);
    memset (buffer, 0, sizeof *buffer);
}

/* Makes sure that there is room for so many more bytes, and says where; size stays. NULL and ENOMEM. */
static unsigned char *zqb__buffer_room (zqb__buffer_t *buffer, size_t more)
{
    if (buffer->capacity - buffer->size < more
        && zqb__grow ((void **) &buffer->bytes, &buffer->capacity, buffer->size + more, 1) != 0)
        return NULL;
    return buffer->bytes + buffer->size;
}

/* Room for so many more bytes, which the caller fills: size grows by them. NULL and ENOMEM. */
static unsigned char *zqb__buffer_add (zqb__buffer_t *buffer, size_t more)
{
    unsigned char *at = zqb__buffer_room (buffer, more);
    if (at)
        buffer->size += more;
    return at;
}

/* ---- integers on the wire: big-endian */

static void zqb__put_16 (unsigned char *at, uint32_t value)
{
    at[0] = (unsigned char) (value >> 8);
    at[1] = (unsigned char) value;
}

static void zqb__put_32 (unsigned char *at, uint32_t value)
{
    zqb__put_16 (at, value >> 16);
    zqb__put_16 (at + 2, value & 0xffff);
}

/* Spelt out, as compilers then see that it is one instruction. */
static void zqb__put_64 (unsigned char *at, uint64_t value)
{
    at[0] = (unsigned char) (value >> 56);
    at[1] = (unsigned char) (value >> 48);
    at[2] = (unsigned char) (value >> 40);
    at[3] = (unsigned char) (value >> 32);
    at[4] = (unsigned char) (value >> 24);
    at[5] = (unsigned char) (value >> 16);
    at[6] = (unsigned char) (value >> 8);
    at[7] = (unsigned char) value;
}

static uint32_t zqb__get_16 (const unsigned char *at)
{
    return (uint32_t) at[0] << 8 | at[1];
}

static uint32_t zqb__get_32 (const unsigned char *at)
{
    return zqb__get_16 (at) << 16 | zqb__get_16 (at + 2);
}

static uint64_t zqb__get_64 (const unsigned char *at)
{
    return (uint64_t) zqb__get_32 (at) << 32 | zqb__get_32 (at + 4);
}

/* ================================================================================================================
   >>scale
   Owns:    how many workers a service should have
   Door:    zqb__scale_valid, zqb__scaling_init, _bound, _sample
   Uses:    platform (options)
   Never:   looks at a clock or a service: what time it is and how things stand is what the caller says
   ================================================================================================================ */

enum { ZQB__SPANS = 8 };

typedef struct zqb__scaling_t {
    int min, max, queue_per_worker;
    uint64_t wait, idle; /* microseconds; UINT64_MAX off */
    int wanted;
    int pressed;        /* the last sample asked for more */
    uint64_t growing;   /* until then: nothing shrinks */
    uint64_t span_ends; /* the time that `idle` says, and at most a span more, is looked back upon in spans */
    int64_t needed;     /* workers that the last sample would have kept at work */
    int64_t most[ZQB__SPANS]; /* of them in each span; the first is the present one */
} zqb__scaling_t;

static int zqb__scale_valid (const zqb_scale_options_t *options)
{
    int64_t numbers[] = {options->queue_per_worker, options->wait_ms, options->idle_ms};
    return zqb__all_valid (numbers, sizeof numbers / sizeof numbers[0]) && options->min >= 0 && options->max >= 1
           && options->max >= options->min;
}

/* Other bounds: outside them, it goes to the nearest at once. */
static void zqb__scaling_bound (zqb__scaling_t *scaling, int min, int max)
{
    scaling->min = min;
    scaling->max = max;
    if (scaling->wanted < min)
        scaling->wanted = min;
    if (scaling->wanted > max)
        scaling->wanted = max;
}

/* From now on; so many workers are there. */
static void zqb__scaling_init (zqb__scaling_t *scaling, const zqb_scale_options_t *options, int workers, uint64_t now)
{
    memset (scaling, 0, sizeof *scaling);
    scaling->queue_per_worker = zqb__option (options->queue_per_worker, 10);
    scaling->wait = zqb__option_us (options->wait_ms, 1000);
    scaling->idle = zqb__option_us (options->idle_ms, 5000);
    scaling->growing = zqb__after (now, scaling->idle);
    scaling->wanted = workers;
    zqb__scaling_bound (scaling, zqb__option (options->min, 1), options->max);
}

/* So many workers would have been enough since the last sample: what it saw lasts until now. */
static void zqb__scaling_note (zqb__scaling_t *scaling, uint64_t now, int64_t needed)
{
    uint64_t span = scaling->idle / (ZQB__SPANS - 1) + 1;
    for (int i = 0; i < ZQB__SPANS && scaling->span_ends <= now; i++) {
        memmove (scaling->most + 1, scaling->most, (ZQB__SPANS - 1) * sizeof scaling->most[0]);
        scaling->most[0] = scaling->needed;
        scaling->span_ends = zqb__after (scaling->span_ends, span);
    }
    if (scaling->span_ends <= now)
        scaling->span_ends = zqb__after (now, span);
    if (needed > scaling->most[0])
        scaling->most[0] = needed;
    scaling->needed = needed;
}

static int64_t zqb__scaling_most (const zqb__scaling_t *scaling)
{
    int64_t most = 0;
    for (int i = 0; i < ZQB__SPANS; i++)
        if (scaling->most[i] > most)
            most = scaling->most[i];
    return most;
}

static int zqb__scaling_is_pressed (const zqb__scaling_t *scaling, const zqb_scale_t *sample)
{
    int64_t workers = (int64_t) sample->idle + sample->busy;
    return sample->queued > scaling->queue_per_worker * workers
           || (sample->queued && (uint64_t) sample->oldest_us > scaling->wait);
}

/* How many workers the queue asks for: one more if it is short, but slow; and at most twice as many as there are, so
   that those that are on their way are waited for, and seen at work, before there are more. */
static int zqb__scaling_asked (const zqb__scaling_t *scaling, const zqb_scale_t *sample)
{
    int64_t workers = (int64_t) sample->idle + sample->busy;
    int64_t asked = ((int64_t) sample->queued + scaling->queue_per_worker - 1) / scaling->queue_per_worker;
    if (asked <= workers)
        asked = workers + 1;
    if (asked > 2 * workers)
        asked = 2 * workers;
    return asked < scaling->max ? (int) asked : scaling->max;
}

/* How many workers there should be, as things stand. It grows when two samples in a row ask for it, and shrinks by one
   when for the whole time that `idle` says one less would have done; so with a load that swings it grows and stays. */
static int zqb__scaling_sample (zqb__scaling_t *scaling, uint64_t now, const zqb_scale_t *sample)
{
    int pressed = zqb__scaling_is_pressed (scaling, sample);
    int asked = pressed && scaling->pressed ? zqb__scaling_asked (scaling, sample) : 0;
    zqb__scaling_note (scaling, now, (int64_t) sample->busy + sample->queued);
    scaling->pressed = pressed;
    if (asked > scaling->wanted) {
        scaling->wanted = asked;
        scaling->growing = zqb__after (now, scaling->idle);
        scaling->pressed = 0;
    } else if (!pressed && now >= scaling->growing && scaling->wanted > scaling->min
               && zqb__scaling_most (scaling) < scaling->wanted)
        scaling->wanted--;
    return scaling->wanted;
}

/* ================================================================================================================
   >>message
   Owns:    zqb_msg_t, and the forms that a body has on its way: a view (zqb__body_t), a parcel that is being packed
            or sent (zqb__parcel_t), and one that waits (zqb__stored_t)
   Door:    zqb_msg_*, zqb__body_*, zqb__parcel_*, zqb__stored_*
   Uses:    containers, zmq_msg_*
   Never:   knows a protocol, except how ZQB/1 lays out a body block (manual, 8)
   ================================================================================================================ */

static zmq_msg_t *zqb__msg_frames (const zqb_msg_t *msg)
{
    return msg->many_ ? msg->many_ : (zmq_msg_t *) msg->few_;
}

ZQB_API int zqb_msg_init (zqb_msg_t *msg)
{
    if (!msg)
        return zqb__invalid ();
    msg->count_ = 0;
    msg->capacity_ = 0;
    msg->many_ = NULL;
    return 0;
}

ZQB_API int zqb_msg_close (zqb_msg_t *msg)
{
    if (!msg)
        return 0;
    for (size_t i = 0; i < msg->count_; i++)
        zmq_msg_close (&zqb__msg_frames (msg)[i]);
    if (msg->many_)
        ZQB_FREE (msg->many_);
    return zqb_msg_init (msg);
}

/* Moves libzmq messages to memory that holds none yet; where they were, there are none any more. They hold nothing that
   points into themselves, and libzmq moves them in the same way. */
static void zqb__move_frames (zmq_msg_t *to, const zmq_msg_t *from, size_t count)
{
    memcpy (to, from, count * sizeof *to);
}

/* A frame with so many bytes. -1: ENOMEM, and it is empty. */
static int zqb__frame_fill (zmq_msg_t *frame, const void *bytes, size_t size)
{
    if (zmq_msg_init_size (frame, size) != 0) {
        zmq_msg_init (frame);
        return -1;
    }
    memcpy (zmq_msg_data (frame), bytes, size);
    return 0;
}

/* A second reference to the same bytes (small ones are copied). */
static int zqb__share_frame (zmq_msg_t *to, zmq_msg_t *from)
{
    zmq_msg_init (to);
    return zmq_msg_copy (to, from);
}

ZQB_API int zqb_msg_move (zqb_msg_t *dst, zqb_msg_t *src)
{
    if (!dst || !src)
        return zqb__invalid ();
    if (dst == src)
        return 0;
    zqb_msg_close (dst);
    dst->count_ = src->count_;
    dst->capacity_ = src->capacity_;
    dst->many_ = src->many_;
    if (!src->many_)
        zqb__move_frames (dst->few_, src->few_, src->count_);
    return zqb_msg_init (src);
}

/* Makes room for so many more frames. -1 and ENOMEM. */
static int zqb__msg_reserve (zqb_msg_t *msg, size_t more)
{
    size_t few = sizeof msg->few_ / sizeof msg->few_[0];
    if (msg->count_ + more <= (msg->many_ ? msg->capacity_ : few))
        return 0;
    size_t capacity = msg->count_ < more ? msg->count_ + more : msg->count_ * 2;
    zmq_msg_t *many = (zmq_msg_t *) zqb__alloc (capacity * sizeof *many);
    if (!many)
        return -1;
    zqb__move_frames (many, zqb__msg_frames (msg), msg->count_);
    ZQB_FREE (msg->many_);
    msg->many_ = many;
    msg->capacity_ = capacity;
    return 0;
}

/* Room for one more frame behind the others, not yet initialised nor counted. NULL and ENOMEM. */
static zmq_msg_t *zqb__msg_room (zqb_msg_t *msg)
{
    return zqb__msg_reserve (msg, 1) == 0 ? &zqb__msg_frames (msg)[msg->count_] : NULL;
}

/* Appends copies of the frames of another message. -1 and ENOMEM: some may be missing. */
static int zqb__msg_add_copies (zqb_msg_t *msg, const zqb_msg_t *from)
{
    for (size_t i = 0; i < from->count_; i++) {
        zmq_msg_t *frame = zqb__msg_room (msg);
        if (!frame || zqb__share_frame (frame, &zqb__msg_frames (from)[i]) != 0)
            return -1;
        msg->count_++;
    }
    return 0;
}

ZQB_API int zqb_msg_copy (zqb_msg_t *dst, const zqb_msg_t *src)
{
    zqb_msg_t copy;
    if (!dst || !src)
        return zqb__invalid ();
    zqb_msg_init (&copy);
    if (zqb__msg_add_copies (&copy, src) == 0)
        return zqb_msg_move (dst, &copy);
    zqb_msg_close (&copy);
    errno = ENOMEM;
    return -1;
}

ZQB_API int zqb_msg_add (zqb_msg_t *msg, const void *data, size_t size)
{
    if (!msg || (!data && size))
        return zqb__invalid ();
    zmq_msg_t *frame = zqb__msg_room (msg);
    if (!frame || zmq_msg_init_size (frame, size) != 0)
        return -1;
    if (size)
        memcpy (zmq_msg_data (frame), data, size);
    msg->count_++;
    return 0;
}

ZQB_API int zqb_msg_add_str (zqb_msg_t *msg, const char *text)
{
    return text ? zqb_msg_add (msg, text, strlen (text)) : zqb__invalid ();
}

ZQB_API int zqb_msg_add_zero_copy (zqb_msg_t *msg, void *data, size_t size, zmq_free_fn *free_fn, void *hint)
{
    if (!msg || (!data && size))
        return zqb__invalid ();
    zmq_msg_t *frame = zqb__msg_room (msg);
    if (!frame || zmq_msg_init_data (frame, data, size, free_fn, hint) != 0)
        return -1;
    msg->count_++;
    return 0;
}

ZQB_API int zqb_msg_add_frame (zqb_msg_t *msg, zmq_msg_t *frame)
{
    if (!msg || !frame)
        return zqb__invalid ();
    zmq_msg_t *room = zqb__msg_room (msg);
    if (!room)
        return -1;
    zqb__move_frames (room, frame, 1);
    msg->count_++;
    return zmq_msg_init (frame);
}

ZQB_API size_t zqb_msg_count (const zqb_msg_t *msg)
{
    return msg ? msg->count_ : 0;
}

ZQB_API zmq_msg_t *zqb_msg_frame (zqb_msg_t *msg, size_t index)
{
    if (msg && index < msg->count_)
        return &zqb__msg_frames (msg)[index];
    errno = EINVAL;
    return NULL;
}

ZQB_API void *zqb_msg_data (const zqb_msg_t *msg, size_t index)
{
    zmq_msg_t *frame = zqb_msg_frame ((zqb_msg_t *) msg, index);
    return frame ? zmq_msg_data (frame) : NULL;
}

ZQB_API size_t zqb_msg_size (const zqb_msg_t *msg, size_t index)
{
    zmq_msg_t *frame = zqb_msg_frame ((zqb_msg_t *) msg, index);
    return frame ? zmq_msg_size (frame) : 0;
}

/* ---- body: a view of somebody's frames, in the layout of a body block: small ones in the block, large ones beside it.
   It lives no longer than what it looks at. */

typedef struct zqb__body_t {
    const unsigned char *block;
    size_t size;
    zmq_msg_t *large;
    size_t large_count;
    size_t frames; /* how many, small and large, once that was measured */
} zqb__body_t;

typedef struct zqb__frame_t {
    const unsigned char *data;
    size_t size;
    zmq_msg_t *large; /* NULL if it lies in the block */
} zqb__frame_t;

typedef struct zqb__cursor_t {
    size_t at, large;
} zqb__cursor_t;

#define ZQB__LARGE_BIT 0x80000000u
enum { ZQB__LARGE_FROM = 1025 }; /* frames of this size and above travel on their own */

/* The next frame of a body that was measured, or that we have packed: 1; 0 at the end. */
static int zqb__body_next (const zqb__body_t *body, zqb__cursor_t *cursor, zqb__frame_t *frame)
{
    if (cursor->at == body->size)
        return 0;
    uint32_t head = zqb__get_32 (body->block + cursor->at);
    frame->size = head & ~ZQB__LARGE_BIT;
    cursor->at += 4;
    if (head & ZQB__LARGE_BIT) {
        frame->large = &body->large[cursor->large++];
        frame->data = (const unsigned char *) zmq_msg_data (frame->large);
    } else {
        frame->large = NULL;
        frame->data = body->block + cursor->at;
        cursor->at += frame->size;
    }
    return 1;
}

/* What a body takes: 4 bytes a frame more than the frames themselves. */
static uint64_t zqb__body_bytes (const zqb__body_t *body)
{
    uint64_t bytes = body->size;
    for (size_t i = 0; i < body->large_count; i++)
        bytes += zmq_msg_size (&body->large[i]);
    return bytes;
}

/* Checks a view of which block, size and the large frames that might be its own are known; counts the frames, and finds
   out which large ones are its own. -1: malformed. */
static int zqb__body_measure (zqb__body_t *body)
{
    size_t at = 0, large = 0;
    for (body->frames = 0; body->size - at >= 4; body->frames++) {
        uint32_t head = zqb__get_32 (body->block + at), size = head & ~ZQB__LARGE_BIT;
        at += 4;
        if (!(head & ZQB__LARGE_BIT)) {
            if (body->size - at < size)
                return -1;
            at += size;
        } else if (large == body->large_count || zmq_msg_size (&body->large[large++]) != size)
            return -1;
    }
    body->large_count = large;
    return at == body->size ? 0 : -1;
}

/* A libzmq message of a frame: large ones are shared, small ones copied. -1 and ENOMEM. */
static int zqb__frame_to_zmq (const zqb__frame_t *frame, zmq_msg_t *to)
{
    if (frame->large)
        return zqb__share_frame (to, frame->large);
    if (zmq_msg_init_size (to, frame->size) != 0)
        return -1;
    memcpy (zmq_msg_data (to), frame->data, frame->size);
    return 0;
}

/* Appends the frames of a body to a message. -1 and ENOMEM: some may be missing. */
static int zqb__body_to_msg (const zqb__body_t *body, zqb_msg_t *msg)
{
    zqb__cursor_t cursor = {0, 0};
    zqb__frame_t frame;
    while (zqb__body_next (body, &cursor, &frame) == 1) {
        zmq_msg_t *room = zqb__msg_room (msg);
        if (!room || zqb__frame_to_zmq (&frame, room) != 0)
            return -1;
        msg->count_++;
    }
    return 0;
}

/* ---- parcel: bytes, and large frames behind them; what a peer is sent, or a body that is being packed */

typedef struct zqb__parcel_t {
    zqb__buffer_t bytes;
    zmq_msg_t *large;
    size_t large_count, large_capacity;
    uint64_t large_bytes;
} zqb__parcel_t;

static void zqb__parcel_clear (zqb__parcel_t *parcel)
{
    for (size_t i = 0; i < parcel->large_count; i++)
        zmq_msg_close (&parcel->large[i]);
    parcel->large_count = 0;
    parcel->large_bytes = 0;
    parcel->bytes.size = 0;
}

static void zqb__parcel_close (zqb__parcel_t *parcel)
{
    zqb__parcel_clear (parcel);
    ZQB_FREE (parcel->large);
    zqb__buffer_close (&parcel->bytes);
    memset (parcel, 0, sizeof *parcel);
}

/* Back to an earlier state, of which the two sizes are known. */
static void zqb__parcel_rewind (zqb__parcel_t *parcel, size_t size, size_t large_count)
{
    while (parcel->large_count > large_count) {
        zmq_msg_t *last = &parcel->large[--parcel->large_count];
        parcel->large_bytes -= zmq_msg_size (last);
        zmq_msg_close (last);
    }
    parcel->bytes.size = size;
}

static int zqb__parcel_add_large (zqb__parcel_t *parcel, zmq_msg_t *frame)
{
    void **items = (void **) &parcel->large;
    if (zqb__grow (items, &parcel->large_capacity, parcel->large_count + 1, sizeof *parcel->large) != 0
        || zqb__share_frame (&parcel->large[parcel->large_count], frame) != 0)
        return -1;
    parcel->large_count++;
    parcel->large_bytes += zmq_msg_size (frame);
    return 0;
}

/* Packs a frame. ENOMEM; EMSGSIZE for 2 GiB and more. The caller rewinds. */
static int zqb__parcel_add_frame (zqb__parcel_t *parcel, zmq_msg_t *frame)
{
    size_t size = zmq_msg_size (frame);
    int large = size >= ZQB__LARGE_FROM;
    if (size >= ZQB__LARGE_BIT) {
        errno = EMSGSIZE;
        return -1;
    }
    unsigned char *at = zqb__buffer_add (&parcel->bytes, large ? 4 : 4 + size);
    if (!at || (large && zqb__parcel_add_large (parcel, frame) != 0))
        return -1;
    zqb__put_32 (at, (uint32_t) size | (large ? ZQB__LARGE_BIT : 0));
    if (!large && size)
        memcpy (at + 4, zmq_msg_data (frame), size);
    return 0;
}

/* Packs some frames; they stay what they are. -1, with nothing packed: ENOMEM, EMSGSIZE. */
static int zqb__parcel_add_frames (zqb__parcel_t *parcel, zmq_msg_t *frames, size_t count)
{
    size_t size = parcel->bytes.size, large_count = parcel->large_count;
    for (size_t i = 0; i < count; i++)
        if (zqb__parcel_add_frame (parcel, &frames[i]) != 0) {
            zqb__parcel_rewind (parcel, size, large_count);
            return -1;
        }
    return 0;
}

static int zqb__parcel_add_msg (zqb__parcel_t *parcel, const zqb_msg_t *msg)
{
    return zqb__parcel_add_frames (parcel, zqb__msg_frames (msg), msg->count_);
}

/* Appends a body as it is. -1 and ENOMEM, with nothing appended. */
static int zqb__parcel_add_body (zqb__parcel_t *parcel, const zqb__body_t *body)
{
    size_t size = parcel->bytes.size, large_count = parcel->large_count;
    unsigned char *at = body->size ? zqb__buffer_add (&parcel->bytes, body->size) : NULL;
    if (at)
        memcpy (at, body->block, body->size);
    else if (body->size)
        return -1;
    for (size_t i = 0; i < body->large_count; i++)
        if (zqb__parcel_add_large (parcel, &body->large[i]) != 0) {
            zqb__parcel_rewind (parcel, size, large_count);
            return -1;
        }
    return 0;
}

/* A view of a parcel into which so many frames were packed, and nothing else. */
static zqb__body_t zqb__parcel_view (const zqb__parcel_t *parcel, size_t frames)
{
    zqb__body_t body;
    body.block = parcel->bytes.bytes;
    body.size = parcel->bytes.size;
    body.large = parcel->large;
    body.large_count = parcel->large_count;
    body.frames = frames;
    return body;
}

/* The same, when it is not known how many. */
static zqb__body_t zqb__parcel_body (const zqb__parcel_t *parcel)
{
    zqb__body_t body = zqb__parcel_view (parcel, 0);
    zqb__body_measure (&body);
    return body;
}

/* ---- stored: a body that waits. Small ones lie in it; others in memory of their own: large frames, then the block. */

enum { ZQB__STORED_NEAR = 20 };

typedef struct zqb__stored_t {
    uint32_t size;
    uint32_t large_count;
    unsigned char at[ZQB__STORED_NEAR]; /* the block, or a pointer to it, which the compiler need not align */
} zqb__stored_t;

/* Where a body lies that is not near. */
static zmq_msg_t *zqb__stored_far (const zqb__stored_t *stored)
{
    zmq_msg_t *far_;
    memcpy (&far_, stored->at, sizeof far_);
    return far_;
}

static int zqb__stored_is_near (const zqb__stored_t *stored)
{
    return stored->size <= ZQB__STORED_NEAR && stored->large_count == 0;
}

/* What it takes, as zqb__body_bytes. */
static uint64_t zqb__stored_bytes (const zqb__stored_t *stored)
{
    uint64_t bytes = stored->size;
    const zmq_msg_t *large = stored->large_count ? zqb__stored_far (stored) : NULL;
    for (size_t i = 0; i < stored->large_count; i++)
        bytes += zmq_msg_size (&large[i]);
    return bytes;
}

static zqb__body_t zqb__stored_body (const zqb__stored_t *stored)
{
    zqb__body_t body;
    int is_near = zqb__stored_is_near (stored);
    body.large = is_near ? NULL : zqb__stored_far (stored);
    body.large_count = stored->large_count;
    body.block = is_near ? stored->at : (const unsigned char *) (body.large + body.large_count);
    body.size = stored->size;
    body.frames = 0; /* not measured: who sends it need not know */
    return body;
}

static void zqb__stored_close (zqb__stored_t *stored)
{
    if (!zqb__stored_is_near (stored)) {
        zmq_msg_t *large = zqb__stored_far (stored);
        for (size_t i = 0; i < stored->large_count; i++)
            zmq_msg_close (&large[i]);
        ZQB_FREE (large);
    }
    stored->size = stored->large_count = 0;
}

/* Keeps a body. -1 and ENOMEM; EMSGSIZE for a block of 4 GiB. Large frames are shared, not copied. */
static int zqb__stored_keep (zqb__stored_t *stored, const zqb__body_t *body)
{
    unsigned char *block = stored->at;
    size_t heads = body->large_count * sizeof (zmq_msg_t);
    stored->size = stored->large_count = 0;
    if (body->size > UINT32_MAX || body->large_count > UINT32_MAX) {
        errno = EMSGSIZE;
        return -1;
    }
    if (body->size > ZQB__STORED_NEAR || body->large_count) {
        zmq_msg_t *large = (zmq_msg_t *) ZQB_MALLOC (heads + body->size);
        if (!large) {
            errno = ENOMEM;
            return -1;
        }
        for (size_t i = 0; i < body->large_count; i++)
            zqb__share_frame (&large[i], &body->large[i]); /* cannot fail: a reference is counted, no memory taken */
        memcpy (stored->at, &large, sizeof large);
        block = (unsigned char *) (large + body->large_count);
    }
    if (body->size)
        memcpy (block, body->block, body->size);
    stored->size = (uint32_t) body->size;
    stored->large_count = (uint32_t) body->large_count;
    return 0;
}

/* ================================================================================================================
   >>wire
   Owns:    the dialects: frames in, commands out, and back. The numbers, words and headers of all protocols.
   Door:    zqb__wire_open, zqb__wire_next (read); zqb__wire_pack (ZQB/1), zqb__wire_frames (all others) (write)
   Uses:    message
   Never:   touches a socket; keeps any state; believes anything it reads
   ================================================================================================================ */

/* Commands, whatever the dialect, and their flags. The numbers are those of ZQB/1 (manual, 8). */
#define ZQB__COMMANDS(X)                                                                                           \
    X (READY, 1) X (REQUEST, 2) X (PARTIAL, 3) X (REPLY, 4) X (ERROR, 5) X (HEARTBEAT, 6) X (DISCONNECT, 7) \
    X (CANCEL, 8) X (PROGRESS, 9) X (MORE, 10) X (DRAIN, 11)

#define ZQB__X(name, number) ZQB__##name = number,
enum { ZQB__COMMANDS (ZQB__X) ZQB__COMMAND_END };
#undef ZQB__X

enum {
    ZQB__AGAIN = 1,     /* a client's REQUEST: the broker may have it already */
    ZQB__UNBEGUN = 2,   /* a worker's DISCONNECT: it has not begun with anything that it holds */
    ZQB__ONE_WAY = 4,   /* a client's REQUEST: no answer is wanted */
    ZQB__FAIL_FAST = 8, /* the same: nor is it to wait for a service without workers */
    ZQB__SURVEY = 16,   /* the same: for each worker */
    ZQB__WINDOW = 32    /* a REQUEST to a worker: parts of the reply are granted by MORE */
};

enum { ZQB__WINDOW_PARTS = 32, ZQB__CREDIT_ALL = 65535 }; /* so many parts may be under way; MORE: any number */

/* What few commands say. What a request asks for, when it is read, but for the flags. */
typedef struct zqb__rare_t {
    int priority; /* ZQB_PRIORITY_LOWEST ... */
    uint32_t deadline_ms, delay_ms, backoff_ms, backoff_max_ms; /* 0 none */
    uint32_t attempts; /* 0 the broker's option; ZQB__ATTEMPTS_ALL */
    const unsigned char *unique, *affinity;
    size_t unique_size, affinity_size;
    uint64_t done, total; /* of progress */
    int has_progress;
    uint32_t code; /* of a failure; 0 none */
    const unsigned char *user; /* a REQUEST to a worker: whose it is. What a client says is not believed */
    size_t user_size;
} zqb__rare_t;

enum { ZQB__ATTEMPTS_ALL = 65535 };

typedef struct zqb__command_t {
    int type;
    int flags;   /* ZQB__AGAIN ... */
    uint64_t id; /* a client's number, or the token of an assignment */
    const unsigned char *service;
    size_t service_size;
    uint32_t credit; /* READY: 0 as the broker thinks best; MORE: how many parts */
    uint32_t heartbeat_ms; /* READY: how often the worker sends one; 0 none, or ZQB__BEAT_UNKNOWN */
    int status; /* of ZQB_ERRORS, without ZQB_ERRNO; 0 none */
    const char *text;
    size_t text_size;
    zmq_msg_t *address; /* MDP, from a broker: the client's address frames, given back unread */
    size_t address_count;
    zqb__body_t body;
    const zqb_msg_t *msg; /* to be sent: the body as a message, instead of the other */
    const zqb__rare_t *rare; /* or NULL */
} zqb__command_t;

#define ZQB__BEAT_UNKNOWN UINT32_MAX

/* Field by field, which is three times as fast as memset, and there is one of these for each command. */
static void zqb__command_init (zqb__command_t *command, int type, uint64_t id)
{
    command->type = type;
    command->flags = 0;
    command->id = id;
    command->service = NULL;
    command->service_size = 0;
    command->credit = 0;
    command->heartbeat_ms = ZQB__BEAT_UNKNOWN;
    command->status = 0;
    command->text = NULL;
    command->text_size = 0;
    command->address = NULL;
    command->address_count = 0;
    command->body.block = NULL;
    command->body.size = 0;
    command->body.large = NULL;
    command->body.large_count = 0;
    command->body.frames = 0;
    command->msg = NULL;
    command->rare = NULL;
}

static zqb__command_t zqb__command (int type, uint64_t id)
{
    zqb__command_t command;
    zqb__command_init (&command, type, id);
    return command;
}

/* The first three are the public ZQB_DIALECT_*. */
enum { ZQB__ZQB1, ZQB__MDP01, ZQB__MDP02, ZQB__MDP01_WORDS, ZQB__LRU, ZQB__PPP, ZQB__PPP_WORDS, ZQB__DIALECTS };

/* What a dialect calls the commands between broker and worker, by ZQB__READY ... */
typedef struct zqb__dialect_t {
    const char *name;
    const char *header;       /* in front of worker commands; NULL: none */
    int heartbeats, partials, errors;
    const char *codes[ZQB__COMMAND_END];
} zqb__dialect_t;

static const zqb__dialect_t zqb__dialects[ZQB__DIALECTS] = {
    /*                         beat partial error        READY     REQUEST    PARTIAL REPLY  ERROR HEARTBEAT DISCONN. */
    {"ZQB/1", NULL,              1, 1, 1, {NULL}},
    {"MDP/0.1", "MDPW01",        1, 0, 0, {NULL, "\1",    "\2",      NULL, "\3",    NULL, "\4",      "\5", NULL}},
    {"MDP/0.2", "MDPW02",        1, 1, 0, {NULL, "\1",    "\2",      "\3", "\4",    NULL, "\5",      "\6", NULL}},
    {"MDP/0.1-words", "MDPW01",  1, 0, 0, {NULL, "READY", "REQUEST", NULL, "REPLY", NULL, "HEARTBEAT", "DISCONNECT",
                                           NULL}},
    {"LRU", NULL,                0, 0, 0, {NULL}},
    {"PPP", NULL,                1, 0, 0, {NULL, "\1",    NULL,      NULL, NULL,    NULL, "\2",      NULL, NULL}},
    {"PPP-words", NULL,          1, 0, 0, {NULL, "READY", NULL,      NULL, NULL,    NULL, "HEARTBEAT", NULL, NULL}},
};

/* Who is at the other end of a conversation with the broker. ZQB/1 peers may be both. */
enum { ZQB__CLIENT, ZQB__WORKER };

/* Where a message came in. */
enum { ZQB__MAJORDOMO, ZQB__FRONTEND, ZQB__BACKEND, ZQB__FROM_BROKER };

/* What can be wrong with a message, or, in the last case, with us; 0 is nothing. */
enum { ZQB__FINE, ZQB__BAD_HEADER, ZQB__BAD_COMMAND, ZQB__BAD_FRAMES, ZQB__BAD_NAME, ZQB__NO_MEMORY };

#define ZQB__MAGIC "ZQB\1"
enum { ZQB__HEAD = 12, ZQB__COMMAND_HEAD = 16, ZQB__ENVELOPE_MAX = 8, ZQB__ADDRESS_MAX = 1024, ZQB__TOKEN = 8 };
/* Bytes in the first frame, bytes and frames behind it, from which on no other command is packed. */
enum { ZQB__PARCEL_FULL = 65536, ZQB__PARCEL_LARGE = 1048576, ZQB__PARCEL_FRAMES = 256 };
enum {
    ZQB__FIELD_SERVICE = 1, ZQB__FIELD_CREDIT, ZQB__FIELD_STATUS, ZQB__FIELD_TEXT, ZQB__FIELD_HEARTBEAT,
    ZQB__FIELD_PRIORITY, ZQB__FIELD_DEADLINE, ZQB__FIELD_DELAY, ZQB__FIELD_ATTEMPTS, ZQB__FIELD_BACKOFF,
    ZQB__FIELD_UNIQUE, ZQB__FIELD_AFFINITY, ZQB__FIELD_PROGRESS, ZQB__FIELD_CODE, ZQB__FIELD_USER
};
enum { ZQB__FIELDS_MOST = 5 * 257 + 3 + 3 * 4 + 4 * 6 + 10 + 18 }; /* bytes that they take together */
enum { ZQB__PRIORITY_NORMAL = 128 }; /* on the wire */

/* A message that is being read. The frames are the caller's, and stay where they are. */
typedef struct zqb__incoming_t {
    int place;   /* ZQB__MAJORDOMO ... */
    int dialect; /* of zqb__dialects, or -1 as long as it is not known */
    int side;    /* ZQB__CLIENT or ZQB__WORKER */
    size_t envelope; /* frames in front of what the dialect says */
    uint64_t life;   /* ZQB/1: the sender's */
    zmq_msg_t *frames; /* those that are left to read */
    size_t count;
    const unsigned char *bytes; /* ZQB/1: the first frame */
    size_t size;
    size_t at;         /* ZQB/1: where the next command starts in it; else whether the command was read */
    size_t large;      /* ZQB/1: how many large frames the commands so far have used */
    unsigned allowed;      /* which commands may come, as bits */
    int error;             /* ZQB__BAD_..., ZQB__NO_MEMORY */
    zqb__parcel_t *packed; /* scratch for the bodies of the other dialects */
    zqb__rare_t rare;      /* ZQB/1: of the command that was read last, if it has any; the last member */
} zqb__incoming_t;

static int zqb__frame_is (zmq_msg_t *frame, const char *text)
{
    size_t size = strlen (text);
    return zmq_msg_size (frame) == size && memcmp (zmq_msg_data (frame), text, size) == 0;
}

static int zqb__frame_is_zqb1 (zmq_msg_t *frame)
{
    return zmq_msg_size (frame) >= ZQB__HEAD && memcmp (zmq_msg_data (frame), ZQB__MAGIC, 4) == 0;
}

static int zqb__wire_wrong (zqb__incoming_t *in, int error)
{
    in->error = error;
    return -1;
}

/* Takes the header off a Majordomo or ZQB/1 message, if this frame is one. */
static int zqb__wire_is_header (zqb__incoming_t *in, zmq_msg_t *frame)
{
    static const struct {
        const char *header;
        int dialect, side;
    } headers[] = {{"MDPC01", ZQB__MDP01, ZQB__CLIENT},
                   {"MDPW01", ZQB__MDP01, ZQB__WORKER},
                   {"MDPC02", ZQB__MDP02, ZQB__CLIENT},
                   {"MDPW02", ZQB__MDP02, ZQB__WORKER}};
    if (zqb__frame_is_zqb1 (frame)) {
        in->dialect = ZQB__ZQB1;
        in->bytes = (const unsigned char *) zmq_msg_data (frame);
        in->size = zmq_msg_size (frame);
        in->life = zqb__get_64 (in->bytes + 4);
        in->at = ZQB__HEAD;
        return 1;
    }
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        if (zqb__frame_is (frame, headers[i].header)) {
            in->dialect = headers[i].dialect;
            in->side = headers[i].side;
            return 1;
        }
    return 0;
}

/* Majordomo and ZQB/1: whatever stands before the header is the envelope. */
static int zqb__wire_open_majordomo (zqb__incoming_t *in, zmq_msg_t *frames, size_t count)
{
    size_t first = in->place == ZQB__FROM_BROKER ? 0 : 1; /* behind the address that ROUTER puts in front */
    for (size_t i = first; i < count && i <= first + ZQB__ENVELOPE_MAX; i++)
        if (zqb__wire_is_header (in, &frames[i])) {
            size_t skip = in->dialect == ZQB__ZQB1 ? i : i + 1;
            in->envelope = i;
            in->frames = frames + skip;
            in->count = count - skip;
            return 0;
        }
    return zqb__wire_wrong (in, ZQB__BAD_HEADER);
}

/* LRU frontend: the envelope ends with the first empty frame. */
static int zqb__wire_open_frontend (zqb__incoming_t *in, zmq_msg_t *frames, size_t count)
{
    in->side = ZQB__CLIENT;
    for (size_t i = 1; i < count && i <= 1 + ZQB__ENVELOPE_MAX; i++)
        if (zmq_msg_size (&frames[i]) == 0) {
            in->dialect = ZQB__LRU;
            in->envelope = i + 1;
            in->frames = frames + i + 1;
            in->count = count - i - 1;
            return 0;
        }
    return zqb__wire_wrong (in, ZQB__BAD_HEADER);
}

/* LRU backend: a REQ worker has an empty frame behind its address, a PPP worker has none. */
static int zqb__wire_open_backend (zqb__incoming_t *in, zmq_msg_t *frames, size_t count)
{
    in->side = ZQB__WORKER;
    if (count < 2)
        return zqb__wire_wrong (in, ZQB__BAD_HEADER);
    in->dialect = zmq_msg_size (&frames[1]) == 0 ? ZQB__LRU : ZQB__PPP;
    in->envelope = in->dialect == ZQB__LRU ? 2 : 1;
    in->frames = frames + in->envelope;
    in->count = count - in->envelope;
    if (in->dialect == ZQB__PPP
        && (zqb__frame_is (in->frames, "READY") || zqb__frame_is (in->frames, "HEARTBEAT")))
        in->dialect = ZQB__PPP_WORDS;
    return 0;
}

/* Which commands may come, by where and from whom, as bits. ZQB/1 peers may be on both sides. */
static unsigned zqb__wire_allowed (const zqb__incoming_t *in)
{
    enum {
        FROM_CLIENT = 1 << ZQB__REQUEST | 1 << ZQB__CANCEL | 1 << ZQB__MORE,
        FROM_WORKER = 1 << ZQB__READY | 1 << ZQB__PARTIAL | 1 << ZQB__REPLY | 1 << ZQB__ERROR | 1 << ZQB__HEARTBEAT
                      | 1 << ZQB__DISCONNECT | 1 << ZQB__PROGRESS | 1 << ZQB__DRAIN,
        TO_CLIENT = 1 << ZQB__PARTIAL | 1 << ZQB__REPLY | 1 << ZQB__ERROR | 1 << ZQB__PROGRESS,
        TO_WORKER = 1 << ZQB__REQUEST | 1 << ZQB__HEARTBEAT | 1 << ZQB__DISCONNECT | 1 << ZQB__CANCEL | 1 << ZQB__ERROR
                    | 1 << ZQB__MORE | 1 << ZQB__DRAIN
    };
    int from_broker = in->place == ZQB__FROM_BROKER;
    unsigned client = from_broker ? TO_CLIENT : FROM_CLIENT, worker = from_broker ? TO_WORKER : FROM_WORKER;
    return in->dialect == ZQB__ZQB1 ? client | worker : in->side == ZQB__CLIENT ? client : worker;
}

/* Begins to read a message: finds its dialect, its side and its envelope. -1: in->error says what is wrong. */
static int zqb__wire_open (zqb__incoming_t *in, int place, zmq_msg_t *frames, size_t count, zqb__parcel_t *scratch)
{
    memset (in, 0, offsetof (zqb__incoming_t, rare));
    in->place = place;
    in->dialect = -1;
    in->packed = scratch;
    int failed = place == ZQB__FRONTEND  ? zqb__wire_open_frontend (in, frames, count)
                 : place == ZQB__BACKEND ? zqb__wire_open_backend (in, frames, count)
                                         : zqb__wire_open_majordomo (in, frames, count);
    in->allowed = failed ? 0 : zqb__wire_allowed (in);
    return failed;
}

/* ---- reading ZQB/1 */

/* A field that few commands have. -1: it has another size than it should. */
static int zqb__wire_rare_field (zqb__rare_t *rare, int tag, const unsigned char *value, size_t size)
{
    static const unsigned char sizes[] = {1, 4, 4, 2, 8, 0, 0, 16, 4, 0}; /* from PRIORITY on; 0: 1 to 255 */
    size_t wanted = sizes[tag - ZQB__FIELD_PRIORITY];
    if (wanted ? size != wanted : size == 0)
        return -1;
    switch (tag) {
        case ZQB__FIELD_PRIORITY: rare->priority = (int) value[0] - ZQB__PRIORITY_NORMAL; break;
        case ZQB__FIELD_DEADLINE: rare->deadline_ms = zqb__get_32 (value); break;
        case ZQB__FIELD_DELAY: rare->delay_ms = zqb__get_32 (value); break;
        case ZQB__FIELD_ATTEMPTS: rare->attempts = zqb__get_16 (value); break;
        case ZQB__FIELD_BACKOFF:
            rare->backoff_ms = zqb__get_32 (value);
            rare->backoff_max_ms = zqb__get_32 (value + 4);
            break;
        case ZQB__FIELD_UNIQUE:
            rare->unique = value;
            rare->unique_size = size;
            break;
        case ZQB__FIELD_AFFINITY:
            rare->affinity = value;
            rare->affinity_size = size;
            break;
        case ZQB__FIELD_CODE: rare->code = zqb__get_32 (value); break;
        case ZQB__FIELD_PROGRESS:
            rare->done = zqb__get_64 (value);
            rare->total = zqb__get_64 (value + 8);
            rare->has_progress = 1;
            break;
        default: /* USER */
            rare->user = value;
            rare->user_size = size;
            break;
    }
    return 0;
}

static ZQB__SELDOM int zqb__wire_take_rare (zqb__incoming_t *in, zqb__command_t *command, int tag,
                                            const unsigned char *value, size_t size)
{
    if (!command->rare)
        memset (&in->rare, 0, sizeof in->rare);
    command->rare = &in->rare;
    return zqb__wire_rare_field (&in->rare, tag, value, size);
}

static int zqb__wire_field (zqb__incoming_t *in, zqb__command_t *command, int tag, const unsigned char *value,
                            size_t size)
{
    if (tag >= ZQB__FIELD_PRIORITY && tag <= ZQB__FIELD_USER)
        return zqb__wire_take_rare (in, command, tag, value, size);
    switch (tag) {
        case ZQB__FIELD_SERVICE:
            command->service = value;
            command->service_size = size;
            return 0;
        case ZQB__FIELD_CREDIT: command->credit = size == 2 ? zqb__get_16 (value) : 1; return size == 2 ? 0 : -1;
        case ZQB__FIELD_STATUS: command->status = size == 2 ? (int) zqb__get_16 (value) : 0; return size == 2 ? 0 : -1;
        case ZQB__FIELD_HEARTBEAT:
            command->heartbeat_ms = size == 4 ? zqb__get_32 (value) : ZQB__BEAT_UNKNOWN;
            return size == 4 ? 0 : -1;
        case ZQB__FIELD_TEXT:
            command->text = (const char *) value;
            command->text_size = size;
            return 0;
        default: return 0; /* of a later version */
    }
}

static int zqb__wire_fields (zqb__incoming_t *in, zqb__command_t *command, const unsigned char *at, size_t size)
{
    while (size) {
        if (size < 2 || size - 2 < at[1] || zqb__wire_field (in, command, at[0], at + 2, at[1]) != 0)
            return -1;
        size -= 2u + at[1];
        at += 2u + at[1];
    }
    return 0;
}

/* 1: a command; 0: no more; -1: in->error */
static int zqb__wire_next_zqb1 (zqb__incoming_t *in, zqb__command_t *command)
{
    const unsigned char *bytes = in->bytes + in->at;
    size_t left = in->size - in->at;
    if (left == 0)
        return in->at == ZQB__HEAD || in->large + 1 != in->count ? zqb__wire_wrong (in, ZQB__BAD_FRAMES) : 0;
    size_t size = left < ZQB__COMMAND_HEAD ? 0 : zqb__get_32 (bytes);
    size_t fields = size ? zqb__get_16 (bytes + 6) : 0;
    if (in->at >= ZQB__PARCEL_FULL || size < ZQB__COMMAND_HEAD || size > left || fields > size - ZQB__COMMAND_HEAD)
        return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
    command->type = bytes[4];
    command->flags = bytes[5];
    command->id = zqb__get_64 (bytes + 8);
    command->body.block = bytes + ZQB__COMMAND_HEAD + fields;
    command->body.size = size - ZQB__COMMAND_HEAD - fields;
    command->body.large = in->frames + 1 + in->large;
    command->body.large_count = in->count - 1 - in->large;
    if (zqb__wire_fields (in, command, bytes + ZQB__COMMAND_HEAD, fields) != 0
        || zqb__body_measure (&command->body) != 0)
        return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
    in->at += size;
    in->large += command->body.large_count;
    return 1;
}

/* ---- reading the other dialects: one command a message */

/* The next frame, or NULL. */
static zmq_msg_t *zqb__wire_take (zqb__incoming_t *in)
{
    if (in->count == 0)
        return NULL;
    in->count--;
    return in->frames++;
}

static int zqb__wire_take_service (zqb__incoming_t *in, zqb__command_t *command)
{
    zmq_msg_t *frame = zqb__wire_take (in);
    if (!frame)
        return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
    command->service = (const unsigned char *) zmq_msg_data (frame);
    command->service_size = zmq_msg_size (frame);
    return 0;
}

/* The rest of the message is the body. */
static int zqb__wire_take_body (zqb__incoming_t *in, zqb__command_t *command)
{
    zqb__parcel_clear (in->packed);
    if (zqb__parcel_add_frames (in->packed, in->frames, in->count) != 0)
        return zqb__wire_wrong (in, errno == ENOMEM ? ZQB__NO_MEMORY : ZQB__BAD_FRAMES);
    command->body = zqb__parcel_view (in->packed, in->count);
    in->count = 0;
    return 0;
}

/* "client address" (a token of ours), an empty frame that PHP workers leave out, the body. */
static int zqb__wire_take_envelope (zqb__incoming_t *in, zqb__command_t *command)
{
    zmq_msg_t *token = zqb__wire_take (in);
    if (!token)
        return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
    if (zmq_msg_size (token) == ZQB__TOKEN)
        command->id = zqb__get_64 ((const unsigned char *) zmq_msg_data (token));
    if (in->count && zmq_msg_size (in->frames) == 0)
        zqb__wire_take (in);
    return zqb__wire_take_body (in, command);
}

/* A request as a worker gets it: address frames up to an empty one, the body. */
static int zqb__wire_take_addresses (zqb__incoming_t *in, zqb__command_t *command)
{
    command->address = in->frames;
    for (zmq_msg_t *frame; (frame = zqb__wire_take (in)) != NULL; command->address_count++)
        if (zmq_msg_size (frame) == 0)
            return zqb__wire_take_body (in, command);
    return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
}

/* The command of a code frame, whether in numbers or, in MDP/0.1 and PPP, in words. 0: none that we know. */
static int zqb__wire_code (zqb__incoming_t *in, zmq_msg_t *frame)
{
    int words = in->dialect == ZQB__MDP01 ? ZQB__MDP01_WORDS : in->dialect;
    for (int type = 1; type < ZQB__COMMAND_END; type++) {
        if (zqb__dialects[in->dialect].codes[type] && zqb__frame_is (frame, zqb__dialects[in->dialect].codes[type]))
            return type;
        if (zqb__dialects[words].codes[type] && zqb__frame_is (frame, zqb__dialects[words].codes[type])) {
            in->dialect = words;
            return type;
        }
    }
    return 0;
}

/* [code] and then what the command has */
static int zqb__wire_read_mdp_worker (zqb__incoming_t *in, zqb__command_t *command)
{
    zmq_msg_t *code = zqb__wire_take (in);
    if (!code)
        return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
    command->type = zqb__wire_code (in, code);
    switch (command->type) {
        case ZQB__READY: return zqb__wire_take_service (in, command);
        case ZQB__REQUEST: return zqb__wire_take_addresses (in, command);
        case ZQB__PARTIAL:
        case ZQB__REPLY: return zqb__wire_take_envelope (in, command);
        default: return 0;
    }
}

/* MDP/0.1 [service][body]..., MDP/0.2 [code][service][body]... */
static int zqb__wire_read_mdp_client (zqb__incoming_t *in, zqb__command_t *command)
{
    command->type = in->place == ZQB__FROM_BROKER ? ZQB__REPLY : ZQB__REQUEST;
    if (in->dialect == ZQB__MDP02) {
        static const char *const codes[] = {"\1", "\2", "\3"};
        static const int types[] = {ZQB__REQUEST, ZQB__PARTIAL, ZQB__REPLY};
        zmq_msg_t *code = zqb__wire_take (in);
        if (!code)
            return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
        command->type = 0;
        for (int i = 0; i < 3; i++)
            if (zqb__frame_is (code, codes[i]))
                command->type = types[i];
    }
    if (command->type == 0)
        return 0;
    return zqb__wire_take_service (in, command) != 0 ? -1 : zqb__wire_take_body (in, command);
}

/* [READY], [HEARTBEAT], or an answer */
static int zqb__wire_read_backend (zqb__incoming_t *in, zqb__command_t *command)
{
    if (in->count == 1) {
        if (zqb__frame_is (in->frames, "READY") || zqb__frame_is (in->frames, "\1"))
            command->type = ZQB__READY;
        else if (in->dialect != ZQB__LRU
                 && (zqb__frame_is (in->frames, "HEARTBEAT") || zqb__frame_is (in->frames, "\2")))
            command->type = ZQB__HEARTBEAT;
        in->count = 0;
        return 0;
    }
    command->type = ZQB__REPLY;
    return zqb__wire_take_envelope (in, command);
}

static int zqb__wire_read_frames (zqb__incoming_t *in, zqb__command_t *command)
{
    if (in->place == ZQB__BACKEND)
        return zqb__wire_read_backend (in, command);
    if (in->place == ZQB__FRONTEND) {
        command->type = ZQB__REQUEST;
        return zqb__wire_take_body (in, command);
    }
    return in->side == ZQB__WORKER ? zqb__wire_read_mdp_worker (in, command) : zqb__wire_read_mdp_client (in, command);
}

/* What holds for every dialect: 1, or -1 and in->error. */
static int zqb__wire_check (zqb__incoming_t *in, const zqb__command_t *command)
{
    int named = command->type == ZQB__READY || command->type == ZQB__REQUEST;
    if (command->type <= 0 || command->type >= ZQB__COMMAND_END)
        return in->dialect == ZQB__ZQB1 ? 1 : zqb__wire_wrong (in, ZQB__BAD_COMMAND);
    if (!(in->allowed >> command->type & 1))
        return zqb__wire_wrong (in, ZQB__BAD_COMMAND);
    if (in->place == ZQB__FROM_BROKER || !named)
        return 1;
    if (in->place == ZQB__MAJORDOMO && !zqb__name_valid (command->service_size))
        return zqb__wire_wrong (in, ZQB__BAD_NAME);
    if (in->dialect != ZQB__ZQB1 && command->type == ZQB__REQUEST && command->body.frames == 0)
        return zqb__wire_wrong (in, ZQB__BAD_FRAMES);
    return 1;
}

/* Reads the next command of a message: 1; 0 when there is none left; -1: in->error says what is wrong with it. What the
   command points to lives as long as the frames, and the scratch, as long as the next call. */
static int zqb__wire_next (zqb__incoming_t *in, zqb__command_t *command)
{
    int first = in->at == 0;
    zqb__command_init (command, 0, 0);
    command->credit = 1;
    if (in->dialect == ZQB__ZQB1) {
        int more = zqb__wire_next_zqb1 (in, command);
        return more == 1 ? zqb__wire_check (in, command) : more;
    }
    in->at = 1;
    if (!first)
        return 0;
    return zqb__wire_read_frames (in, command) != 0 ? -1 : zqb__wire_check (in, command);
}

/* Whether a message that is well so far ends here. */
static int zqb__wire_is_read (const zqb__incoming_t *in)
{
    return in->dialect != ZQB__ZQB1 || in->at == in->size;
}

/* ---- writing */

static unsigned char *zqb__put_field (unsigned char *at, int tag, const void *value, size_t size)
{
    at[0] = (unsigned char) tag;
    at[1] = (unsigned char) size;
    memcpy (at + 2, value, size);
    return at + 2 + size;
}

static unsigned char *zqb__put_number (unsigned char *at, int tag, uint32_t value, size_t size)
{
    unsigned char number[4];
    zqb__put_32 (number, value);
    return zqb__put_field (at, tag, number + 4 - size, size);
}

static unsigned char *zqb__put_backoff (unsigned char *at, const zqb__rare_t *rare)
{
    unsigned char pair[8];
    zqb__put_32 (pair, rare->backoff_ms);
    zqb__put_32 (pair + 4, rare->backoff_max_ms);
    return zqb__put_field (at, ZQB__FIELD_BACKOFF, pair, sizeof pair);
}

static unsigned char *zqb__put_progress (unsigned char *at, const zqb__rare_t *rare)
{
    unsigned char pair[16];
    zqb__put_64 (pair, rare->done);
    zqb__put_64 (pair + 8, rare->total);
    return zqb__put_field (at, ZQB__FIELD_PROGRESS, pair, sizeof pair);
}

/* The same for those that few commands have. */
static unsigned char *zqb__put_rare_fields (unsigned char *at, const zqb__rare_t *rare)
{
    if (rare->priority)
        at = zqb__put_number (at, ZQB__FIELD_PRIORITY, (uint32_t) (rare->priority + ZQB__PRIORITY_NORMAL), 1);
    if (rare->deadline_ms)
        at = zqb__put_number (at, ZQB__FIELD_DEADLINE, rare->deadline_ms, 4);
    if (rare->delay_ms)
        at = zqb__put_number (at, ZQB__FIELD_DELAY, rare->delay_ms, 4);
    if (rare->attempts)
        at = zqb__put_number (at, ZQB__FIELD_ATTEMPTS, rare->attempts, 2);
    if (rare->backoff_ms)
        at = zqb__put_backoff (at, rare);
    if (rare->unique_size)
        at = zqb__put_field (at, ZQB__FIELD_UNIQUE, rare->unique, rare->unique_size);
    if (rare->affinity_size)
        at = zqb__put_field (at, ZQB__FIELD_AFFINITY, rare->affinity, rare->affinity_size);
    if (rare->has_progress)
        at = zqb__put_progress (at, rare);
    if (rare->code)
        at = zqb__put_number (at, ZQB__FIELD_CODE, rare->code, 4);
    if (rare->user_size)
        at = zqb__put_field (at, ZQB__FIELD_USER, rare->user, rare->user_size);
    return at;
}

/* Writes the fields that a command has to at, which has room for them; returns the end of the last. */
static unsigned char *zqb__put_fields (unsigned char *at, const zqb__command_t *command)
{
    if (command->service_size && (command->type == ZQB__READY || command->type == ZQB__REQUEST))
        at = zqb__put_field (at, ZQB__FIELD_SERVICE, command->service, command->service_size);
    if (command->type == ZQB__READY || command->type == ZQB__MORE)
        at = zqb__put_number (at, ZQB__FIELD_CREDIT, command->credit, 2);
    if (command->heartbeat_ms != ZQB__BEAT_UNKNOWN)
        at = zqb__put_number (at, ZQB__FIELD_HEARTBEAT, command->heartbeat_ms, 4);
    if (command->status)
        at = zqb__put_number (at, ZQB__FIELD_STATUS, (uint32_t) command->status, 2);
    if (command->text_size)
        at = zqb__put_field (at, ZQB__FIELD_TEXT, command->text, command->text_size > 255 ? 255 : command->text_size);
    return command->rare ? zqb__put_rare_fields (at, command->rare) : at;
}

/* Writes the head of a message, which names the sender's life. */
static unsigned char *zqb__put_head (unsigned char *at, uint64_t life)
{
    memcpy (at, ZQB__MAGIC, 4);
    zqb__put_64 (at + 4, life);
    return at + ZQB__HEAD;
}

/* Writes a command but for its size and its body; returns its end. */
static unsigned char *zqb__put_command (unsigned char *at, const zqb__command_t *command)
{
    unsigned char *fields = at + ZQB__COMMAND_HEAD, *end = zqb__put_fields (fields, command);
    at[4] = (unsigned char) command->type;
    at[5] = (unsigned char) command->flags;
    zqb__put_16 (at + 6, (uint32_t) (end - fields));
    zqb__put_64 (at + 8, command->id);
    return end;
}

/* There is room for it, but for large frames and what is a message. */
static int zqb__wire_pack_body (zqb__parcel_t *parcel, const zqb__command_t *command)
{
    const zqb__body_t *body = &command->body;
    if (!command->msg && !body->large_count) {
        if (body->size)
            memcpy (parcel->bytes.bytes + parcel->bytes.size, body->block, body->size);
        parcel->bytes.size += body->size;
        return 0;
    }
    return command->msg ? zqb__parcel_add_msg (parcel, command->msg) : zqb__parcel_add_body (parcel, &command->body);
}

/* ZQB/1: packs a command behind the others that wait in the parcel, or behind the head of a message. -1: ENOMEM or
   EMSGSIZE, and the parcel is as before. */
static int zqb__wire_pack (zqb__parcel_t *parcel, uint64_t life, const zqb__command_t *command)
{
    zqb__buffer_t *bytes = &parcel->bytes;
    size_t before = bytes->size, large_count = parcel->large_count;
    unsigned char *at = zqb__buffer_room (bytes, ZQB__HEAD + ZQB__COMMAND_HEAD + ZQB__FIELDS_MOST + command->body.size);
    if (!at)
        return -1;
    if (!before)
        at = zqb__put_head (at, life);
    size_t start = (size_t) (at - bytes->bytes);
    bytes->size = (size_t) (zqb__put_command (at, command) - bytes->bytes);
    int failed = zqb__wire_pack_body (parcel, command);
    if (!failed && bytes->size - start <= UINT32_MAX / 2) {
        zqb__put_32 (bytes->bytes + start, (uint32_t) (bytes->size - start));
        return 0;
    }
    zqb__parcel_rewind (parcel, before, large_count);
    if (!failed)
        errno = EMSGSIZE;
    return -1;
}

/* A parcel that should leave before more is packed into it. */
static int zqb__wire_full (const zqb__parcel_t *parcel)
{
    return parcel->bytes.size >= ZQB__PARCEL_FULL || parcel->large_bytes >= ZQB__PARCEL_LARGE
           || parcel->large_count >= ZQB__PARCEL_FRAMES;
}

/* Whether a dialect has a word for a command to that side. */
static int zqb__wire_says (int dialect, int side, int type)
{
    const zqb__dialect_t *speaks = &zqb__dialects[dialect];
    if (dialect == ZQB__ZQB1 || type == ZQB__REPLY || type == ZQB__REQUEST)
        return 1;
    if (side == ZQB__CLIENT)
        return type == ZQB__PARTIAL ? speaks->partials : 0;
    return speaks->codes[type] != NULL;
}

/* The body, which has at least one frame there. */
static int zqb__add_body_frames (zqb_msg_t *out, const zqb__command_t *command)
{
    if (command->msg && command->msg->count_)
        return zqb__msg_add_copies (out, command->msg);
    return command->body.size ? zqb__body_to_msg (&command->body, out) : zqb_msg_add (out, NULL, 0);
}

static int zqb__wire_client_frames (zqb_msg_t *out, int dialect, const zqb__command_t *command)
{
    const char *code = command->type == ZQB__REQUEST ? "\1" : command->type == ZQB__PARTIAL ? "\2" : "\3";
    if ((dialect == ZQB__MDP01 && zqb_msg_add_str (out, "MDPC01") != 0)
        || (dialect == ZQB__MDP02 && (zqb_msg_add_str (out, "MDPC02") != 0 || zqb_msg_add_str (out, code) != 0))
        || (dialect != ZQB__LRU && zqb_msg_add (out, command->service, command->service_size) != 0))
        return -1;
    return zqb__add_body_frames (out, command);
}

/* The client's address as a worker sees it: a token of ours, or, from our worker to another broker, what came. */
static int zqb__add_address (zqb_msg_t *out, const zqb__command_t *command)
{
    unsigned char token[ZQB__TOKEN];
    zqb__put_64 (token, command->id);
    if (!command->address)
        return zqb_msg_add (out, token, sizeof token);
    for (size_t i = 0; i < command->address_count; i++)
        if (zqb_msg_add (out, zmq_msg_data (&command->address[i]), zmq_msg_size (&command->address[i])) != 0)
            return -1;
    return 0;
}

static int zqb__wire_worker_frames (zqb_msg_t *out, int dialect, const zqb__command_t *command)
{
    const zqb__dialect_t *speaks = &zqb__dialects[dialect];
    const char *code = speaks->codes[command->type];
    if ((speaks->header && zqb_msg_add_str (out, speaks->header) != 0) || (code && zqb_msg_add_str (out, code) != 0))
        return -1;
    switch (command->type) {
        case ZQB__READY: return zqb_msg_add (out, command->service, command->service_size);
        case ZQB__REQUEST:
        case ZQB__PARTIAL:
        case ZQB__REPLY:
            if (zqb__add_address (out, command) != 0 || zqb_msg_add (out, NULL, 0) != 0)
                return -1;
            return zqb__add_body_frames (out, command);
        default: return 0;
    }
}

/* All dialects but ZQB/1: appends the frames of a command, from the header on, to what is to be sent. -1 and ENOMEM. */
static int zqb__wire_frames (zqb_msg_t *out, int dialect, int side, const zqb__command_t *command)
{
    return side == ZQB__CLIENT ? zqb__wire_client_frames (out, dialect, command)
                               : zqb__wire_worker_frames (out, dialect, command);
}

/* ================================================================================================================
   >>access
   Owns:    rules that say who may do what, and how they are written
   Door:    zqb__rules_new, _free, _read (a file's text), _add (one rule), _allow (what they say)
   Uses:    platform (memory, names, text by words, a random key), containers (hash tables)
   Never:   a file, a socket, a peer: who asks for what is what the caller says
   ================================================================================================================ */

enum { ZQB__RULES_MOST = 65536, ZQB__GROUPS_MOST = 256, ZQB__RULES_BYTES = 1048576, ZQB__WORD_MOST = 255 };

/* What names are meant: this one, or all that begin so. */
typedef struct zqb__pattern_t {
    char *text;
    size_t size;
    int star;
} zqb__pattern_t;

/* Of a rule, or of a group: who is meant. */
enum { ZQB__WHO_USER, ZQB__WHO_NOBODY, ZQB__WHO_INPROC, ZQB__WHO_GROUP };

typedef struct zqb__who_t {
    int kind;
    zqb__pattern_t user;
    size_t group;     /* that is meant; of a member: that it is in */
    zqb__node_t node; /* of a member; of a rule that denies, by whom it is about */
} zqb__who_t;

typedef struct zqb__group_t {
    char *name;
    size_t name_size;
    zqb__who_t *members;
    size_t count, capacity;
} zqb__group_t;

/* Rules of one key, which is made of whom they are about and of the text of their services, are a chain in the order of
   the file, which is that of their numbers. */
typedef struct zqb__rule_t {
    int allow, actions;
    zqb__who_t who;
    zqb__pattern_t services;
    zqb__node_t node;          /* of the first of a chain */
    uint32_t in_front, behind; /* the first has the last in front, and the last ZQB__RULES_MOST behind it */
} zqb__rule_t;

typedef struct zqb__rules_t {
    zqb__rule_t *rules;
    size_t count, capacity;
    zqb__group_t *groups;
    size_t group_count, group_capacity;
    zqb__key_t hash;
    zqb__table_t chains, denials, members;
    char service_sizes[ZQB__WORD_MOST + 1], member_sizes[ZQB__WORD_MOST + 1]; /* which patterns with a star have */
} zqb__rules_t;

/* What is asked: whether somebody may do something to a service. */
typedef struct zqb__ask_t {
    const char *user; /* NULL nobody */
    size_t user_size;
    int local;        /* in our own process */
    int action;       /* one of ZQB_MAY_... */
    const char *service;
    size_t service_size;
    int all;          /* the service is a pattern: to all names that it stands for */
} zqb__ask_t;

/* ---- making and freeing them */

static void zqb__who_close (zqb__who_t *who)
{
    ZQB_FREE (who->user.text);
    who->user.text = NULL;
}

static void zqb__rule_close (zqb__rule_t *rule)
{
    zqb__who_close (&rule->who);
    ZQB_FREE (rule->services.text);
}

static void zqb__group_close (zqb__group_t *group)
{
    for (size_t i = 0; i < group->count; i++)
        zqb__who_close (&group->members[i]);
    ZQB_FREE (group->members);
    ZQB_FREE (group->name);
}

/* ---- how they are found: by hashes, and each rule that these find is looked at all the same. Rules about other users,
   or other services, cost a question nothing, however many there are. */

/* One user or beginning of users, nobody, who is in our process, or a group. */
static uint64_t zqb__who_hash (const zqb__rules_t *rules, const zqb__who_t *who)
{
    return who->kind == ZQB__WHO_USER ? zqb__hash (rules->hash, who->user.text, who->user.size) : (uint64_t) who->kind;
}

/* Rules about one user, nobody, or who is in our process are found by that; all others as if of one group. */
static uint64_t zqb__rule_whom (const zqb__rules_t *rules, const zqb__rule_t *rule)
{
    return rule->who.user.star ? (uint64_t) ZQB__WHO_GROUP : zqb__who_hash (rules, &rule->who);
}

static uint64_t zqb__rule_key (uint64_t whom, uint64_t services)
{
    return services ^ ZQB__ROTATE (whom, 17);
}

/* The first rule of a key, or NULL. */
static zqb__rule_t *zqb__rules_first (const zqb__rules_t *rules, uint64_t key)
{
    zqb__node_t *node = zqb__table_first (&rules->chains, key);
    return node ? ZQB__OF (zqb__rule_t, node, node) : NULL;
}

/* The rule behind the last becomes the last of all, and of its chain; the hashes of its nodes are set. */
static void zqb__rules_link (zqb__rules_t *rules)
{
    uint32_t number = (uint32_t) rules->count++;
    zqb__rule_t *rule = &rules->rules[number], *first = zqb__rules_first (rules, rule->node.hash);
    if (!rule->allow)
        zqb__table_insert (&rules->denials, &rule->who.node, rule->who.node.hash);
    if (!first)
        zqb__table_insert (&rules->chains, &rule->node, rule->node.hash);
    rule->in_front = first ? first->in_front : number;
    rule->behind = ZQB__RULES_MOST;
    if (first)
        first->in_front = rules->rules[rule->in_front].behind = number;
}

/* Undoes that. */
static void zqb__rules_unlink (zqb__rules_t *rules)
{
    zqb__rule_t *rule = &rules->rules[--rules->count], *first = zqb__rules_first (rules, rule->node.hash);
    if (!rule->allow)
        zqb__table_remove (&rules->denials, &rule->who.node);
    if (first == rule)
        zqb__table_remove (&rules->chains, &rule->node);
    first->in_front = rule->in_front;
    rules->rules[rule->in_front].behind = ZQB__RULES_MOST;
}

/* Makes room for one more. As those that there are may move, no table may know of them meanwhile. -1 and ENOMEM. */
static int zqb__rules_reserve (zqb__rules_t *rules)
{
    size_t count = rules->count;
    if (count < rules->capacity)
        return 0;
    while (rules->count > 0)
        zqb__rules_unlink (rules);
    int failed = zqb__grow ((void **) &rules->rules, &rules->capacity, count + 1, sizeof *rules->rules);
    while (rules->count < count)
        zqb__rules_link (rules);
    return failed;
}

/* The same for members. */
static int zqb__group_reserve (zqb__rules_t *rules, zqb__group_t *group)
{
    if (group->count < group->capacity)
        return 0;
    for (size_t i = 0; i < group->count; i++)
        zqb__table_remove (&rules->members, &group->members[i].node);
    int failed = zqb__grow ((void **) &group->members, &group->capacity, group->count + 1, sizeof *group->members);
    for (size_t i = 0; i < group->count; i++)
        zqb__table_insert (&rules->members, &group->members[i].node, group->members[i].node.hash);
    return failed;
}

/* From this size on, the next at which the beginning of a name may be a pattern's, or the size of the whole name. */
static size_t zqb__next_size (const char sizes[ZQB__WORD_MOST + 1], size_t from, size_t whole)
{
    while (from < whole && (from > ZQB__WORD_MOST || !sizes[from]))
        from++;
    return from;
}

/* ---- making and freeing all */

/* Takes the last ones away, until so many are left. */
static void zqb__rules_cut (zqb__rules_t *rules, size_t count)
{
    while (rules->count > count) {
        zqb__rules_unlink (rules);
        zqb__rule_close (&rules->rules[rules->count]);
    }
}

static void zqb__rules_free (zqb__rules_t *rules)
{
    if (!rules)
        return;
    zqb__rules_cut (rules, 0);
    for (size_t i = 0; i < rules->group_count; i++)
        zqb__group_close (&rules->groups[i]);
    zqb__table_close (&rules->chains);
    zqb__table_close (&rules->denials);
    zqb__table_close (&rules->members);
    ZQB_FREE (rules->rules);
    ZQB_FREE (rules->groups);
    ZQB_FREE (rules);
}

/* No rules. NULL and ENOMEM. */
static zqb__rules_t *zqb__rules_new (void)
{
    zqb__rules_t *rules = (zqb__rules_t *) zqb__alloc (sizeof *rules);
    if (!rules)
        return NULL;
    rules->hash.k0 = zqb__random ();
    rules->hash.k1 = zqb__random ();
    if (zqb__table_init (&rules->chains) == 0 && zqb__table_init (&rules->denials) == 0
        && zqb__table_init (&rules->members) == 0)
        return rules;
    zqb__rules_free (rules);
    errno = ENOMEM;
    return NULL;
}

/* ---- words: what is read from a text goes by them. Each of these returns NULL, or says what is wrong. */

static const char zqb__no_memory[] = "out of memory";
static const char zqb__rules_full[] = "too many rules";

/* Takes the next word off a line: 1; 0: there is none. One that begins with # ends the line. */
static int zqb__rule_word (zqb__word_t *line, zqb__word_t *word)
{
    return zqb__text_word (line, word) && *word->at != '#';
}

static int zqb__hex_digit (char byte)
{
    return byte >= '0' && byte <= '9' ? byte - '0' : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
         : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

/* The next byte of a word, in which one may be written as \xHH: its size in the word, or 0: it is not written so. */
static size_t zqb__word_byte (const char *at, size_t left, char *byte)
{
    *byte = *at;
    if (*at != '\\')
        return 1;
    int high = left >= 4 && at[1] == 'x' ? zqb__hex_digit (at[2]) : -1;
    int low = high >= 0 ? zqb__hex_digit (at[3]) : -1;
    *byte = (char) (high * 16 + low);
    return low >= 0 ? 4 : 0;
}

/* A name, or with a star behind it, which is not written as \x2a, all that begin so. */
static const char *zqb__pattern_read (zqb__pattern_t *pattern, const zqb__word_t *word)
{
    char text[ZQB__WORD_MOST + 1];
    size_t size = 0, left = word->size, step;
    pattern->star = left && word->at[left - 1] == '*';
    left -= (size_t) pattern->star;
    for (const char *at = word->at; left; at += step, left -= step) {
        if (size == ZQB__WORD_MOST)
            return "a name of more than 255 bytes";
        if ((step = zqb__word_byte (at, left, &text[size++])) == 0)
            return "a backslash that is not one of \\xHH";
    }
    if (!size && !pattern->star)
        return "an empty name";
    pattern->text = zqb__copy_text (text, size);
    pattern->size = size;
    return pattern->text ? NULL : zqb__no_memory;
}

static zqb__group_t *zqb__group_find (const zqb__rules_t *rules, const zqb__word_t *name)
{
    for (size_t i = 0; i < rules->group_count; i++)
        if (rules->groups[i].name_size == name->size && memcmp (rules->groups[i].name, name->at, name->size) == 0)
            return &rules->groups[i];
    return NULL;
}

static const char *zqb__who_read (const zqb__rules_t *rules, zqb__who_t *who, const zqb__word_t *word)
{
    zqb__word_t name;
    memset (who, 0, sizeof *who);
    who->kind = zqb__word_is (word, "-") ? ZQB__WHO_NOBODY : zqb__word_is (word, "@inproc") ? ZQB__WHO_INPROC
              : word->size && *word->at == '@' ? ZQB__WHO_GROUP : ZQB__WHO_USER;
    if (who->kind == ZQB__WHO_USER)
        return zqb__pattern_read (&who->user, word);
    if (who->kind != ZQB__WHO_GROUP)
        return NULL;
    name.at = word->at + 1;
    name.size = word->size - 1;
    const zqb__group_t *group = zqb__group_find (rules, &name);
    who->group = group ? (size_t) (group - rules->groups) : 0;
    return group ? NULL : "a group that is not defined above";
}

/* ---- rules */

/* There is room for it. */
static void zqb__rules_append (zqb__rules_t *rules, zqb__rule_t *rule)
{
    uint64_t whom = zqb__rule_whom (rules, rule);
    rule->who.node.hash = whom;
    rule->node.hash = zqb__rule_key (whom, zqb__hash (rules->hash, rule->services.text, rule->services.size));
    if (rule->services.star)
        rules->service_sizes[rule->services.size] = 1;
    rules->rules[rules->count] = *rule;
    zqb__rules_link (rules);
}

/* The same as of one before, for another pattern of services. */
static const char *zqb__rules_add_one (zqb__rules_t *rules, int allow, const zqb__word_t *who, int actions,
                                       const zqb__word_t *services)
{
    zqb__rule_t rule;
    memset (&rule, 0, sizeof rule);
    rule.allow = allow;
    rule.actions = actions;
    if (rules->count == ZQB__RULES_MOST)
        return zqb__rules_full;
    const char *wrong = zqb__who_read (rules, &rule.who, who);
    if (!wrong)
        wrong = zqb__pattern_read (&rule.services, services);
    if (!wrong && zqb__rules_reserve (rules) != 0)
        wrong = zqb__no_memory;
    if (wrong)
        zqb__rule_close (&rule);
    else
        zqb__rules_append (rules, &rule);
    return wrong;
}

/* A rule behind the others: services are patterns with blanks between them. NULL, or what is wrong, and nothing is
   added. */
static const char *zqb__rules_add (zqb__rules_t *rules, int allow, const zqb__word_t *who, int actions,
                                   zqb__word_t services)
{
    size_t before = rules->count;
    zqb__word_t word;
    const char *wrong = NULL;
    while (!wrong && zqb__rule_word (&services, &word))
        wrong = zqb__rules_add_one (rules, allow, who, actions, &word);
    if (!wrong && rules->count == before)
        wrong = "a rule without services";
    if (wrong)
        zqb__rules_cut (rules, before);
    return wrong;
}

/* "call,serve,manage", or some of them; 0: it is not that. */
static int zqb__actions_read (const zqb__word_t *word)
{
    static const char *const names[] = {"call", "serve", "manage"};
    int actions = 0;
    const char *at = word->at, *end = at + word->size;
    for (;;) {
        zqb__word_t name;
        int action = 0;
        name.at = at;
        while (at < end && *at != ',')
            at++;
        name.size = (size_t) (at - name.at);
        for (int i = 0; i < 3; i++)
            if (zqb__word_is (&name, names[i]))
                action = 1 << i;
        if (!action)
            return 0;
        actions |= action;
        if (at++ == end)
            return actions;
    }
}

static const char *zqb__rules_read_rule (zqb__rules_t *rules, int allow, zqb__word_t line)
{
    zqb__word_t who, word;
    if (!zqb__rule_word (&line, &who) || !zqb__rule_word (&line, &word))
        return "a rule is: allow or deny, who, what (call,serve,manage), services";
    int actions = zqb__actions_read (&word);
    return actions ? zqb__rules_add (rules, allow, &who, actions, line) : "an action that is not call, serve or manage";
}

/* The group of that name, found or made. NULL: it cannot be; *wrong says why. */
static zqb__group_t *zqb__group_require (zqb__rules_t *rules, const zqb__word_t *name, const char **wrong)
{
    zqb__group_t *group = zqb__group_find (rules, name);
    *wrong = zqb__word_is (name, "inproc") ? "a group that is ours" : NULL;
    if (rules->group_count == ZQB__GROUPS_MOST && !group)
        *wrong = "too many groups";
    if (group || *wrong)
        return *wrong ? NULL : group;
    *wrong = zqb__no_memory;
    void **groups = (void **) &rules->groups;
    if (zqb__grow (groups, &rules->group_capacity, rules->group_count + 1, sizeof *rules->groups) != 0)
        return NULL;
    group = &rules->groups[rules->group_count];
    memset (group, 0, sizeof *group);
    group->name = zqb__copy_text (name->at, name->size);
    group->name_size = name->size;
    if (!group->name)
        return NULL;
    rules->group_count++;
    *wrong = NULL;
    return group;
}

/* There is room for it. */
static void zqb__group_append (zqb__rules_t *rules, zqb__group_t *group, const zqb__who_t *who)
{
    zqb__who_t *member = &group->members[group->count++];
    *member = *who;
    member->group = (size_t) (group - rules->groups);
    if (who->user.star)
        rules->member_sizes[who->user.size] = 1;
    zqb__table_insert (&rules->members, &member->node, zqb__who_hash (rules, member));
}

static const char *zqb__group_add (zqb__rules_t *rules, zqb__group_t *group, const zqb__word_t *word)
{
    zqb__who_t who;
    const char *wrong = zqb__who_read (rules, &who, word);
    if (!wrong && who.kind == ZQB__WHO_GROUP)
        wrong = "a group in a group";
    if (!wrong && zqb__group_reserve (rules, group) != 0)
        wrong = zqb__no_memory;
    if (wrong)
        zqb__who_close (&who);
    else
        zqb__group_append (rules, group, &who);
    return wrong;
}

/* A second line of the same name adds to it. */
static const char *zqb__rules_read_group (zqb__rules_t *rules, zqb__word_t line)
{
    zqb__word_t word;
    const char *wrong = "a group is: group, its name, users";
    zqb__group_t *group = zqb__rule_word (&line, &word) ? zqb__group_require (rules, &word, &wrong) : NULL;
    while (group && !wrong && zqb__rule_word (&line, &word))
        wrong = zqb__group_add (rules, group, &word);
    return wrong;
}

static const char *zqb__rules_read_line (zqb__rules_t *rules, zqb__word_t line)
{
    zqb__word_t word;
    if (!zqb__text_valid (&line))
        return "a byte that is no text";
    if (!zqb__rule_word (&line, &word))
        return NULL;
    if (zqb__word_is (&word, "group"))
        return zqb__rules_read_group (rules, line);
    if (zqb__word_is (&word, "allow") || zqb__word_is (&word, "deny"))
        return zqb__rules_read_rule (rules, *word.at == 'a', line);
    return "a line that begins with neither group, allow nor deny";
}

/* Reads the text of a file. NULL; or what is wrong, in *line (from 1), and the rules are to be freed. */
static const char *zqb__rules_read (zqb__rules_t *rules, const char *text, size_t size, int *line)
{
    const char *wrong = size > ZQB__RULES_BYTES ? "more than a megabyte" : NULL;
    zqb__word_t rest, words;
    rest.at = text;
    rest.size = size;
    for (*line = 1; !wrong && zqb__text_line (&rest, &words); *line += !wrong)
        wrong = zqb__rules_read_line (rules, words);
    return wrong;
}

/* ---- what they say */

static int zqb__pattern_matches (const zqb__pattern_t *pattern, const char *name, size_t size)
{
    return (pattern->star ? size >= pattern->size : size == pattern->size)
           && memcmp (pattern->text, name, pattern->size) == 0;
}

/* Whether there is a name that both stand for. The other is a prefix with a star behind it. */
static int zqb__pattern_touches (const zqb__pattern_t *pattern, const char *prefix, size_t size)
{
    if (size <= pattern->size)
        return memcmp (pattern->text, prefix, size) == 0;
    return pattern->star && memcmp (pattern->text, prefix, pattern->size) == 0;
}

static int zqb__who_is (const zqb__who_t *who, const zqb__ask_t *ask)
{
    switch (who->kind) {
        case ZQB__WHO_NOBODY: return !ask->user;
        case ZQB__WHO_INPROC: return ask->local;
        default: return ask->user && zqb__pattern_matches (&who->user, ask->user, ask->user_size);
    }
}

/* Who asks: by what the rules that may be about him are found, and in which groups he is, if that is known. */
typedef struct zqb__asker_t {
    const zqb__rules_t *rules;
    const zqb__ask_t *ask;
    uint64_t whom[3]; /* the first stands for all others */
    int whoms, groups_known;
    char groups[ZQB__GROUPS_MOST];
} zqb__asker_t;

static void zqb__asker_init (zqb__asker_t *asker, const zqb__rules_t *rules, const zqb__ask_t *ask)
{
    asker->rules = rules;
    asker->ask = ask;
    asker->groups_known = 0;
    asker->whom[0] = ZQB__WHO_GROUP;
    asker->whom[1] = ask->user ? zqb__hash (rules->hash, ask->user, ask->user_size) : (uint64_t) ZQB__WHO_NOBODY;
    asker->whom[2] = ZQB__WHO_INPROC;
    asker->whoms = ask->local ? 3 : 2;
}

/* He is in all groups of which the members of this hash are he. */
static void zqb__asker_join (zqb__asker_t *asker, uint64_t hash)
{
    for (zqb__node_t *node = zqb__table_first (&asker->rules->members, hash); node; node = zqb__table_next (node)) {
        const zqb__who_t *member = ZQB__OF (zqb__who_t, node, node);
        if (zqb__who_is (member, asker->ask))
            asker->groups[member->group] = 1;
    }
}

static void zqb__asker_find_groups (zqb__asker_t *asker)
{
    const zqb__rules_t *rules = asker->rules;
    size_t whole = asker->ask->user ? asker->ask->user_size : 0;
    asker->groups_known = 1;
    memset (asker->groups, 0, sizeof asker->groups);
    for (int i = 1; i < asker->whoms; i++)
        zqb__asker_join (asker, asker->whom[i]);
    for (size_t size = 0; (size = zqb__next_size (rules->member_sizes, size, whole)) < whole; size++)
        zqb__asker_join (asker, zqb__hash (rules->hash, asker->ask->user, size));
}

static int zqb__rule_is_about (const zqb__rule_t *rule, zqb__asker_t *asker)
{
    if (rule->who.kind != ZQB__WHO_GROUP)
        return zqb__who_is (&rule->who, asker->ask);
    if (!asker->groups_known)
        zqb__asker_find_groups (asker);
    return asker->groups[rule->who.group];
}

/* To ask for mmi is to manage, for which a rule of calls will do if it names mmi. */
static int zqb__rule_has_action (const zqb__rule_t *rule, const zqb__ask_t *ask)
{
    int names_mmi = zqb__name_reserved (rule->services.text, rule->services.size);
    return rule->actions & ask->action
           || (ask->action == ZQB_MAY_MANAGE && rule->actions & ZQB_MAY_CALL && names_mmi);
}

/* What a rule says of the services: -1 nothing, else whether it allows it. Of all names of a pattern it must allow all,
   and denies them if it denies one. */
static int zqb__rule_says (const zqb__rule_t *rule, const zqb__ask_t *ask)
{
    size_t prefix = ask->service_size - 1;
    if (!ask->all)
        return zqb__pattern_matches (&rule->services, ask->service, ask->service_size) ? rule->allow : -1;
    if (!rule->allow)
        return zqb__pattern_touches (&rule->services, ask->service, prefix) ? 0 : -1;
    return rule->services.star && zqb__pattern_matches (&rule->services, ask->service, prefix) ? 1 : -1;
}

/* Whether a rule is about what is asked, and who asks. */
static int zqb__rule_speaks (const zqb__rule_t *rule, zqb__asker_t *asker)
{
    return zqb__rule_has_action (rule, asker->ask) && zqb__rule_says (rule, asker->ask) >= 0
           && zqb__rule_is_about (rule, asker);
}

/* The first rule of a key that speaks, if it is in front of that other; else the other. By their numbers. */
static size_t zqb__chain_find (zqb__asker_t *asker, uint64_t key, size_t other)
{
    const zqb__rule_t *rules = asker->rules->rules, *first = zqb__rules_first (asker->rules, key);
    size_t number = first ? (size_t) (first - rules) : other;
    while (number < other && !zqb__rule_speaks (&rules[number], asker))
        number = rules[number].behind;
    return number < other ? number : other;
}

/* The first rule that speaks of a name, or of all that begin so; ZQB__RULES_MOST: none does. It has that name, or a
   pattern that is one of its beginnings. */
static size_t zqb__rules_find (zqb__asker_t *asker)
{
    const zqb__rules_t *rules = asker->rules;
    size_t found = ZQB__RULES_MOST, whole = asker->ask->service_size - (asker->ask->all ? 1 : 0);
    for (size_t size = 0; size <= whole; size++) {
        size = zqb__next_size (rules->service_sizes, size, whole);
        uint64_t services = zqb__hash (rules->hash, asker->ask->service, size);
        for (int i = 0; i < asker->whoms; i++)
            found = zqb__chain_find (asker, zqb__rule_key (asker->whom[i], services), found);
    }
    return found;
}

/* Whether a rule in front of that one denies some of the names that are asked for. */
static int zqb__rules_deny_some (zqb__asker_t *asker, const zqb__rule_t *other)
{
    const zqb__table_t *denials = &asker->rules->denials;
    for (int i = 0; i < asker->whoms; i++)
        for (zqb__node_t *node = zqb__table_first (denials, asker->whom[i]); node; node = zqb__table_next (node)) {
            const zqb__rule_t *rule = ZQB__OF (zqb__rule_t, who, ZQB__OF (zqb__who_t, node, node));
            if (rule < other && zqb__rule_speaks (rule, asker))
                return 1;
        }
    return 0;
}

/* Whether it is allowed: what the first rule says that is about it; if none is, it is not. What denies only some of the
   names is looked for behind that, so that who may not have them anyhow cannot make us do so. */
static int zqb__rules_allow (const zqb__rules_t *rules, const zqb__ask_t *ask)
{
    zqb__asker_t asker;
    zqb__asker_init (&asker, rules, ask);
    size_t number = zqb__rules_find (&asker);
    if (number == ZQB__RULES_MOST || !rules->rules[number].allow)
        return 0;
    return !ask->all || !zqb__rules_deny_some (&asker, &rules->rules[number]);
}

/* ================================================================================================================
   >>engine
   Owns:    peers, services, workers, requests: the state machine. What time it is (now), and whether all that peers
            sent was read (caught_up), is what the caller says
   Door:    zqb__engine_init, _finish, _close; _peer, _receive, _malformed, _missed, _turn_away, _release (what a peer
            says); _suspect, _lost, _disconnected, _bury (what became of one); _tick, _next, _is_late (time); _pause,
            _go_on; _handle, _limit, _policy, _drain, _scale, _rules, _access_changed, _connections, _has_room; commands
            come out through zqb__sink_t
   Uses:    containers, scale, message, access, wire (commands and dialects, not their bytes)
   Never:   a socket, a clock, a thread
   Where to look: a command of a peer is handled in zqb__on_ready, _on_request, _on_reply ...;
            how a worker is chosen is in zqb__service_choose and zqb__worker_place, and nowhere else;
            whose request is the next is in zqb__service_first and zqb__lane_*;
            what a request asks for is read in zqb__request_wish;
            who may do what is asked in zqb__on_ready, zqb__guards_refuse and zqb__engine_access_changed
   ================================================================================================================ */

typedef struct zqb__service_t zqb__service_t;
typedef struct zqb__worker_t zqb__worker_t;
typedef struct zqb__lane_t zqb__lane_t;
typedef struct zqb__peer_t zqb__peer_t;
typedef struct zqb__connection_t zqb__connection_t;

/* What was used of so many requests and bytes a second: when it will be paid for, in nanoseconds. */
typedef struct zqb__pace_t {
    uint64_t requests, bytes;
} zqb__pace_t;

/* What a user has, of what is limited. */
typedef struct zqb__quota_t {
    uint64_t outstanding;   /* requests, as long as they are counted */
    uint64_t workers;
    zqb__pace_t pace;
    uint64_t complained[2]; /* when the log told last that a call, or serving, was denied */
} zqb__quota_t;

/* Somebody who has proved who he is. Known as long as he has peers, or requests that remember him. */
typedef struct zqb__user_t {
    zqb__node_t by_name;
    char *name; /* NUL-terminated */
    size_t name_size;
    size_t users; /* of this */
    zqb__quota_t quota;
} zqb__user_t;

/* Who sends a message. */
typedef struct zqb__identity_t {
    const char *user; /* NULL nobody */
    int local;        /* in our own process */
} zqb__identity_t;

/* What a peer may ask for, as it was found out: by the numbers of services. */
enum { ZQB__GRANTS = 8 };

typedef struct zqb__grant_t {
    uint64_t service, version; /* version: of what may be done */
    int actions[2];            /* those that are known, and of them those that are allowed */
} zqb__grant_t;

/* Somebody who sends us messages: an address, which is a whole envelope, so that each client behind a proxy is one of
   its own. It is remembered while it is a worker, has requests, or has messages to be sent, and for a while after. */
struct zqb__peer_t {
    zqb__node_t by_address;
    zqb__node_t by_life; /* ZQB/1: known again when it reconnects */
    uint64_t life;
    uint64_t said_life;  /* in its last message; it is not the peer's as long as another has it */
    uint64_t former;     /* hash of the address that it had before it reconnected */
    zqb__link_t idle;    /* among those that may be forgotten */
    zqb__link_t failed;  /* among those that could not be reached, and are to be buried */
    zqb__link_t lanes;   /* those of its requests */
    zqb__lane_t *lane;   /* the one it used last, which may be empty; or NULL */
    int outstanding;     /* how many requests it has */
    int one_way;         /* how many of them are wanted even if it goes */
    int numbered;    /* they are in engine->ids */
    int port;
    zqb__connection_t *connection; /* what it came over; NULL not known */
    zqb__link_t of_connection;
    zqb__timer_t timer; /* ZQB/1: its connection is gone, and this long it may take to come back */
    int dialect[2]; /* as a client, as a worker; -1 not known */
    zqb__worker_t *worker;
    unsigned char *address; /* its frames, laid out like a body block */
    size_t address_size;
    zqb__parcel_t out;  /* ZQB/1: what the broker has for it */
    zqb__link_t dirty;  /* the broker's: peers with something to be sent */
    uint64_t replies;   /* in out */
    uint64_t requests_out; /* in out: the last that its worker has in its hand */
    int only_beat;      /* out is a heartbeat, and nothing else */
    int given_up;       /* it did not come back in that time */
    zqb__user_t *user;  /* NULL nobody */
    int local;          /* in our own process */
    zqb__quota_t quota; /* nobody's */
    zqb__pace_t pace;   /* its own, whoever it is */
    zqb__grant_t *grants; /* NULL none yet */
    uint64_t passed, passed_version; /* the service, by its number, that it was allowed to call last, by those rules, if
                                        that is all that there is to pass */
};

/* A connection of libzmq's: several peers may come over it, through a proxy. */
struct zqb__connection_t {
    zqb__node_t by_number;
    int port, number;
    zqb__link_t peers;
    zqb__account_t *account; /* the broker's: what waits to be sent over it; NULL nothing yet */
    char *address; /* of the other end; NULL not known */
    char *entry;   /* the broker's: what its peers were let in by; NULL not known */
    int judged, welcome;   /* the broker's: by which state of the lists, and whether they still are */
    zqb__link_t unwelcome; /* the broker's: those that are to be ended */
    int cut;               /* the broker's: it has ended it, and will hear of that */
};

/* There may be a million of them: what few need is in extra. */
typedef struct zqb__request_t {
    zqb__slot_t slot;
    zqb__link_t place;     /* in the queue of its service, which is in order of arrival, or in the hand of its worker */
    zqb__link_t of_lane;
    zqb__lane_t *lane;     /* whose it is, and for which service; NULL: nobody wants the reply */
    zqb__worker_t *worker; /* NULL: queued */
    uint64_t id;           /* the client's */
    uint64_t arrived;
    struct zqb__extra_t *extra; /* or NULL */
    zqb__stored_t body;
    unsigned attempts : 30, fate : 2;
    int mores;             /* times that its worker was told that its client has read parts, less the parts since */
} zqb__request_t;

/* Why nobody wants a request any more, though it may still run. */
enum { ZQB__WANTED, ZQB__CANCELLED, ZQB__EXPIRED, ZQB__CLIENT_GONE };

/* Where one is that does not run: in the queue of its service; or aside: before its time, in the queue of one worker,
   as others do the same (unique), or as the answers of workers are gathered (survey). */
enum { ZQB__QUEUED, ZQB__DELAYED, ZQB__PINNED, ZQB__FOLLOWING, ZQB__SURVEYING };

enum { ZQB__REFUSALS_MOST = 8, ZQB__SLOTS = 4096 };

/* Ranks of requests: their priorities, from the lowest. */
enum { ZQB__RANKS = ZQB_PRIORITY_HIGHEST - ZQB_PRIORITY_LOWEST + 1, ZQB__RANK_NORMAL = -ZQB_PRIORITY_LOWEST };

typedef struct zqb__extra_t {
    zqb__request_t *request;
    int aside;         /* ZQB__QUEUED ..., as long as it does not run */
    uint64_t accepted; /* when; it arrives anew when it was delayed */
    int flags;         /* ZQB__ONE_WAY, ZQB__FAIL_FAST */
    zqb__node_t by_id; /* ZQB/1: found again by a retry, or to be cancelled */
    int numbered;      /* it is in engine->ids */
    zqb__parcel_t gathered; /* partial replies for a client whose dialect has none */
    char *name;        /* what the client called the service, which is a pattern; or NULL */
    size_t name_size;
    zqb__link_t of_hasty; /* of its service, if it is queued and not to wait */
    zqb__timer_t timer; /* for the two below; its place is reserved if it is timed */
    int timed;
    uint64_t begins;   /* not before; 0 at once */
    uint64_t ends;     /* the deadline; UINT64_MAX none */
    uint32_t attempts; /* how many there may be; 0 as many as the broker's option says */
    uint64_t backoff, backoff_most; /* behind an attempt */
    int slot;          /* of its affinity, or -1 */
    zqb__worker_t *pin; /* whose queue it is in */
    uint64_t refused[ZQB__REFUSALS_MOST]; /* by workers of these numbers */
    int refusals;
    char *unique;      /* its key, as long as it is in engine->uniques; or NULL */
    size_t unique_size;
    zqb__node_t by_unique;
    zqb__link_t followers; /* by their place */
    int joined[ZQB__RANKS]; /* how many of these there are of each rank */
    zqb__request_t *leader; /* of one that follows; NULL: it has ended */
    zqb__request_t *survey; /* of the request to one worker; or NULL */
    zqb__link_t of_survey;
    zqb__link_t asked;      /* of a survey: those that have not ended */
    int asked_count, answered;
    zqb__user_t *user; /* whose it is, even if his client is gone; NULL that of the client */
    int local;         /* the same */
} zqb__extra_t;

/* The requests of one client for one service, of one rank. Lanes of a rank that have something queued take turns, so
   that no client has to wait behind all that another has sent: "the broker SHOULD serve clients on a fair basis" (RFC
   7, topology). */
struct zqb__lane_t {
    zqb__node_t by_ends;
    zqb__service_t *service;
    zqb__peer_t *client;
    int rank;
    zqb__link_t of_service, of_client;
    zqb__link_t turn;     /* among the lanes of its service and rank that have something queued */
    zqb__link_t requests; /* those that run or are aside, then those that are queued */
    zqb__link_t *queued;  /* the first of these, or &requests */
};

/* Workers with room are kept by load, so that the least loaded is found at once: levels 0 to 7 are exact, and each of
   those above is twice as wide as the one before. Within a level, the one that came there first is the first, until it
   leaves it: so requests that come together stay together, where workers hold many. */
enum { ZQB__LEVELS_EXACT = 8, ZQB__LEVELS = 22 };

struct zqb__service_t {
    zqb__node_t by_name;
    zqb__link_t all; /* among all services */
    zqb__link_t queue, lanes;
    zqb__link_t turns[ZQB__RANKS]; /* the lanes that have something queued; whose turn it is is the first */
    uint32_t turn_mask;            /* which of these lists are not empty */
    zqb__link_t delayed;
    zqb__link_t workers;
    zqb__link_t ready[ZQB__LEVELS]; /* workers with room, by load */
    uint32_t ready_mask;            /* which of these lists are not empty */
    int queued, running, worker_count;
    int delayed_count, pinned; /* aside */
    zqb__link_t hasty;    /* of those queued: not to wait without a worker */
    int pattern;          /* its name ends with a star */
    int policy;           /* ZQB_POLICY_LRU ... */
    zqb_choose_fn *choose;
    void *choose_arg;
    zqb__worker_t **slots; /* whose requests of an affinity are; NULL nobody has asked for that */
    zqb__timer_t timer;   /* when the queue is longest without a worker */
    uint64_t alone_since; /* no worker since then */
    uint64_t limit;       /* how long a worker may be at work and finish nothing; UINT64_MAX for ever */
    struct zqb__watch_t *watch; /* how many workers it should have; NULL nobody asks */
    zqb_handler_fn *handler;
    void *handler_arg;
    char *name; /* with a NUL, and perhaps others in it */
    size_t name_size;
    uint64_t number; /* no other ever has it */
};

struct zqb__worker_t {
    uint64_t number; /* in the order of registration */
    zqb__peer_t *peer;
    zqb__service_t *service;
    zqb__link_t of_service;
    zqb__link_t ready; /* in one of service->ready, or in none */
    int level;
    zqb__link_t hand; /* its requests, in the order in which it got them */
    uint32_t load, credit;
    uint64_t bytes;   /* of its requests */
    int adapts;       /* its credit follows its speed: see zqb__worker_adapt */
    uint64_t since;   /* when it began, or the last was done */
    uint64_t busy;    /* microseconds of work since its credit was looked at */
    uint64_t done;    /* how many requests in that time */
    zqb__timer_t timer;
    uint64_t beat, expiry; /* how often it hears from us, and after which silence it is lost */
    uint64_t heard, told; /* when it last sent something, and we to it */
    uint64_t served, failed, slow;
    zqb__link_t pins[ZQB__RANKS]; /* requests that wait for it */
    uint32_t pin_mask;            /* which of these lists are not empty */
    int slots;                    /* how many of the service's are its own */
    int draining;                 /* it gets no more, and leaves */
    int failures, rests;          /* in a row */
    int resting;                  /* it gets nothing until then */
    int probation;                /* it gets one at a time */
    uint64_t rested;              /* until then */
    zqb__link_t denied;           /* among those that may serve no more */
};

/* Looks again and again how many workers a service should have, and tells the host. */
typedef struct zqb__watch_t {
    zqb__timer_t timer;
    zqb__service_t *service;
    zqb__scaling_t scaling;
    zqb_scale_fn *fn;
    void *arg;
    int told; /* what the host was told last; 0 nothing */
} zqb__watch_t;

/* How the engine acts on the world. */
typedef struct zqb__sink_t {
    void *self;
    /* Sends a command to a peer, as a client or as a worker. -1: EHOSTUNREACH it is gone, EAGAIN it does not read,
       ENOMEM. Never calls the engine. */
    int (*send) (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command);
    /* Runs the handler of a service; fills in type (ZQB__REPLY or ZQB__ERROR), body and text of the reply. */
    void (*serve) (void *self, const zqb__service_t *service, const zqb__command_t *request, zqb__command_t *reply);
    /* A request is given up. */
    void (*dead) (void *self, const zqb__command_t *request);
    void (*log) (void *self, int level, const char *format, va_list args);
    /* NULL, or has the host look at a request and change what it asks for, in its flags and in wishes. Not 0: it is
       refused, with that text. */
    int (*filter) (void *self, zqb__command_t *request, zqb__rare_t *wishes, zqb__command_t *refusal);
    /* NULL, or tells the host what became of a request. */
    void (*outcome) (void *self, const zqb_outcome_t *outcome);
    /* Has the host choose a worker. */
    size_t (*choose) (void *self, const zqb__service_t *service, const zqb_worker_info_t *workers, size_t count);
    /* Calls the function of a host that wants to know how many workers a service should have. */
    void (*scale) (void *self, zqb_scale_fn *fn, const zqb_scale_t *scale, void *arg);
    /* NULL, or tells who sends the message at hand, from an address that was not known. */
    void (*identify) (void *self, zqb__identity_t *who);
    /* NULL, or has the host say whether something is allowed: 1, 0, or -1 the rules say. */
    int (*access) (void *self, const zqb_access_t *access);
    /* NULL, or tells whether a peer would be let in now: who would not may nothing. */
    int (*welcome) (void *self, const zqb__peer_t *peer);
} zqb__sink_t;

/* The options, resolved: no zero, no -1. */
typedef struct zqb__limits_t {
    uint64_t credit; /* nanoseconds of work that a worker may hold; 0 one request */
    uint64_t heartbeat, expiry, no_worker; /* microseconds, UINT64_MAX never */
    int attempts, services, workers, clients, requests, queue, no_worker_queue, outstanding;
    uint64_t frames, message, bytes;
    uint64_t ageing, rest, slow; /* microseconds, UINT64_MAX never */
    int rest_failures;           /* INT_MAX never */
    uint64_t user_outstanding, user_workers; /* 0 off, as those below, which are a second's */
    uint64_t user_requests, user_bytes, client_requests, client_bytes;
} zqb__limits_t;

typedef struct zqb__engine_t {
    zqb__limits_t limits;
    zqb__sink_t sink;
    zqb_stats_t stats;
    uint64_t now;
    zqb__key_t key;
    zqb__table_t peers, lives, connections, services, lanes, ids, uniques;
    zqb__link_t idle_peers;
    int idle_count;
    zqb__link_t failed_peers;
    zqb__link_t all_services;
    zqb__heap_t timers;
    zqb__slab_t requests;
    zqb__peer_t *heard;     /* whose message is being read, or who is just being lost; or NULL */
    int deaf;               /* it cannot be told anything any more: the rest of its message is not for us */
    int caught_up;          /* what peers have sent until now was read, so that who seems silent is silent */
    int paused;             /* nobody gets a request for now: see zqb__engine_pause */
    int ending;             /* the end has come: what was running is cut off */
    zqb__service_t mmi;     /* serves all names that start with "mmi." and are not among the services */
    zqb__service_t *recent; /* the one that was asked for last, or NULL */
    zqb__peer_t nobody;     /* has the one-way requests of clients that are gone */
    uint64_t worker_number; /* the last that was given */
    size_t timed;           /* requests that may have a timer */
    int patterns;           /* services whose name is one */
    int pattern_sizes[256]; /* how many have so many bytes before the star */
    zqb__table_t users;
    zqb__rules_t *rules;     /* NULL none */
    uint64_t access_version; /* of what may be done; from 1 */
    uint64_t service_number; /* the last that was given */
    int guarded;             /* ZQB__OPEN ... */
    const zqb__user_t *asks; /* whose request the host sees just now; NULL nobody's */
    zqb__lines_t warnings, notes; /* of peers */
} zqb__engine_t;

/* What a request has to pass before it is queued: nothing; who may ask for it; or also something that has to be looked
   at each time. */
enum { ZQB__OPEN, ZQB__RULED, ZQB__WATCHED };

enum { ZQB__TIMER_WORKER, ZQB__TIMER_SERVICE, ZQB__TIMER_PEER, ZQB__TIMER_REQUEST, ZQB__TIMER_SCALE };
enum { ZQB__SCALE_US = 100000 }; /* how often it is looked how many workers a service should have */
enum { ZQB__HAND_BYTES = 8388608, ZQB__CREDIT_MOST = 1000, ZQB__SILENCE_AGAIN_US = 1000 };
#define ZQB__PACE_NS ((uint64_t) 1000000) /* of work are looked at together */
enum { ZQB__IDLE_PEERS = 1024 }; /* so many peers without a purpose are remembered, as they may come again soon */

static void zqb__engine_log (zqb__engine_t *engine, int level, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    engine->sink.log (engine->sink.self, level, format, args);
    va_end (args);
}

/* A warning or a note on what a peer has done. */
static void zqb__engine_tell (zqb__engine_t *engine, int level, const char *format, ...)
{
    va_list args;
    int unsaid, warns = level == ZQB_LOG_WARNING;
    int may = zqb__lines_allow (warns ? &engine->warnings : &engine->notes, warns ? ZQB__WARNINGS : ZQB__NOTES,
                                engine->now, &unsaid);
    if (unsaid)
        zqb__engine_log (engine, level, "%d more %s of peers", unsaid, warns ? "warnings" : "notes");
    if (!may)
        return;
    va_start (args, format);
    engine->sink.log (engine->sink.self, level, format, args);
    va_end (args);
}

static const char *zqb__peer_dialect (const zqb__peer_t *peer, int side)
{
    return zqb__dialects[peer->dialect[side]].name;
}

static const char *zqb__service_text (const zqb__service_t *service, char text[ZQB__NAME_TEXT])
{
    return zqb__name_text (service->name, service->name_size, text);
}

/* Something about a worker of a service. */
static void zqb__service_log (zqb__engine_t *engine, int level, const zqb__service_t *service, const char *what,
                              const char *detail)
{
    char name[ZQB__NAME_TEXT];
    zqb__engine_tell (engine, level, "worker of '%s' %s%s", zqb__service_text (service, name), what, detail);
}

static void zqb__worker_retire (zqb__worker_t *worker);

/* A peer could not be reached. What that means for others is done at the end of what is being done now, so that nothing
   changes under the hands of a caller, and nothing recurses, however many are lost at once. */
static void zqb__peer_fail (zqb__engine_t *engine, zqb__peer_t *peer)
{
    if (!zqb__list_empty (&peer->failed))
        return;
    zqb__list_append (&engine->failed_peers, &peer->failed);
    if (peer->worker)
        zqb__worker_retire (peer->worker);
}

/* Sends a command if the peer's dialect has it; what it has no word for counts as sent. -1: the peer has failed. */
static int zqb__engine_send (zqb__engine_t *engine, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    if (!zqb__list_empty (&peer->failed))
        return -1;
    if (!zqb__wire_says (peer->dialect[side], side, command->type))
        return 0;
    if (side == ZQB__WORKER && peer->worker)
        peer->worker->told = engine->now;
    if (engine->sink.send (engine->sink.self, peer, side, command) == 0)
        return 0;
    if (command->type == ZQB__HEARTBEAT && errno == EAGAIN)
        return 0; /* it has not read those before: busy, not gone */
    engine->stats.unsendable++;
    zqb__peer_fail (engine, peer);
    return -1;
}

/* ---- lanes */

static uint64_t zqb__lane_hash (const zqb__engine_t *engine, const zqb__peer_t *client, const zqb__service_t *service,
                                int rank)
{
    uint64_t ends[2];
    ends[0] = (uint64_t) (uintptr_t) client;
    ends[1] = (uint64_t) (uintptr_t) service + (uint64_t) rank; /* within the service: no other has that address */
    return zqb__hash (engine->key, ends, sizeof ends);
}

static zqb__lane_t *zqb__lane_find (zqb__engine_t *engine, zqb__peer_t *client, zqb__service_t *service, int rank,
                                    uint64_t hash)
{
    for (zqb__node_t *node = zqb__table_first (&engine->lanes, hash); node; node = zqb__table_next (node)) {
        zqb__lane_t *lane = ZQB__OF (zqb__lane_t, by_ends, node);
        if (lane->client == client && lane->service == service && lane->rank == rank)
            return lane;
    }
    return NULL;
}

/* NULL and ENOMEM */
static zqb__lane_t *zqb__lane_new (zqb__engine_t *engine, zqb__peer_t *client, zqb__service_t *service, int rank,
                                   uint64_t hash)
{
    zqb__lane_t *lane = (zqb__lane_t *) zqb__alloc (sizeof *lane);
    if (!lane)
        return NULL;
    lane->service = service;
    lane->client = client;
    lane->rank = rank;
    zqb__list_init (&lane->turn);
    zqb__list_init (&lane->requests);
    lane->queued = &lane->requests;
    zqb__list_append (&service->lanes, &lane->of_service);
    zqb__list_append (&client->lanes, &lane->of_client);
    zqb__table_insert (&engine->lanes, &lane->by_ends, hash);
    return lane;
}

/* One without requests. */
static void zqb__lane_free (zqb__engine_t *engine, zqb__lane_t *lane)
{
    if (lane->client->lane == lane)
        lane->client->lane = NULL;
    zqb__list_remove (&lane->of_service);
    zqb__list_remove (&lane->of_client);
    zqb__table_remove (&engine->lanes, &lane->by_ends);
    ZQB_FREE (lane);
}

/* An empty lane is kept if it is the one that its client used last, as it will be used again. */
static void zqb__lane_rest (zqb__engine_t *engine, zqb__lane_t *lane)
{
    if (zqb__list_empty (&lane->requests) && lane->client->lane != lane)
        zqb__lane_free (engine, lane);
}

/* The lane of a client for a service, found or made. NULL and ENOMEM. */
static zqb__lane_t *zqb__lane_require (zqb__engine_t *engine, zqb__peer_t *client, zqb__service_t *service, int rank)
{
    zqb__lane_t *last = client->lane;
    if (last && last->service == service && last->rank == rank)
        return last;
    uint64_t hash = zqb__lane_hash (engine, client, service, rank);
    zqb__lane_t *lane = zqb__lane_find (engine, client, service, rank, hash);
    if (!lane && (lane = zqb__lane_new (engine, client, service, rank, hash)) == NULL)
        return NULL;
    client->lane = lane;
    if (last)
        zqb__lane_rest (engine, last);
    return lane;
}

/* A request of the lane is to be queued: as its first, which is the next to have a turn, or as its last. */
static void zqb__lane_queue (zqb__lane_t *lane, zqb__link_t *request, int first)
{
    zqb__link_t *turns = &lane->service->turns[lane->rank];
    int was_empty = lane->queued == &lane->requests;
    zqb__list_remove (request);
    zqb__list_insert (first ? lane->queued : &lane->requests, request);
    if (!first && !was_empty)
        return;
    lane->queued = request;
    zqb__list_remove (&lane->turn);
    zqb__list_insert (first ? turns->next : turns, &lane->turn);
    lane->service->turn_mask |= 1u << lane->rank;
}

/* A request of the lane that is not to be queued. */
static void zqb__lane_keep (zqb__lane_t *lane, zqb__link_t *request)
{
    zqb__list_remove (request);
    zqb__list_insert (lane->queued, request);
}

/* It has nothing queued any more. */
static void zqb__lane_leave_turns (zqb__lane_t *lane)
{
    zqb__list_remove (&lane->turn);
    if (zqb__list_empty (&lane->service->turns[lane->rank]))
        lane->service->turn_mask &= ~(1u << lane->rank);
}

/* A request of the lane is queued no more. */
static void zqb__lane_unqueue (zqb__lane_t *lane, zqb__link_t *request)
{
    if (lane->queued == request)
        lane->queued = request->next;
    else
        zqb__lane_keep (lane, request);
    if (lane->queued == &lane->requests)
        zqb__lane_leave_turns (lane);
}

/* The lane had its turn: now it is behind the others. */
static void zqb__lane_had_turn (zqb__lane_t *lane)
{
    if (lane->queued == &lane->requests)
        return;
    zqb__list_remove (&lane->turn);
    zqb__list_append (&lane->service->turns[lane->rank], &lane->turn);
}

/* Makes sure that the timers of all peers, services (two of each), workers and timed requests can run, and those of one
   more: whoever could not be given up in time would be kept for ever. -1 and ENOMEM. */
static int zqb__engine_reserve_timer (zqb__engine_t *engine)
{
    const zqb_stats_t *stats = &engine->stats;
    size_t services = 2 * ((size_t) stats->services + 1);
    size_t others = (size_t) stats->workers + engine->timed;
    return zqb__heap_reserve (&engine->timers, engine->peers.count + services + others);
}

/* ---- users */

static uint64_t zqb__user_hash (const zqb__engine_t *engine, const char *name)
{
    return zqb__hash (engine->key, name, strlen (name));
}

static zqb__user_t *zqb__user_find (zqb__engine_t *engine, const char *name, uint64_t hash)
{
    for (zqb__node_t *node = zqb__table_first (&engine->users, hash); node; node = zqb__table_next (node)) {
        zqb__user_t *user = ZQB__OF (zqb__user_t, by_name, node);
        if (strcmp (user->name, name) == 0)
            return user;
    }
    return NULL;
}

/* Somebody uses it from now on; NULL is nobody. */
static zqb__user_t *zqb__user_share (zqb__user_t *user)
{
    if (user)
        user->users++;
    return user;
}

static void zqb__user_release (zqb__engine_t *engine, zqb__user_t *user)
{
    if (!user || --user->users)
        return;
    zqb__table_remove (&engine->users, &user->by_name);
    ZQB_FREE (user->name);
    ZQB_FREE (user);
}

/* The user of that name, found or made, for the caller to release; NULL for nobody. -1 and ENOMEM. */
static int zqb__user_require (zqb__engine_t *engine, const char *name, zqb__user_t **user)
{
    *user = NULL;
    if (!name || !*name)
        return 0;
    uint64_t hash = zqb__user_hash (engine, name);
    *user = zqb__user_share (zqb__user_find (engine, name, hash));
    if (*user)
        return 0;
    zqb__user_t *fresh = (zqb__user_t *) zqb__alloc (sizeof *fresh);
    char *copy = fresh ? zqb__copy_text (name, strlen (name)) : NULL;
    if (!copy) {
        ZQB_FREE (fresh);
        return -1;
    }
    fresh->name = copy;
    fresh->name_size = strlen (name);
    fresh->users = 1;
    zqb__table_insert (&engine->users, &fresh->by_name, hash);
    *user = fresh;
    return 0;
}

/* ---- peers */

static int zqb__peer_is_at (const zqb__peer_t *peer, const void *address, size_t size)
{
    return peer->address_size == size && memcmp (peer->address, address, size) == 0;
}

static zqb__peer_t *zqb__peer_find (zqb__engine_t *engine, int port, const void *address, size_t size, uint64_t hash)
{
    for (zqb__node_t *node = zqb__table_first (&engine->peers, hash); node; node = zqb__table_next (node)) {
        zqb__peer_t *peer = ZQB__OF (zqb__peer_t, by_address, node);
        if (peer->port == port && zqb__peer_is_at (peer, address, size))
            return peer;
    }
    return NULL;
}

/* A life is known by its number alone, which is secret; but whoever learns it must be the same user, too. */
static zqb__peer_t *zqb__peer_of_life (zqb__engine_t *engine, uint64_t life, const zqb__user_t *user, int local)
{
    uint64_t hash = zqb__hash (engine->key, &life, sizeof life);
    for (zqb__node_t *node = zqb__table_first (&engine->lives, hash); node; node = zqb__table_next (node)) {
        zqb__peer_t *peer = ZQB__OF (zqb__peer_t, by_life, node);
        if (peer->life == life && peer->user == user && peer->local == local)
            return peer;
    }
    return NULL;
}

static void zqb__peer_set_life (zqb__engine_t *engine, zqb__peer_t *peer, uint64_t life)
{
    peer->life = life;
    zqb__table_insert (&engine->lives, &peer->by_life, zqb__hash (engine->key, &life, sizeof life));
}

static uint64_t zqb__connection_hash (const zqb__engine_t *engine, int port, int connection)
{
    int pair[2];
    pair[0] = port;
    pair[1] = connection;
    return zqb__hash (engine->key, pair, sizeof pair);
}

static zqb__connection_t *zqb__connection_find (zqb__engine_t *engine, int port, int number)
{
    uint64_t hash = zqb__connection_hash (engine, port, number);
    for (zqb__node_t *node = zqb__table_first (&engine->connections, hash); node; node = zqb__table_next (node)) {
        zqb__connection_t *connection = ZQB__OF (zqb__connection_t, by_number, node);
        if (connection->port == port && connection->number == number)
            return connection;
    }
    return NULL;
}

/* Finds or makes it. NULL and ENOMEM. */
static zqb__connection_t *zqb__connection_require (zqb__engine_t *engine, int port, int number)
{
    zqb__connection_t *connection = zqb__connection_find (engine, port, number);
    if (connection)
        return connection;
    connection = (zqb__connection_t *) zqb__alloc (sizeof *connection);
    if (!connection)
        return NULL;
    connection->port = port;
    connection->number = number;
    zqb__list_init (&connection->peers);
    zqb__list_init (&connection->unwelcome);
    zqb__table_insert (&engine->connections, &connection->by_number, zqb__connection_hash (engine, port, number));
    return connection;
}

/* What a peer may ask for has to be found out again. */
static void zqb__peer_forget_grants (zqb__peer_t *peer)
{
    ZQB_FREE (peer->grants);
    peer->grants = NULL;
    peer->passed_version = 0;
}

/* A connection is forgotten with the last of its peers. What these may do may depend on where its other end is. */
static void zqb__peer_leave_connection (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__connection_t *connection = peer->connection;
    zqb__peer_forget_grants (peer);
    zqb__list_remove (&peer->of_connection);
    peer->connection = NULL;
    if (!connection || !zqb__list_empty (&connection->peers))
        return;
    zqb__table_remove (&engine->connections, &connection->by_number);
    zqb__list_remove (&connection->unwelcome);
    zqb__account_release (connection->account, 0);
    ZQB_FREE (connection->entry);
    ZQB_FREE (connection->address);
    ZQB_FREE (connection);
}

static int zqb__peer_came_over (const zqb__peer_t *peer, int number)
{
    return peer->connection && peer->connection->number == number;
}

/* Which connection a peer came over, as the caller numbers them; -1: none that can be told. Without memory it is
   none. */
static void zqb__peer_set_connection (zqb__engine_t *engine, zqb__peer_t *peer, int number)
{
    if (zqb__peer_came_over (peer, number))
        return;
    zqb__peer_leave_connection (engine, peer);
    if (number >= 0)
        peer->connection = zqb__connection_require (engine, peer->port, number);
    if (peer->connection)
        zqb__list_append (&peer->connection->peers, &peer->of_connection);
}

/* Of whom it is counted what a peer, or a request of his, takes. */
static zqb__quota_t *zqb__peer_quota (zqb__peer_t *peer, zqb__user_t *user)
{
    return user ? &user->quota : peer->user ? &peer->user->quota : &peer->quota;
}

static void zqb__peer_free (zqb__peer_t *peer)
{
    zqb__parcel_close (&peer->out);
    ZQB_FREE (peer->grants);
    ZQB_FREE (peer->address);
    ZQB_FREE (peer);
}

static void zqb__peer_forget (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__list_remove (&peer->failed);
    zqb__list_remove (&peer->dirty);
    if (peer->lane)
        zqb__lane_free (engine, peer->lane);
    zqb__table_remove (&engine->peers, &peer->by_address);
    if (peer->life)
        zqb__table_remove (&engine->lives, &peer->by_life);
    zqb__peer_leave_connection (engine, peer);
    zqb__heap_remove (&engine->timers, &peer->timer);
    zqb__user_release (engine, peer->user);
    zqb__peer_free (peer);
}

static void zqb__peer_in_use (zqb__engine_t *engine, zqb__peer_t *peer)
{
    if (zqb__list_empty (&peer->idle))
        return;
    zqb__list_remove (&peer->idle);
    engine->idle_count--;
}

/* A peer may have lost its purpose: then it will be forgotten some day, unless it is the one that is being heard. Not
   now: who calls this may have another in hand. */
static void zqb__peer_rest (zqb__engine_t *engine, zqb__peer_t *peer)
{
    if (peer == engine->heard || peer->worker || peer->outstanding || !zqb__list_empty (&peer->idle)
        || !zqb__list_empty (&peer->dirty))
        return;
    zqb__list_append (&engine->idle_peers, &peer->idle);
    engine->idle_count++;
}

/* Those that have had no purpose for longest are forgotten, so that there is room for one more. Nobody has one in hand.
   */
static void zqb__peers_forget (zqb__engine_t *engine)
{
    while (engine->idle_count >= ZQB__IDLE_PEERS) {
        zqb__peer_t *oldest = ZQB__OF (zqb__peer_t, idle, engine->idle_peers.next);
        zqb__peer_in_use (engine, oldest);
        zqb__peer_forget (engine, oldest);
    }
}

/* A peer of ZQB/1 that was known at another address has reconnected: it keeps what it had. */
static void zqb__peer_move (zqb__engine_t *engine, zqb__peer_t *peer, int port, const void *address, size_t size,
                            uint64_t hash)
{
    char *copy = zqb__copy_text (address, size);
    if (!copy)
        return; /* answers go to the old address, and are lost with it */
    zqb__peer_leave_connection (engine, peer);
    peer->former = peer->by_address.hash;
    zqb__table_remove (&engine->peers, &peer->by_address);
    ZQB_FREE (peer->address);
    peer->address = (unsigned char *) copy;
    peer->address_size = size;
    peer->port = port;
    zqb__table_insert (&engine->peers, &peer->by_address, hash);
}

static void zqb__peer_init (zqb__peer_t *peer)
{
    zqb__list_init (&peer->idle);
    zqb__list_init (&peer->lanes);
    zqb__list_init (&peer->dirty);
    zqb__list_init (&peer->failed);
    zqb__list_init (&peer->of_connection);
}

static zqb__peer_t *zqb__peer_new (zqb__engine_t *engine, int port, const void *address, size_t size, uint64_t hash)
{
    zqb__peers_forget (engine);
    if (zqb__engine_reserve_timer (engine) != 0)
        return NULL;
    zqb__peer_t *peer = (zqb__peer_t *) zqb__alloc (sizeof *peer);
    char *copy = peer ? zqb__copy_text (address, size) : NULL;
    if (!copy) {
        ZQB_FREE (peer);
        return NULL;
    }
    peer->address = (unsigned char *) copy;
    peer->address_size = size;
    peer->port = port;
    zqb__peer_init (peer);
    peer->dialect[ZQB__CLIENT] = peer->dialect[ZQB__WORKER] = -1;
    peer->timer.kind = ZQB__TIMER_PEER;
    zqb__table_insert (&engine->peers, &peer->by_address, hash);
    return peer;
}

/* ---- services */

static int zqb__service_is (const zqb__service_t *service, const void *name, size_t size)
{
    return service->name_size == size && memcmp (service->name, name, size) == 0;
}

static zqb__service_t *zqb__service_find (zqb__engine_t *engine, const void *name, size_t size)
{
    if (engine->recent && zqb__service_is (engine->recent, name, size))
        return engine->recent;
    uint64_t hash = zqb__hash (engine->key, name, size);
    for (zqb__node_t *node = zqb__table_first (&engine->services, hash); node; node = zqb__table_next (node)) {
        zqb__service_t *service = ZQB__OF (zqb__service_t, by_name, node);
        if (zqb__service_is (service, name, size))
            return engine->recent = service;
    }
    return NULL;
}

/* A name that ends with a star is a pattern: it stands for all that begin with what is before. */
static void zqb__pattern_note (zqb__engine_t *engine, zqb__service_t *service, int more)
{
    service->pattern = service->name[service->name_size - 1] == '*';
    if (!service->pattern)
        return;
    engine->patterns += more;
    engine->pattern_sizes[service->name_size - 1] += more;
}

static zqb__service_t *zqb__service_new (zqb__engine_t *engine, const void *name, size_t size)
{
    if (zqb__engine_reserve_timer (engine) != 0)
        return NULL;
    zqb__service_t *service = (zqb__service_t *) zqb__alloc (sizeof *service);
    char *copy = service ? zqb__copy_text (name, size) : NULL;
    if (!copy) {
        ZQB_FREE (service);
        return NULL;
    }
    service->name = copy;
    service->name_size = size;
    service->timer.kind = ZQB__TIMER_SERVICE;
    service->alone_since = engine->now;
    service->limit = UINT64_MAX;
    service->number = ++engine->service_number;
    zqb__list_init (&service->queue);
    zqb__list_init (&service->delayed);
    zqb__list_init (&service->hasty);
    zqb__list_init (&service->lanes);
    zqb__list_init (&service->workers);
    for (int i = 0; i < ZQB__RANKS; i++)
        zqb__list_init (&service->turns[i]);
    for (int i = 0; i < ZQB__LEVELS; i++)
        zqb__list_init (&service->ready[i]);
    zqb__pattern_note (engine, service, 1);
    zqb__list_append (&engine->all_services, &service->all);
    zqb__table_insert (&engine->services, &service->by_name, zqb__hash (engine->key, name, size));
    engine->stats.services++;
    return service;
}

/* Finds or makes it. NULL: ENOMEM, or ENOSPC when there are too many. */
static zqb__service_t *zqb__service_require (zqb__engine_t *engine, const void *name, size_t size)
{
    zqb__service_t *service = zqb__service_find (engine, name, size);
    if (service)
        return service;
    if (engine->stats.services < (uint64_t) engine->limits.services)
        return zqb__service_new (engine, name, size);
    errno = ENOSPC;
    return NULL;
}

static int zqb__service_serves (const zqb__service_t *service)
{
    return service && (service->worker_count || service->handler);
}

/* The longest pattern that a name begins with and that is served, or NULL. */
static zqb__service_t *zqb__pattern_find (zqb__engine_t *engine, const void *name, size_t size)
{
    char pattern[256];
    size_t most = size < 254 ? size : 254;
    memcpy (pattern, name, most);
    for (size_t length = most + 1; length-- > 0;) {
        if (!engine->pattern_sizes[length])
            continue;
        pattern[length] = '*';
        zqb__service_t *service = zqb__service_find (engine, pattern, length + 1);
        if (zqb__service_serves (service))
            return service;
    }
    return NULL;
}

/* The service that a request for this name is for: the one of that name, if it is served; else that of the longest
   pattern that is; else the one of that name, or NULL. */
static zqb__service_t *zqb__service_route (zqb__engine_t *engine, const void *name, size_t size)
{
    zqb__service_t *service = zqb__service_find (engine, name, size);
    if (!engine->patterns || zqb__service_serves (service) || zqb__name_reserved (name, size))
        return service;
    zqb__service_t *pattern = zqb__pattern_find (engine, name, size);
    return pattern ? pattern : service;
}

/* Whether the host has set something for it, which is to be kept. */
static int zqb__service_is_set_up (const zqb__service_t *service)
{
    return service->limit != UINT64_MAX || service->policy != ZQB_POLICY_LRU || service->watch;
}

/* Forgets a service that has neither workers nor requests, and makes sure that those of one without workers expire. */
static void zqb__service_settle (zqb__engine_t *engine, zqb__service_t *service)
{
    if (zqb__service_serves (service))
        return;
    if (service->queued) {
        zqb__request_t *oldest = ZQB__OF (zqb__request_t, place, service->queue.next);
        uint64_t since = oldest->arrived > service->alone_since ? oldest->arrived : service->alone_since;
        uint64_t at = zqb__after (since, engine->limits.no_worker);
        if (!service->timer.place && at != UINT64_MAX)
            zqb__heap_set (&engine->timers, &service->timer, at);
        return;
    }
    if (service->delayed_count || zqb__service_is_set_up (service))
        return;
    if (engine->recent == service)
        engine->recent = NULL;
    while (!zqb__list_empty (&service->lanes))
        zqb__lane_free (engine, ZQB__OF (zqb__lane_t, of_service, service->lanes.next));
    zqb__heap_remove (&engine->timers, &service->timer);
    zqb__list_remove (&service->all);
    zqb__table_remove (&engine->services, &service->by_name);
    engine->stats.services--;
    zqb__pattern_note (engine, service, -1);
    ZQB_FREE (service->slots);
    ZQB_FREE (service->name);
    ZQB_FREE (service);
}

/* The first worker with room that comes behind another, in the order of choice; NULL as the other: the first of all. */
static zqb__worker_t *zqb__service_next_ready (const zqb__service_t *service, const zqb__worker_t *worker)
{
    int level = worker ? worker->level : 0;
    if (worker && worker->ready.next != &service->ready[level])
        return ZQB__OF (zqb__worker_t, ready, worker->ready.next);
    level += worker != NULL;
    while (level < ZQB__LEVELS && !(service->ready_mask >> level & 1))
        level++;
    return level < ZQB__LEVELS ? ZQB__OF (zqb__worker_t, ready, service->ready[level].next) : NULL;
}

enum { ZQB__CHOICE = 64 }; /* so many workers the host may choose from */

static void zqb__worker_info (const zqb__engine_t *engine, const zqb__worker_t *worker, zqb_worker_info_t *info)
{
    info->id = worker->number;
    info->load = (int) worker->load;
    info->credit = (int) worker->credit;
    info->served = worker->served;
    info->failed = worker->failed;
    info->slow = worker->slow;
    info->idle_us = worker->load ? 0 : (int64_t) (engine->now - worker->since);
}

/* What the host chooses. */
static zqb__worker_t *zqb__service_ask_host (const zqb__engine_t *engine, const zqb__service_t *service)
{
    zqb_worker_info_t infos[ZQB__CHOICE];
    zqb__worker_t *workers[ZQB__CHOICE];
    size_t count = 0;
    zqb__worker_t *at = NULL;
    for (; count < ZQB__CHOICE && (at = zqb__service_next_ready (service, at)) != NULL; count++) {
        zqb__worker_info (engine, at, &infos[count]);
        workers[count] = at;
    }
    size_t chosen = engine->sink.choose (engine->sink.self, service, infos, count);
    return workers[chosen < count ? chosen : 0];
}

/* Which worker gets the next request: the first in the order in which zqb__worker_place keeps them, unless the host
   chooses itself. NULL: none has room, or all wait. */
static inline zqb__worker_t *zqb__service_choose (const zqb__engine_t *engine, const zqb__service_t *service)
{
    if (!service->ready_mask || engine->paused)
        return NULL;
    if (service->policy == ZQB_POLICY_CUSTOM)
        return zqb__service_ask_host (engine, service);
    int level = 0;
    while (!(service->ready_mask >> level & 1))
        level++;
    return ZQB__OF (zqb__worker_t, ready, service->ready[level].next);
}

/* The request whose turn it is in a rank. */
static zqb__request_t *zqb__service_turn (const zqb__service_t *service, int rank)
{
    const zqb__lane_t *lane = ZQB__OF (zqb__lane_t, turn, service->turns[rank].next);
    return ZQB__OF (zqb__request_t, of_lane, lane->queued);
}

/* Which of the queued requests is the next: of the highest rank. A request rises by one for each time of ageing. */
static zqb__request_t *zqb__service_first (const zqb__engine_t *engine, const zqb__service_t *service)
{
    zqb__request_t *first = NULL;
    uint64_t highest = 0;
    if (service->turn_mask == 1u << ZQB__RANK_NORMAL)
        return zqb__service_turn (service, ZQB__RANK_NORMAL);
    for (int rank = ZQB__RANKS; rank-- > 0;) {
        if (!(service->turn_mask >> rank & 1))
            continue;
        zqb__request_t *request = zqb__service_turn (service, rank);
        uint64_t waited = engine->limits.ageing == UINT64_MAX ? 0 : engine->now - request->arrived;
        uint64_t height = (uint64_t) rank + waited / engine->limits.ageing;
        if (!first || height > highest) {
            first = request;
            highest = height;
        }
    }
    return first;
}

/* ---- workers */

static int zqb__level_of_load (uint32_t load)
{
    int level = (int) load;
    if (load < ZQB__LEVELS_EXACT)
        return level;
    for (level = ZQB__LEVELS_EXACT; load >= 2 * ZQB__LEVELS_EXACT && level < ZQB__LEVELS - 1; level++)
        load /= 2;
    return level;
}

/* Where a worker stands in the order of choice, by the policy of its service. */
static int zqb__worker_level (const zqb__worker_t *worker)
{
    switch (worker->service->policy) {
        case ZQB_POLICY_LEAST: return (int) ((uint64_t) worker->load * ZQB__LEVELS / worker->credit);
        case ZQB_POLICY_ROUND_ROBIN: return 0;
        default: return zqb__level_of_load (worker->load);
    }
}

static void zqb__worker_unplace (zqb__worker_t *worker)
{
    zqb__service_t *service = worker->service;
    zqb__list_remove (&worker->ready);
    if (zqb__list_empty (&service->ready[worker->level]))
        service->ready_mask &= ~(1u << worker->level);
}

/* A worker that has nothing always has room for one, unless it rests. Large requests fill a hand before many do: those
   behind them would wait for the network. */
static int zqb__worker_has_room (const zqb__worker_t *worker)
{
    if (worker->load >= worker->credit || worker->resting)
        return 0;
    return worker->load == 0 || (worker->bytes < ZQB__HAND_BYTES && !worker->probation);
}

/* Puts a worker where its load says: behind those that were on that level before (MRU: in front of them), or, if it was
   one of them, where it was. One without room is in no list. */
static void zqb__worker_place (zqb__worker_t *worker)
{
    zqb__service_t *service = worker->service;
    if (!zqb__worker_has_room (worker)) {
        zqb__worker_unplace (worker);
        return;
    }
    int level = zqb__worker_level (worker);
    if (level == worker->level && !zqb__list_empty (&worker->ready))
        return;
    zqb__worker_unplace (worker);
    worker->level = level;
    zqb__link_t *others = &service->ready[level];
    zqb__list_insert (service->policy == ZQB_POLICY_MRU ? others->next : others, &worker->ready);
    service->ready_mask |= 1u << level;
}

/* It was given a request. */
static void zqb__worker_had_turn (zqb__worker_t *worker)
{
    if (worker->service->policy == ZQB_POLICY_ROUND_ROBIN)
        zqb__worker_unplace (worker);
    zqb__worker_place (worker);
}

/* How many requests a worker may hold follows from its pace: what waits in its hand is to be worth no more than the
   option says. The pace is that of the last four hands, or of a millisecond of work: a single message, with the time
   that it was on its way, says little. The credit grows step by step, as little work hides how fast a worker is, and
   shrinks at once. */
static void zqb__worker_adapt (const zqb__engine_t *engine, zqb__worker_t *worker)
{
    uint64_t span = engine->limits.credit < ZQB__PACE_NS ? engine->limits.credit : ZQB__PACE_NS;
    if (!worker->adapts || !worker->credit || !worker->done
        || (worker->done < 4 * (uint64_t) worker->credit && worker->busy * 1000 < span))
        return;
    uint64_t pace = worker->busy * 1000 / worker->done;
    uint64_t worth = engine->limits.credit / (pace ? pace : 1);
    uint64_t step = 2 * (uint64_t) worker->credit;
    uint64_t credit = worth < step ? worth : step;
    worker->credit = credit < 1 ? 1 : credit < ZQB__CREDIT_MOST ? (uint32_t) credit : (uint32_t) ZQB__CREDIT_MOST;
    worker->busy = worker->done = 0;
}

/* Another request is done. Those that are done at the same time came together, and took the time since the last. */
static void zqb__worker_count_done (const zqb__engine_t *engine, zqb__worker_t *worker)
{
    worker->served++;
    if (worker->since != engine->now) {
        zqb__worker_adapt (engine, worker);
        worker->busy += engine->now - worker->since;
        worker->since = engine->now;
    }
    worker->done++;
}

static void zqb__worker_set_timer (zqb__engine_t *engine, zqb__worker_t *worker);

/* An idle worker gets something to do: its time runs from now. */
static void zqb__worker_begin (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__worker_adapt (engine, worker);
    worker->since = engine->now;
    if (worker->service->limit != UINT64_MAX)
        zqb__worker_set_timer (engine, worker);
}

/* It gets no more requests. */
static void zqb__worker_retire (zqb__worker_t *worker)
{
    worker->credit = 0;
    zqb__worker_place (worker);
}

static int zqb__worker_has_heartbeats (const zqb__worker_t *worker)
{
    return zqb__dialects[worker->peer->dialect[ZQB__WORKER]].heartbeats;
}

/* A time at which a worker should have done something: if that is over, it may be that what it sent is not all read. */
static uint64_t zqb__look_again_at (const zqb__engine_t *engine, uint64_t at)
{
    return at > engine->now ? at : zqb__after (engine->now, ZQB__SILENCE_AGAIN_US);
}

/* When a worker must be looked at again: to send it a heartbeat, or to see whether it fell silent, or hangs. */
static void zqb__worker_set_timer (zqb__engine_t *engine, zqb__worker_t *worker)
{
    uint64_t at = UINT64_MAX;
    if (zqb__worker_has_heartbeats (worker)) {
        uint64_t beat = zqb__after (worker->told, worker->beat);
        uint64_t silent = zqb__look_again_at (engine, zqb__after (worker->heard, worker->expiry));
        if (beat <= engine->now)
            beat = zqb__after (engine->now, worker->beat);
        at = worker->load || silent > beat ? beat : silent;
    }
    uint64_t hangs = zqb__look_again_at (engine, zqb__after (worker->since, worker->service->limit));
    if (worker->load && hangs < at)
        at = hangs;
    if (worker->resting && worker->rested < at)
        at = worker->rested;
    if (at != UINT64_MAX)
        zqb__heap_set (&engine->timers, &worker->timer, at);
}

/* What a worker has said of its heartbeats: it hears from us as often as it wants to, and may be silent for longer than
   others if it speaks less often. */
static void zqb__worker_set_beat (const zqb__limits_t *limits, zqb__worker_t *worker, uint32_t heartbeat_ms)
{
    uint64_t own = (uint64_t) heartbeat_ms * 1000u;
    worker->beat = limits->heartbeat;
    worker->expiry = limits->expiry;
    if (heartbeat_ms == ZQB__BEAT_UNKNOWN)
        return;
    if (heartbeat_ms == 0) {
        worker->expiry = UINT64_MAX;
        return;
    }
    if (own < worker->beat)
        worker->beat = own;
    if (limits->expiry != UINT64_MAX && own > limits->heartbeat)
        worker->expiry = zqb__times (own, limits->expiry / limits->heartbeat);
}

static zqb__worker_t *zqb__worker_new (zqb__engine_t *engine, zqb__peer_t *peer, zqb__service_t *service,
                                       const zqb__command_t *ready)
{
    uint32_t credit = peer->dialect[ZQB__WORKER] == ZQB__ZQB1 ? ready->credit : 1;
    if (zqb__engine_reserve_timer (engine) != 0)
        return NULL;
    zqb__worker_t *worker = (zqb__worker_t *) zqb__alloc (sizeof *worker);
    if (!worker)
        return NULL;
    worker->number = ++engine->worker_number;
    worker->peer = peer;
    worker->service = service;
    worker->credit = credit ? credit : 1;
    worker->adapts = credit == 0 && engine->limits.credit != 0;
    worker->heard = worker->told = worker->since = engine->now;
    zqb__worker_set_beat (&engine->limits, worker, ready->heartbeat_ms);
    worker->timer.kind = ZQB__TIMER_WORKER;
    zqb__list_init (&worker->hand);
    zqb__list_init (&worker->ready);
    zqb__list_init (&worker->denied);
    for (int i = 0; i < ZQB__RANKS; i++)
        zqb__list_init (&worker->pins[i]);
    zqb__list_append (&service->workers, &worker->of_service);
    peer->worker = worker;
    service->worker_count++;
    engine->stats.workers++;
    zqb__peer_quota (peer, NULL)->workers++;
    zqb__heap_remove (&engine->timers, &service->timer);
    zqb__worker_set_timer (engine, worker);
    zqb__worker_place (worker);
    return worker;
}

/* ---- numbers: the requests of a ZQB/1 client are found by their numbers only once it has asked for one, to try it
   again or to cancel it, and as long as it has any */

static uint64_t zqb__id_hash (const zqb__engine_t *engine, const zqb__peer_t *client, uint64_t id)
{
    uint64_t words[2];
    words[0] = (uint64_t) (uintptr_t) client;
    words[1] = id;
    return zqb__hash (engine->key, words, sizeof words);
}

/* What few requests need. NULL and ENOMEM. */
static zqb__extra_t *zqb__request_extra (zqb__request_t *request)
{
    if (request->extra)
        return request->extra;
    zqb__extra_t *extra = (zqb__extra_t *) zqb__alloc (sizeof *extra);
    if (!extra)
        return NULL;
    extra->request = request;
    extra->accepted = request->arrived;
    extra->timer.kind = ZQB__TIMER_REQUEST;
    extra->ends = UINT64_MAX;
    extra->slot = -1;
    zqb__list_init (&extra->followers);
    zqb__list_init (&extra->of_hasty);
    zqb__list_init (&extra->of_survey);
    zqb__list_init (&extra->asked);
    return request->extra = extra;
}

/* Not if nobody will ever ask for it by its number. -1 and ENOMEM. */
static int zqb__request_number (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__extra_t *extra = zqb__request_extra (request);
    if (!extra)
        return -1;
    if (extra->survey || extra->flags & ZQB__ONE_WAY)
        return 0;
    if (!extra->numbered)
        zqb__table_insert (&engine->ids, &extra->by_id, zqb__id_hash (engine, request->lane->client, request->id));
    extra->numbered = 1;
    return 0;
}

static void zqb__request_unnumber (zqb__engine_t *engine, zqb__request_t *request)
{
    if (!request->extra || !request->extra->numbered)
        return;
    zqb__table_remove (&engine->ids, &request->extra->by_id);
    request->extra->numbered = 0;
}

static int zqb__lane_number (zqb__engine_t *engine, zqb__lane_t *lane)
{
    for (zqb__link_t *at = lane->requests.next; at != &lane->requests; at = at->next)
        if (zqb__request_number (engine, ZQB__OF (zqb__request_t, of_lane, at)) != 0)
            return -1;
    return 0;
}

/* Makes the requests of a client known by their numbers. -1: ENOMEM, some are not; counted. */
static int zqb__client_number (zqb__engine_t *engine, zqb__peer_t *client)
{
    zqb__link_t *lanes = &client->lanes;
    if (client->numbered)
        return 0;
    for (zqb__link_t *at = lanes->next; at != lanes; at = at->next)
        if (zqb__lane_number (engine, ZQB__OF (zqb__lane_t, of_client, at)) != 0) {
            engine->stats.no_memory++;
            return -1;
        }
    client->numbered = 1;
    return 0;
}

/* The request that a ZQB/1 client numbers so, or NULL. */
static zqb__request_t *zqb__request_find (zqb__engine_t *engine, zqb__peer_t *client, uint64_t id)
{
    uint64_t hash = zqb__id_hash (engine, client, id);
    for (zqb__node_t *node = zqb__table_first (&engine->ids, hash); node; node = zqb__table_next (node)) {
        zqb__request_t *request = ZQB__OF (zqb__extra_t, by_id, node)->request;
        if (request->lane->client == client && request->id == id)
            return request;
    }
    return NULL;
}

static unsigned zqb__request_flags (const zqb__request_t *request)
{
    return request->extra ? (unsigned) request->extra->flags : 0;
}

/* Where it is, if it does not run. */
static int zqb__request_aside (const zqb__request_t *request)
{
    return request->extra ? request->extra->aside : (int) ZQB__QUEUED;
}

/* What of a request is counted for its client, and for its user: if the latter is limited, each request has an extra.
   */
static ZQB__SELDOM void zqb__request_count (const zqb__engine_t *engine, const zqb__request_t *request,
                                            zqb__peer_t *client, int more)
{
    if (request->extra->flags & ZQB__ONE_WAY)
        client->one_way += more;
    if (engine->limits.user_outstanding)
        zqb__peer_quota (client, request->extra->user)->outstanding += (uint64_t) (int64_t) more;
}

/* It is this client's from now on, for this service. */
static inline void zqb__request_attach (zqb__engine_t *engine, zqb__request_t *request, zqb__lane_t *lane)
{
    request->lane = lane;
    if (lane->client->outstanding++ == 0)
        engine->stats.clients++;
    if (request->extra)
        zqb__request_count (engine, request, lane->client, 1);
}

/* A request has left a lane, and is its client's no more. */
static inline void zqb__lane_left (zqb__engine_t *engine, zqb__lane_t *lane, const zqb__request_t *request)
{
    zqb__peer_t *client = lane->client;
    zqb__lane_rest (engine, lane);
    if (request->extra)
        zqb__request_count (engine, request, client, -1);
    if (--client->outstanding == 0) {
        client->numbered = 0;
        engine->stats.clients--;
    }
    zqb__peer_rest (engine, client);
}

/* Nobody waits for it any more. */
static void zqb__request_detach (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__lane_t *lane = request->lane;
    if (!lane)
        return;
    zqb__request_unnumber (engine, request);
    zqb__list_remove (&request->of_lane);
    request->lane = NULL;
    zqb__lane_left (engine, lane, request);
}

/* It is no longer found by its unique key. */
static void zqb__request_forget_unique (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__extra_t *extra = request->extra;
    if (!extra || !extra->unique)
        return;
    zqb__table_remove (&engine->uniques, &extra->by_unique);
    ZQB_FREE (extra->unique);
    extra->unique = NULL;
}

/* What few requests have is freed with them. */
static void zqb__extra_free (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__extra_t *extra = request->extra;
    if (!extra)
        return;
    zqb__request_forget_unique (engine, request);
    zqb__heap_remove (&engine->timers, &extra->timer);
    engine->timed -= (size_t) extra->timed;
    zqb__list_remove (&extra->of_survey);
    zqb__user_release (engine, extra->user);
    ZQB_FREE (extra->name);
    ZQB_FREE (extra);
    request->extra = NULL;
}

static void zqb__request_drop_gathered (zqb__engine_t *engine, zqb__request_t *request)
{
    if (!request->extra)
        return;
    zqb__parcel_t *gathered = &request->extra->gathered;
    engine->stats.bytes -= gathered->bytes.size + gathered->large_bytes;
    zqb__parcel_close (gathered);
}

static void zqb__request_free (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__request_detach (engine, request);
    engine->stats.bytes -= zqb__stored_bytes (&request->body);
    zqb__request_drop_gathered (engine, request);
    if (request->extra)
        zqb__extra_free (engine, request);
    zqb__stored_close (&request->body);
    zqb__slab_free (&engine->requests, &request->slot);
}

/* How many it is for the counters of those that are aside. */
static void zqb__request_count_aside (zqb__engine_t *engine, const zqb__request_t *request, int more)
{
    zqb__service_t *service = request->lane->service;
    uint64_t one = (uint64_t) (int64_t) more;
    switch (request->extra->aside) {
        case ZQB__DELAYED:
            engine->stats.delayed += one;
            service->delayed_count += more;
            break;
        case ZQB__PINNED: service->pinned += more; break;
        case ZQB__FOLLOWING:
            engine->stats.following += one;
            if (request->extra->leader)
                request->extra->leader->extra->joined[request->lane->rank] += more;
            break;
        default: break;
    }
    engine->stats.queued += one;
}

/* From nowhere, aside: in front of this one of the same kind, or at the end of their list; NULL: there is none. */
static void zqb__request_set_aside (zqb__engine_t *engine, zqb__request_t *request, int aside, zqb__link_t *list)
{
    zqb__list_init (&request->place);
    if (list)
        zqb__list_append (list, &request->place);
    request->extra->aside = aside;
    zqb__request_count_aside (engine, request, 1);
}

static void zqb__worker_forget_pin (zqb__worker_t *worker, int rank)
{
    if (zqb__list_empty (&worker->pins[rank]))
        worker->pin_mask &= ~(1u << rank);
}

/* It waits for a worker that has no room for it: as the first, or behind the others. */
static void zqb__request_pin (zqb__engine_t *engine, zqb__request_t *request, zqb__worker_t *worker, int first)
{
    int rank = request->lane->rank;
    zqb__link_t *pins = &worker->pins[rank];
    request->extra->pin = worker;
    worker->pin_mask |= 1u << rank;
    zqb__request_set_aside (engine, request, ZQB__PINNED, first ? pins->next : pins);
}

/* Out of whatever it is in but a queue or a hand. */
static void zqb__request_take_from_aside (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__request_count_aside (engine, request, -1);
    if (request->extra->aside == ZQB__PINNED)
        zqb__worker_forget_pin (request->extra->pin, request->lane->rank);
    request->extra->pin = NULL;
    request->extra->aside = ZQB__QUEUED;
}

/* Out of its worker's hand, out of its queue, or from where it is aside. */
static void zqb__request_take_out (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__list_remove (&request->place);
    if (request->worker) {
        request->worker->bytes -= zqb__stored_bytes (&request->body);
        request->worker->load--;
        request->worker->service->running--;
        engine->stats.running--;
        request->worker = NULL;
    } else if (zqb__request_aside (request) != ZQB__QUEUED)
        zqb__request_take_from_aside (engine, request);
    else {
        zqb__lane_unqueue (request->lane, &request->of_lane);
        request->lane->service->queued--;
        if (request->extra)
            zqb__list_remove (&request->extra->of_hasty);
        engine->stats.queued--;
    }
}

/* Into the queue: as the first of all, or behind the others. */
static void zqb__request_enqueue (zqb__engine_t *engine, zqb__request_t *request, int first)
{
    zqb__service_t *service = request->lane->service;
    zqb__list_insert (first ? service->queue.next : &service->queue, &request->place);
    zqb__lane_queue (request->lane, &request->of_lane, first);
    service->queued++;
    if (zqb__request_flags (request) & ZQB__FAIL_FAST)
        zqb__list_insert (first ? service->hasty.next : &service->hasty, &request->extra->of_hasty);
    engine->stats.queued++;
}

/* Sets the timer of a timed request for what comes first: its deadline, or, if it is delayed, its time to begin. */
static void zqb__request_set_timer (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__extra_t *extra = request->extra;
    uint64_t at = extra->ends;
    if (!request->worker && extra->aside == ZQB__DELAYED && extra->begins < at)
        at = extra->begins;
    if (at == UINT64_MAX)
        zqb__heap_remove (&engine->timers, &extra->timer);
    else
        zqb__heap_set (&engine->timers, &extra->timer, at);
}

/* It is not to be begun before that time. Its timer is reserved. */
static void zqb__request_delay (zqb__engine_t *engine, zqb__request_t *request, uint64_t begins)
{
    request->extra->begins = begins;
    zqb__request_set_aside (engine, request, ZQB__DELAYED, &request->lane->service->delayed);
    zqb__request_set_timer (engine, request);
}

/* Whose it is; NULL nobody's. It is its client's. */
static const zqb__user_t *zqb__request_user (const zqb__request_t *request)
{
    const zqb__extra_t *extra = request->extra;
    return extra && extra->user ? extra->user : request->lane->client->user;
}

/* The name by which the client called the service. */
static void zqb__request_name (const zqb__request_t *request, zqb__command_t *command)
{
    const zqb__extra_t *extra = request->extra;
    const zqb__service_t *service = request->lane->service;
    int own = extra && extra->name;
    command->service = (const unsigned char *) (own ? extra->name : service->name);
    command->service_size = own ? extra->name_size : service->name_size;
}

/* Tells the client something about its request. */
static int zqb__request_answer (zqb__engine_t *engine, zqb__request_t *request, zqb__command_t *answer)
{
    answer->id = request->id;
    zqb__request_name (request, answer);
    return zqb__engine_send (engine, request->lane->client, ZQB__CLIENT, answer);
}

/* What its client hears of the end of a request: nothing, if it wants no answer; of one that a survey asks for, the
   reply as a part of what is gathered. -1: the client is gone. */
static int zqb__request_tell (zqb__engine_t *engine, zqb__request_t *request, zqb__command_t *answer)
{
    const zqb__extra_t *extra = request->extra;
    if (extra && extra->flags & ZQB__ONE_WAY)
        return 0;
    if (extra && extra->survey) {
        if (answer->type != ZQB__REPLY)
            return 0;
        answer->type = ZQB__PARTIAL;
        extra->survey->extra->answered++;
    }
    return zqb__request_answer (engine, request, answer);
}

/* Tells the host, who wants to know, what became of a request that a client still has. error: 0 replied. */
static void zqb__request_report (zqb__engine_t *engine, const zqb__request_t *request, int error)
{
    zqb__command_t name = zqb__command (ZQB__REQUEST, 0);
    zqb_outcome_t outcome;
    if (!request->lane)
        return;
    zqb__request_name (request, &name);
    outcome.service = (const char *) name.service;
    outcome.service_size = name.service_size;
    outcome.error = error;
    outcome.attempts = (int) request->attempts;
    outcome.took_us = (int64_t) (engine->now - (request->extra ? request->extra->accepted : request->arrived));
    engine->sink.outcome (engine->sink.self, &outcome);
}

static int zqb__fate_error (int fate)
{
    return fate == ZQB__CANCELLED ? (int) ZQB_ECANCELLED : fate == ZQB__EXPIRED ? (int) ZQB_EEXPIRED : EHOSTUNREACH;
}

static uint64_t *zqb__fate_counter (zqb__engine_t *engine, int fate)
{
    zqb_stats_t *stats = &engine->stats;
    return fate == ZQB__CANCELLED ? &stats->cancelled : fate == ZQB__EXPIRED ? &stats->expired : &stats->client_gone;
}

/* The end of one that is in nobody's hand: the client hears of it, the outcome is counted, it is freed. */
static void zqb__request_close (zqb__engine_t *engine, zqb__request_t *request, zqb__command_t *answer,
                                uint64_t *outcome)
{
    int error = answer->type == ZQB__ERROR ? ZQB_ERRNO + answer->status : 0;
    if (!request->fate && zqb__request_tell (engine, request, answer) != 0)
        request->fate = ZQB__CLIENT_GONE;
    ++*(request->fate ? zqb__fate_counter (engine, request->fate) : outcome);
    if (engine->sink.outcome)
        zqb__request_report (engine, request, request->fate ? zqb__fate_error (request->fate) : error);
    zqb__request_free (engine, request);
}

static void zqb__survey_settle (zqb__engine_t *engine, zqb__request_t *survey);

/* The same, with all that have joined it, and with the survey that it belongs to. */
static void zqb__request_end (zqb__engine_t *engine, zqb__request_t *request, zqb__command_t *answer, uint64_t *outcome)
{
    zqb__link_t followers;
    if (!request->extra) {
        zqb__request_close (engine, request, answer, outcome);
        return;
    }
    zqb__request_t *survey = request->extra->survey;
    unsigned attempts = request->attempts;
    zqb__list_init (&followers);
    zqb__list_move (&followers, &request->extra->followers);
    zqb__request_close (engine, request, answer, outcome);
    while (!zqb__list_empty (&followers)) {
        zqb__request_t *follower = ZQB__OF (zqb__request_t, place, followers.next);
        follower->extra->leader = NULL;
        zqb__request_take_out (engine, follower);
        follower->attempts = attempts & 0x3fffffffu; /* which were for all of them */
        zqb__request_close (engine, follower, answer, outcome);
    }
    if (survey)
        zqb__survey_settle (engine, survey);
}

static void zqb__request_end_with (zqb__engine_t *engine, zqb__request_t *request, int error, uint64_t *outcome)
{
    zqb__command_t answer = zqb__command (ZQB__ERROR, 0);
    answer.status = error - ZQB_ERRNO;
    zqb__request_end (engine, request, &answer, outcome);
}

/* The end of a survey, when nobody is asked any more: how many answered. */
static void zqb__survey_end (zqb__engine_t *engine, zqb__request_t *survey)
{
    zqb__command_t answer = zqb__command (ZQB__REPLY, 0);
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.done = (uint64_t) survey->extra->answered;
    rare.total = (uint64_t) survey->extra->asked_count;
    rare.has_progress = 1;
    answer.rare = &rare;
    zqb__request_take_out (engine, survey);
    zqb__request_end (engine, survey, &answer, &engine->stats.replied);
}

static void zqb__survey_settle (zqb__engine_t *engine, zqb__request_t *survey)
{
    if (survey->extra->aside == ZQB__SURVEYING && zqb__list_empty (&survey->extra->asked))
        zqb__survey_end (engine, survey);
}

/* The request as the command that it came with. */
static zqb__command_t zqb__request_command (const zqb__request_t *request)
{
    zqb__command_t command = zqb__command (ZQB__REQUEST, request->id);
    zqb__request_name (request, &command);
    command.body = zqb__stored_body (&request->body);
    return command;
}

/* Too many workers were lost over it. */
static void zqb__request_die (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__command_t command = zqb__request_command (request);
    engine->asks = zqb__request_user (request);
    engine->stats.running++; /* as long as it is nothing else */
    engine->sink.dead (engine->sink.self, &command);
    engine->stats.running--;
    zqb__request_end_with (engine, request, ZQB_ELOST, &engine->stats.dead);
}

static int zqb__request_is_worn_out (const zqb__engine_t *engine, const zqb__request_t *request)
{
    uint32_t own = request->extra ? request->extra->attempts : 0;
    return request->attempts >= (own ? own : (uint32_t) engine->limits.attempts);
}

/* The pause behind its last attempt: twice as long as that behind the one before. */
static uint64_t zqb__request_pause (const zqb__request_t *request)
{
    const zqb__extra_t *extra = request->extra;
    if (!extra || !extra->backoff || !request->attempts)
        return 0;
    uint64_t pause = extra->backoff;
    for (unsigned i = 1; i < request->attempts && pause < extra->backoff_most; i++)
        pause *= 2;
    return pause < extra->backoff_most ? pause : extra->backoff_most;
}

static void zqb__request_rise (zqb__engine_t *engine, zqb__request_t *request);

/* Its worker will not do it: back to the head of the queue, or there after a while. */
static void zqb__request_retry (zqb__engine_t *engine, zqb__request_t *request)
{
    uint64_t pause = zqb__request_pause (request);
    engine->stats.requeued++;
    zqb__request_rise (engine, request);
    if (pause)
        zqb__request_delay (engine, request, engine->now + pause);
    else
        zqb__request_enqueue (engine, request, 1);
}

/* A request that a survey has for one worker does not go to another. */
static int zqb__request_is_for_one (const zqb__request_t *request)
{
    return request->extra && request->extra->survey;
}

/* Its worker is lost: back to the queue, unless nobody wants it, or too many were lost over it. */
static void zqb__request_give_back (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__request_take_out (engine, request);
    zqb__request_drop_gathered (engine, request);
    zqb__slot_renew (&request->slot);
    if (!request->lane || engine->ending)
        zqb__request_end_with (engine, request, ZQB_ECANCELLED, &engine->stats.cancelled);
    else if (zqb__request_is_for_one (request))
        zqb__request_end_with (engine, request, ZQB_ELOST, &engine->stats.failed);
    else if (zqb__request_is_worn_out (engine, request))
        zqb__request_die (engine, request);
    else
        zqb__request_retry (engine, request);
}

/* Into the hand of a worker. */
static void zqb__request_hand_over (zqb__engine_t *engine, zqb__request_t *request, zqb__worker_t *worker)
{
    zqb__list_append (&worker->hand, &request->place);
    request->worker = worker;
    worker->service->running++;
    engine->stats.running++;
    if (worker->load++ == 0)
        zqb__worker_begin (engine, worker);
    worker->bytes += zqb__stored_bytes (&request->body);
    zqb__worker_had_turn (worker);
}

/* Whether its client says MORE when it has read parts of the reply. */
static int zqb__request_has_window (const zqb__request_t *request)
{
    return request->lane->client->dialect[ZQB__CLIENT] == ZQB__ZQB1
           && !(request->extra && (request->extra->survey || request->extra->flags & ZQB__ONE_WAY));
}

/* Its worker is to know whose it is. */
static void zqb__request_brief_user (const zqb__request_t *request, zqb__command_t *command, zqb__rare_t *rare)
{
    const zqb__user_t *user = zqb__request_user (request);
    if (!user)
        return;
    memset (rare, 0, sizeof *rare);
    command->rare = rare;
    rare->user = (const unsigned char *) user->name;
    rare->user_size = user->name_size < 255 ? user->name_size : 255;
}

/* What its worker is to know of a request that is not like all others. */
static void zqb__request_brief (const zqb__engine_t *engine, const zqb__request_t *request, zqb__command_t *command,
                                zqb__rare_t *rare)
{
    const zqb__extra_t *extra = request->extra;
    zqb__request_brief_user (request, command, rare);
    if (!extra)
        return;
    uint64_t ends = extra->survey ? extra->survey->extra->ends : extra->ends;
    if (extra->name)
        zqb__request_name (request, command);
    if (ends == UINT64_MAX)
        return;
    if (!command->rare)
        memset (rare, 0, sizeof *rare);
    uint64_t left = ends > engine->now ? ends - engine->now : 0;
    rare->deadline_ms = left ? (uint32_t) ((left + 999) / 1000) : 1; /* no worker thinks that it is over before we do */
    command->rare = rare;
}

/* Gives a request that is in nobody's hand to a worker. -1: that cannot be reached, and gets no more; the request is in
   nobody's hand. */
static int zqb__worker_assign (zqb__engine_t *engine, zqb__worker_t *worker, zqb__request_t *request)
{
    zqb__command_t command = zqb__command (ZQB__REQUEST, zqb__slot_renew (&request->slot));
    const zqb__peer_t *client = request->lane->client;
    zqb__rare_t rare;
    command.body = zqb__stored_body (&request->body);
    command.flags = zqb__request_has_window (request) ? (int) ZQB__WINDOW : 0;
    if (request->extra || client->user)
        zqb__request_brief (engine, request, &command, &rare);
    zqb__request_hand_over (engine, request, worker);
    if (zqb__engine_send (engine, worker->peer, ZQB__WORKER, &command) == 0) {
        request->attempts++;
        return 0;
    }
    zqb__request_take_out (engine, request);
    return -1;
}

/* ---- requests that are for some workers only: by their affinity, or as others have refused them */

/* The worker that has a slot: from when it is first asked for, until it goes. NULL: no memory to remember it. */
static zqb__worker_t *zqb__service_slot (zqb__service_t *service, int slot)
{
    if (!service->slots)
        service->slots = (zqb__worker_t **) zqb__alloc (ZQB__SLOTS * sizeof *service->slots);
    if (!service->slots || service->slots[slot])
        return service->slots ? service->slots[slot] : NULL;
    zqb__worker_t *least = NULL;
    for (zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next) {
        zqb__worker_t *worker = ZQB__OF (zqb__worker_t, of_service, at);
        if (worker->credit && (!least || worker->slots < least->slots))
            least = worker;
    }
    if (least)
        least->slots++;
    return service->slots[slot] = least;
}

static void zqb__worker_free_slots (zqb__worker_t *worker)
{
    for (int i = 0; worker->slots && i < ZQB__SLOTS; i++)
        if (worker->service->slots[i] == worker) {
            worker->service->slots[i] = NULL;
            worker->slots--;
        }
}

static int zqb__request_refused_by (const zqb__request_t *request, const zqb__worker_t *worker)
{
    for (int i = 0; i < request->extra->refusals; i++)
        if (request->extra->refused[i] == worker->number)
            return 1;
    return 0;
}

/* The first with room that has not refused a request, in the order of choice; or NULL. */
static zqb__worker_t *zqb__service_other_ready (const zqb__service_t *service, const zqb__request_t *request)
{
    zqb__worker_t *worker = zqb__service_next_ready (service, NULL);
    while (worker && zqb__request_refused_by (request, worker))
        worker = zqb__service_next_ready (service, worker);
    return worker;
}

/* The next that takes requests and has not refused this one, in the order of registration, behind this place; or NULL.
   */
static zqb__worker_t *zqb__service_other (zqb__service_t *service, const zqb__request_t *request, zqb__link_t *behind)
{
    for (zqb__link_t *at = behind->next; at != behind; at = at->next) {
        zqb__worker_t *worker = at == &service->workers ? NULL : ZQB__OF (zqb__worker_t, of_service, at);
        if (worker && worker->credit && !zqb__request_refused_by (request, worker))
            return worker;
    }
    return NULL;
}

/* Which worker a request gets, whose turn it was, and for whom this one was chosen. NULL: it waits for another. */
static zqb__worker_t *zqb__request_worker (zqb__engine_t *engine, zqb__request_t *request, zqb__worker_t *chosen)
{
    zqb__service_t *service = request->lane->service;
    zqb__worker_t *wanted = NULL;
    if (request->extra->refusals) {
        wanted = zqb__service_other_ready (service, request);
        wanted = wanted ? wanted : zqb__service_other (service, request, &service->workers);
    } else if (request->extra->slot >= 0)
        wanted = zqb__service_slot (service, request->extra->slot);
    if (!wanted || !zqb__list_empty (&wanted->ready))
        return wanted ? wanted : chosen;
    zqb__request_pin (engine, request, wanted, 0);
    return NULL;
}

/* Gives a request, which is in nobody's hand, to the worker that was chosen, or to the one that it must have. */
static void zqb__request_give (zqb__engine_t *engine, zqb__request_t *request, zqb__worker_t *chosen)
{
    zqb__worker_t *worker = request->extra ? zqb__request_worker (engine, request, chosen) : chosen;
    if (worker && zqb__worker_assign (engine, worker, request) != 0)
        zqb__request_enqueue (engine, request, 1);
}

/* A worker has room: what waits for it has its turn, before anything else. */
static void zqb__worker_serve_pins (zqb__engine_t *engine, zqb__worker_t *worker)
{
    while (worker->pin_mask && !engine->paused && zqb__worker_has_room (worker)) {
        int rank = ZQB__RANKS - 1;
        while (!(worker->pin_mask >> rank & 1))
            rank--;
        zqb__request_t *request = ZQB__OF (zqb__request_t, place, worker->pins[rank].next);
        zqb__request_take_out (engine, request);
        if (zqb__worker_assign (engine, worker, request) != 0)
            zqb__request_pin (engine, request, worker, 1);
    }
}

/* What waits for a worker that takes no more goes back to the head of the queue. */
static void zqb__worker_unpin (zqb__engine_t *engine, zqb__worker_t *worker)
{
    for (int rank = 0; rank < ZQB__RANKS; rank++)
        while (!zqb__list_empty (&worker->pins[rank])) {
            zqb__request_t *request = ZQB__OF (zqb__request_t, place, worker->pins[rank].prev);
            zqb__request_take_out (engine, request);
            if (zqb__request_is_for_one (request))
                zqb__request_end_with (engine, request, ZQB_ELOST, &engine->stats.failed);
            else
                zqb__request_enqueue (engine, request, 1);
        }
}

static void zqb__service_serve_pins (zqb__engine_t *engine, zqb__service_t *service)
{
    for (zqb__link_t *at = service->workers.next; service->pinned && at != &service->workers; at = at->next)
        zqb__worker_serve_pins (engine, ZQB__OF (zqb__worker_t, of_service, at));
}

/* Gives queued requests to workers as long as there are both. The service may be gone afterwards. */
static void zqb__service_dispatch (zqb__engine_t *engine, zqb__service_t *service)
{
    zqb__worker_t *worker;
    while (service->queued && (worker = zqb__service_choose (engine, service)) != NULL) {
        zqb__request_t *request = zqb__service_first (engine, service);
        zqb__request_take_out (engine, request);
        zqb__lane_had_turn (request->lane);
        zqb__request_give (engine, request, worker);
    }
    zqb__service_settle (engine, service);
}

/* It has room again, perhaps. */
static void zqb__worker_go_on (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__worker_place (worker);
    if (worker->pin_mask)
        zqb__worker_serve_pins (engine, worker);
}

/* What a worker holds goes back, the oldest to the head. */
static void zqb__worker_take_back (zqb__engine_t *engine, zqb__worker_t *worker)
{
    while (!zqb__list_empty (&worker->hand))
        zqb__request_give_back (engine, ZQB__OF (zqb__request_t, place, worker->hand.prev));
}

static void zqb__service_lost_last (zqb__engine_t *engine, zqb__service_t *service);

/* Takes a worker out, and what it holds back. The service may be gone afterwards. */
static void zqb__worker_remove (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__service_t *service = worker->service;
    worker->credit = 0;
    zqb__worker_unplace (worker);
    zqb__heap_remove (&engine->timers, &worker->timer);
    zqb__list_remove (&worker->of_service);
    worker->peer->worker = NULL;
    worker->peer->requests_out = 0;
    if (--service->worker_count == 0)
        service->alone_since = engine->now;
    engine->stats.workers--;
    zqb__peer_quota (worker->peer, NULL)->workers--;
    zqb__worker_free_slots (worker);
    zqb__worker_unpin (engine, worker);
    zqb__worker_take_back (engine, worker);
    ZQB_FREE (worker);
    if (!service->worker_count)
        zqb__service_lost_last (engine, service);
    zqb__service_dispatch (engine, service);
}

/* ---- requests whose lane changes */

static int zqb__request_is_queued (const zqb__request_t *request)
{
    return !request->worker && zqb__request_aside (request) == ZQB__QUEUED;
}

/* If it waits for a worker, it does so in this rank from now on, behind others. */
static void zqb__request_change_pin (zqb__request_t *request, int rank)
{
    zqb__worker_t *pin = request->extra ? request->extra->pin : NULL;
    if (!pin || rank == request->lane->rank)
        return;
    zqb__list_remove (&request->place);
    zqb__worker_forget_pin (pin, request->lane->rank);
    zqb__list_append (&pin->pins[rank], &request->place);
    pin->pin_mask |= 1u << rank;
}

/* From now on it is in another lane, in which it is not queued. */
static void zqb__request_set_lane (zqb__engine_t *engine, zqb__request_t *request, zqb__lane_t *lane)
{
    zqb__lane_t *before = request->lane;
    zqb__request_unnumber (engine, request);
    zqb__list_remove (&request->of_lane);
    zqb__request_attach (engine, request, lane);
    zqb__lane_keep (lane, &request->of_lane);
    zqb__lane_left (engine, before, request);
}

/* From now on it is in another lane of the same service: of another rank, or of another client. It keeps its place in
   the queue of the service, but is behind the others of that lane. */
static void zqb__request_change_lane (zqb__engine_t *engine, zqb__request_t *request, zqb__lane_t *lane)
{
    int queued = zqb__request_is_queued (request);
    zqb__request_change_pin (request, lane->rank);
    if (queued)
        zqb__lane_unqueue (request->lane, &request->of_lane);
    zqb__request_set_lane (engine, request, lane);
    if (queued)
        zqb__lane_queue (lane, &request->of_lane, 0);
}

/* Finds it by its number again, if its client does that. What this needs is there already, or not needed. */
static void zqb__request_renumber (zqb__engine_t *engine, zqb__request_t *request)
{
    if (request->lane->client->numbered && request->extra)
        zqb__request_number (engine, request);
}

/* The name that its client called it by becomes its own. -1 and ENOMEM. */
static int zqb__request_keep_name (zqb__request_t *request)
{
    const zqb__service_t *service = request->lane->service;
    zqb__extra_t *extra = zqb__request_extra (request);
    if (extra && !extra->name) {
        extra->name = zqb__copy_text (service->name, service->name_size);
        extra->name_size = service->name_size;
    }
    return extra && extra->name ? 0 : -1;
}

/* Another service does it from now on. It is not queued. -1 and ENOMEM: it stays. */
static int zqb__request_change_service (zqb__engine_t *engine, zqb__request_t *request, zqb__service_t *to)
{
    zqb__lane_t *lane = zqb__lane_require (engine, request->lane->client, to, request->lane->rank);
    if (!lane || zqb__request_keep_name (request) != 0) {
        engine->stats.no_memory++;
        return -1;
    }
    zqb__request_set_lane (engine, request, lane);
    zqb__request_renumber (engine, request);
    return 0;
}

/* Those that have joined a request go with it; without memory they end. */
static void zqb__followers_move (zqb__engine_t *engine, zqb__request_t *leader, zqb__service_t *to)
{
    zqb__link_t *followers = &leader->extra->followers;
    for (zqb__link_t *at = followers->next, *next; at != followers; at = next) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, place, at);
        next = at->next;
        if (zqb__request_change_service (engine, request, to) == 0)
            continue;
        zqb__request_take_out (engine, request);
        zqb__request_end_with (engine, request, ZQB_EQUEUEFULL, &engine->stats.failed);
    }
}

static void zqb__request_move_unique (zqb__engine_t *engine, zqb__request_t *request, zqb__service_t *to);

/* A queued request goes to the end of the queue of another service. */
static void zqb__request_move (zqb__engine_t *engine, zqb__request_t *request, zqb__service_t *to)
{
    zqb__request_take_out (engine, request);
    if (zqb__request_change_service (engine, request, to) != 0) {
        zqb__request_enqueue (engine, request, 0);
        return;
    }
    zqb__request_enqueue (engine, request, 0);
    zqb__followers_move (engine, request, to);
    zqb__request_move_unique (engine, request, to);
}

static void zqb__serve_queued (zqb__engine_t *engine, zqb__service_t *service);

/* Whether a service is one of those that may serve a name. */
static int zqb__service_suits (const zqb__service_t *service, const void *name, size_t size)
{
    size_t prefix = service->name_size - 1;
    return zqb__service_is (service, name, size)
           || (service->pattern && size >= prefix && memcmp (service->name, name, prefix) == 0);
}

/* A request that is queued where nobody serves goes to where it is served, if it is, behind the others there; a
   handler, or a worker with room, gets it at once. For lack of memory it stays. 0: nobody serves it. */
static int zqb__request_reroute (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__command_t name = zqb__command (ZQB__REQUEST, 0);
    zqb__request_name (request, &name);
    zqb__service_t *to = zqb__service_route (engine, name.service, name.service_size);
    if (!zqb__service_serves (to))
        return 0;
    zqb__request_move (engine, request, to);
    zqb__serve_queued (engine, to);
    zqb__service_dispatch (engine, to);
    return 1;
}

/* Of a service without workers, those of its requests that are served elsewhere now, as there are patterns, move there,
   in order: only those that this other one may serve, unless it is NULL. All that wait have the same name, but at a
   pattern. */
static void zqb__service_reroute (zqb__engine_t *engine, zqb__service_t *service, const zqb__service_t *other)
{
    zqb__link_t *at = service->queue.next;
    if (!engine->patterns || zqb__service_serves (service))
        return;
    for (int left = service->queued, moves = 1; left > 0 && (moves || service->pattern); left--) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, place, at);
        zqb__command_t name = zqb__command (ZQB__REQUEST, 0);
        at = at->next;
        zqb__request_name (request, &name);
        moves = !other || zqb__service_suits (other, name.service, name.service_size);
        moves = moves && zqb__request_reroute (engine, request);
    }
}

/* A service is served, which it was not: what waits at others may be for it. */
static void zqb__service_got_first (zqb__engine_t *engine, const zqb__service_t *served)
{
    zqb__link_t *services = &engine->all_services;
    for (zqb__link_t *at = services->next, *next; engine->patterns && at != services; at = next) {
        zqb__service_t *service = ZQB__OF (zqb__service_t, all, at);
        next = at->next;
        if (service->queued && !zqb__service_serves (service)) {
            zqb__service_reroute (engine, service, served);
            zqb__service_settle (engine, service);
        }
    }
}

/* What is not to wait for a service without workers ends. */
static void zqb__service_end_hasty (zqb__engine_t *engine, zqb__service_t *service)
{
    while (!zqb__service_serves (service) && !zqb__list_empty (&service->hasty)) {
        zqb__request_t *request = ZQB__OF (zqb__extra_t, of_hasty, service->hasty.next)->request;
        zqb__request_take_out (engine, request);
        zqb__request_end_with (engine, request, ZQB_ENOWORKER, &engine->stats.expired);
    }
}

/* A service has lost its last worker: what can go elsewhere does, and what is not to wait ends. */
static void zqb__service_lost_last (zqb__engine_t *engine, zqb__service_t *service)
{
    zqb__service_reroute (engine, service, NULL);
    zqb__service_end_hasty (engine, service);
}

/* ---- what clients say */

/* Says why a request is not taken, unless no answer is wanted. */
static void zqb__refuse_with (zqb__engine_t *engine, zqb__peer_t *client, const zqb__command_t *request,
                              zqb__command_t *answer, uint64_t *counter)
{
    ++*counter;
    answer->id = request->id;
    zqb__engine_log (engine, ZQB_LOG_DEBUG, "request refused: %s", zqb_strerror (ZQB_ERRNO + answer->status));
    if (!(request->flags & ZQB__ONE_WAY))
        zqb__engine_send (engine, client, ZQB__CLIENT, answer);
}

static void zqb__refuse (zqb__engine_t *engine, zqb__peer_t *client, const zqb__command_t *request, int error,
                         uint64_t *counter)
{
    zqb__command_t answer = zqb__command (ZQB__ERROR, 0);
    answer.status = error - ZQB_ERRNO;
    zqb__refuse_with (engine, client, request, &answer, counter);
}

/* ---- who may do what */

/* Tells a worker, or somebody who thinks that it is one, that it is not registered. error may be 0. */
static void zqb__send_away (zqb__engine_t *engine, zqb__peer_t *peer, int error)
{
    zqb__command_t command = zqb__command (ZQB__DISCONNECT, 0);
    command.status = error ? error - ZQB_ERRNO : 0;
    zqb__engine_send (engine, peer, ZQB__WORKER, &command);
}

/* Whether there may be somebody who may not do everything. */
static int zqb__engine_checks (const zqb__engine_t *engine)
{
    return engine->rules || engine->sink.access || engine->sink.welcome;
}

/* What a request has to pass, if there is anything of that. */
static void zqb__engine_guard (zqb__engine_t *engine)
{
    const zqb__limits_t *limits = &engine->limits;
    int limited = limits->user_outstanding || limits->user_requests || limits->user_bytes || limits->client_requests
                  || limits->client_bytes;
    engine->guarded = engine->sink.filter || limited       ? ZQB__WATCHED
                      : zqb__engine_checks (engine) ? ZQB__RULED
                                                    : ZQB__OPEN;
}

static const char *zqb__user_name (const zqb__user_t *user)
{
    return user ? user->name : "";
}

/* Where a peer is, as far as its connection tells. */
static const char *zqb__peer_place (const zqb__peer_t *peer)
{
    if (peer->local)
        return "inproc";
    return peer->connection && peer->connection->address ? peer->connection->address : "";
}

/* What the host says: 1, 0, or -1: it is for the rules to say. */
static int zqb__ask_host (zqb__engine_t *engine, const zqb__peer_t *peer, const zqb__ask_t *ask)
{
    zqb_access_t access;
    char name[256];
    if (!engine->sink.access)
        return -1;
    memcpy (name, ask->service, ask->service_size);
    name[ask->service_size] = 0;
    access.user = zqb__user_name (peer->user);
    access.address = zqb__peer_place (peer);
    access.action = ask->action;
    access.service = name;
    access.service_size = ask->service_size;
    return engine->sink.access (engine->sink.self, &access);
}

/* all: the name is a pattern, of which all that it stands for are meant. */
static int zqb__peer_may (zqb__engine_t *engine, const zqb__peer_t *peer, int action, const void *name, size_t size,
                          int all)
{
    zqb__ask_t ask;
    if (engine->sink.welcome && !engine->sink.welcome (engine->sink.self, peer))
        return 0;
    ask.user = peer->user ? peer->user->name : NULL;
    ask.user_size = peer->user ? peer->user->name_size : 0;
    ask.local = peer->local;
    ask.action = action;
    ask.service = (const char *) name;
    ask.service_size = size;
    ask.all = all;
    int says = zqb__ask_host (engine, peer, &ask);
    return says >= 0 ? says : !engine->rules || zqb__rules_allow (engine->rules, &ask);
}

static int zqb__worker_may (zqb__engine_t *engine, const zqb__peer_t *peer, const void *name, size_t size)
{
    return zqb__peer_may (engine, peer, ZQB_MAY_SERVE, name, size, ((const char *) name)[size - 1] == '*');
}

/* What is known of a client and a service; NULL: nothing can be remembered, for lack of memory. */
static zqb__grant_t *zqb__peer_grant (zqb__engine_t *engine, zqb__peer_t *client, const zqb__service_t *service)
{
    if (!client->grants)
        client->grants = (zqb__grant_t *) zqb__alloc (ZQB__GRANTS * sizeof *client->grants);
    if (!client->grants)
        return NULL;
    zqb__grant_t *grant = &client->grants[service->number % ZQB__GRANTS];
    if (grant->service != service->number || grant->version != engine->access_version) {
        grant->service = service->number;
        grant->version = engine->access_version;
        grant->actions[0] = grant->actions[1] = 0;
    }
    return grant;
}

/* What is remembered of a service holds for all that it is asked for: so of a pattern that all its names may be. */
static int zqb__client_may_find_out (zqb__engine_t *engine, zqb__peer_t *client, const zqb__service_t *service,
                                     int action, zqb__grant_t *grant)
{
    int all = service->pattern;
    int may = !(all && engine->sink.access)
              && zqb__peer_may (engine, client, action, service->name, service->name_size, all);
    if (grant)
        grant->actions[0] |= action;
    if (grant && may)
        grant->actions[1] |= action;
    return may;
}

/* Whether a client may ask for this. What was found out for a service that is known is remembered. */
static int zqb__client_may (zqb__engine_t *engine, const zqb__service_t *service, zqb__peer_t *client, int action,
                            const void *name, size_t size)
{
    zqb__grant_t *grant = service && service->number ? zqb__peer_grant (engine, client, service) : NULL;
    int known = grant && grant->actions[0] & action;
    int may = known ? grant->actions[1] & action : 0;
    if (service && service->number && !known)
        may = zqb__client_may_find_out (engine, client, service, action, grant);
    if (may || (service && service->number && !service->pattern))
        return may;
    return zqb__peer_may (engine, client, action, name, size, 0);
}

static int zqb__action_of (const zqb__command_t *command)
{
    int manages = command->flags & ZQB__SURVEY || zqb__name_reserved (command->service, command->service_size);
    return manages ? ZQB_MAY_MANAGE : ZQB_MAY_CALL;
}

enum { ZQB__COMPLAIN_US = 1000000 }; /* so often at most the log tells of one user that he was denied something */

/* Tells in the log who was denied what. */
static void zqb__complain (zqb__engine_t *engine, zqb__peer_t *peer, int serving, const void *service, size_t size)
{
    uint64_t *last = &zqb__peer_quota (peer, NULL)->complained[serving];
    const char *user = zqb__user_name (peer->user), *place = zqb__peer_place (peer);
    char name[ZQB__NAME_TEXT], who[ZQB__NAME_TEXT];
    if (*last && engine->now < zqb__after (*last, ZQB__COMPLAIN_US))
        return;
    *last = engine->now;
    size_t user_size = strlen (user) < 64 ? strlen (user) : 64;
    zqb__engine_tell (engine, ZQB_LOG_WARNING, "denied: user '%s' at '%.64s' may not %s '%.700s'",
                      zqb__name_text (user, user_size, who), place, serving ? "serve" : "call",
                      zqb__name_text ((const char *) service, size, name));
}

static void zqb__deny_worker (zqb__engine_t *engine, zqb__peer_t *peer, const void *service, size_t size)
{
    engine->stats.denied_serve++;
    zqb__complain (engine, peer, 1, service, size);
    zqb__send_away (engine, peer, ZQB_EDENIED);
}

/* ---- how much somebody may do */

/* Whether with so many requests more a user has more than he may. */
static int zqb__user_has_too_many (const zqb__engine_t *engine, zqb__peer_t *client, uint64_t more)
{
    uint64_t most = engine->limits.user_outstanding;
    return most && zqb__peer_quota (client, NULL)->outstanding + more > most;
}

/* So many of a rate are used from now on, a second's worth of which may be used at once; paid is when they are paid
   for. */
static void zqb__rate_use (uint64_t *paid, uint64_t now, uint64_t used, uint64_t rate)
{
    uint64_t second = 1000000000u, earliest = now > second ? now - second : 0;
    if (!rate)
        return;
    if (*paid < earliest)
        *paid = earliest;
    uint64_t whole = used / rate, rest = used % rate;
    *paid = zqb__after (*paid, zqb__times (second, whole));
    *paid = zqb__after (*paid, rest < UINT64_MAX / second ? rest * second / rate : second);
}

static int zqb__pace_is_too_fast (const zqb__pace_t *pace, uint64_t now, uint64_t requests, uint64_t bytes)
{
    return (requests && pace->requests > now) || (bytes && pace->bytes > now);
}

static void zqb__pace_use (zqb__pace_t *pace, uint64_t now, const zqb__body_t *body, uint64_t requests, uint64_t bytes)
{
    zqb__rate_use (&pace->requests, now, 1, requests);
    zqb__rate_use (&pace->bytes, now, zqb__body_bytes (body), bytes);
}

/* Why a client, or its user, must not ask for anything now, or for so much: where that counts; or NULL, and it is
   counted. */
static uint64_t *zqb__quota_refusal (zqb__engine_t *engine, zqb__peer_t *client, const zqb__body_t *body)
{
    const zqb__limits_t *limits = &engine->limits;
    zqb__quota_t *quota = zqb__peer_quota (client, NULL);
    uint64_t now = engine->now * 1000u;
    if (zqb__pace_is_too_fast (&client->pace, now, limits->client_requests, limits->client_bytes))
        return &engine->stats.refused_client_rate;
    if (zqb__user_has_too_many (engine, client, 1))
        return &engine->stats.refused_user;
    if (zqb__pace_is_too_fast (&quota->pace, now, limits->user_requests, limits->user_bytes))
        return &engine->stats.refused_rate;
    zqb__pace_use (&client->pace, now, body, limits->client_requests, limits->client_bytes);
    zqb__pace_use (&quota->pace, now, body, limits->user_requests, limits->user_bytes);
    return NULL;
}

/* It need not be asked again. */
static void zqb__client_note_passed (const zqb__engine_t *engine, const zqb__service_t *service, zqb__peer_t *client,
                                     int action)
{
    const zqb__grant_t *grant = client->grants && service ? &client->grants[service->number % ZQB__GRANTS] : NULL;
    if (!grant || grant->service != service->number || !(grant->actions[1] & action & ZQB_MAY_CALL))
        return;
    client->passed = service->number;
    client->passed_version = engine->access_version;
}

static inline int zqb__client_has_passed (const zqb__engine_t *engine, const zqb__service_t *service,
                                          const zqb__peer_t *client, const zqb__command_t *command)
{
    return service && client->passed == service->number && client->passed_version == engine->access_version
           && !(command->flags & ZQB__SURVEY);
}

/* Whether a request is refused, and its client told: as its user may not ask for it, or, if there is nothing else
   against it, as he has asked for enough. */
static int zqb__guards_refuse (zqb__engine_t *engine, const zqb__service_t *service, zqb__peer_t *client,
                               const zqb__command_t *command, int error)
{
    int action = zqb__action_of (command);
    if (zqb__engine_checks (engine)
        && !zqb__client_may (engine, service, client, action, command->service, command->service_size)) {
        zqb__complain (engine, client, 0, command->service, command->service_size);
        zqb__refuse (engine, client, command, ZQB_EDENIED, &engine->stats.denied_call);
        return 1;
    }
    if (engine->guarded == ZQB__RULED) {
        zqb__client_note_passed (engine, service, client, action);
        return 0;
    }
    uint64_t *counter = error ? NULL : zqb__quota_refusal (engine, client, &command->body);
    if (counter)
        zqb__refuse (engine, client, command, ZQB_EQUEUEFULL, counter);
    return counter != NULL;
}

/* ---- room */

static int zqb__service_waiting (const zqb__service_t *service)
{
    return service->queued + service->delayed_count + service->pinned;
}

/* Where it counts that a body is too large; NULL: it is not. */
static uint64_t *zqb__too_large (zqb__engine_t *engine, const zqb__body_t *body)
{
    if (body->frames > engine->limits.frames)
        return &engine->stats.refused_frames;
    return zqb__body_bytes (body) > engine->limits.message ? &engine->stats.refused_large : NULL;
}

/* Whether so many bytes more would be too many for all requests together. */
static int zqb__too_many_bytes (const zqb__engine_t *engine, uint64_t more)
{
    const uint64_t most = engine->limits.bytes, now = engine->stats.bytes;
    return more > most - (now < most ? now : most);
}

/* Why a request cannot be taken: one of ZQB_ERRORS, or 0; counter is then where that is counted. */
static int zqb__refusal (zqb__engine_t *engine, const zqb__peer_t *client, const zqb__body_t *body, uint64_t **counter)
{
    const zqb__limits_t *limits = &engine->limits;
    zqb_stats_t *stats = &engine->stats;
    if ((*counter = zqb__too_large (engine, body)) != NULL)
        return ZQB_EREFUSED;
    if (stats->queued + stats->running >= (uint64_t) limits->requests)
        *counter = &stats->refused_requests;
    else if (client->outstanding >= limits->outstanding)
        *counter = &stats->refused_outstanding;
    else if (client->outstanding == 0 && stats->clients >= (uint64_t) limits->clients)
        *counter = &stats->refused_clients;
    else if (zqb__too_many_bytes (engine, zqb__body_bytes (body)))
        *counter = &stats->refused_bytes;
    return *counter ? ZQB_EQUEUEFULL : 0;
}

/* Whether a request asks for something for which it may have to wait, though a worker has room. */
static int zqb__rare_may_wait (const zqb__rare_t *rare)
{
    return rare && (rare->delay_ms || rare->affinity_size);
}

/* Whether the queue of a service is as long as it may be, and nobody takes the next at once, which asks for this, or
   for nothing: NULL. */
static int zqb__service_is_full (const zqb__engine_t *engine, const zqb__service_t *service, const zqb__rare_t *rare)
{
    int waiting = zqb__service_waiting (service);
    int alone = !service->worker_count && waiting >= engine->limits.no_worker_queue;
    return (alone || waiting >= engine->limits.queue)
           && (!service->ready_mask || engine->paused || zqb__rare_may_wait (rare));
}

static int zqb__rank_of (const zqb__command_t *command)
{
    int priority = command->rare ? command->rare->priority : 0; /* any number: a filter may have set it */
    if (priority < ZQB_PRIORITY_LOWEST)
        return 0;
    return priority < ZQB_PRIORITY_HIGHEST ? priority + ZQB__RANK_NORMAL : ZQB__RANKS - 1;
}

/* When a request is to begin at the earliest. */
static uint64_t zqb__begins (const zqb__engine_t *engine, const zqb__command_t *command)
{
    uint64_t delay = command->rare ? command->rare->delay_ms : 0;
    return delay ? engine->now + delay * 1000u : 0;
}

/* Times of which a timer has to tell: its place is kept for it. -1 and ENOMEM. */
static int zqb__request_wish_times (zqb__engine_t *engine, zqb__extra_t *extra, const zqb__rare_t *rare)
{
    if (!rare->deadline_ms && !rare->delay_ms && !rare->backoff_ms)
        return 0;
    if (zqb__engine_reserve_timer (engine) != 0)
        return -1;
    engine->timed++;
    extra->timed = 1;
    if (rare->deadline_ms)
        extra->ends = engine->now + (uint64_t) rare->deadline_ms * 1000u;
    extra->backoff = (uint64_t) rare->backoff_ms * 1000u;
    extra->backoff_most = (rare->backoff_max_ms ? (uint64_t) rare->backoff_max_ms : 60000u) * 1000u;
    return 0;
}

/* Of a user's key, and of its request's name, as a pattern has many names, and one key may be used with each. */
static uint64_t zqb__unique_hash (const zqb__engine_t *engine, const zqb__service_t *service, const zqb__user_t *user,
                                  const zqb__command_t *command)
{
    uint64_t parts[4];
    parts[0] = zqb__hash (engine->key, command->rare->unique, command->rare->unique_size);
    parts[1] = zqb__hash (engine->key, command->service, command->service_size);
    parts[2] = (uint64_t) (uintptr_t) service;
    parts[3] = (uint64_t) (uintptr_t) user;
    return zqb__hash (engine->key, parts, sizeof parts);
}

/* From now on others with that key join it. -1 and ENOMEM. */
static int zqb__request_wish_unique (zqb__engine_t *engine, zqb__request_t *request, const zqb__command_t *command)
{
    zqb__extra_t *extra = request->extra;
    const zqb__rare_t *rare = command->rare;
    extra->unique = zqb__copy_text (rare->unique, rare->unique_size);
    if (!extra->unique)
        return -1;
    extra->unique_size = rare->unique_size;
    zqb__table_insert (&engine->uniques, &extra->by_unique,
                       zqb__unique_hash (engine, request->lane->service, extra->user, command));
    return 0;
}

/* What kind of request is made: one that is executed by itself; one that has no body, as it follows another, or others
   are made of it; one of those. */
enum { ZQB__OF_ITS_OWN, ZQB__FOLLOWS, ZQB__SURVEYED };

/* Whether any of that has to be kept with a request: its priority is that of its lane. */
static int zqb__rare_is_kept (const zqb__rare_t *rare)
{
    return rare->deadline_ms || rare->delay_ms || rare->attempts || rare->backoff_ms || rare->unique_size
           || rare->affinity_size;
}

/* What a request asks for that few do. -1 and ENOMEM: it is to be freed. */
static ZQB__SELDOM int zqb__request_wish (zqb__engine_t *engine, zqb__request_t *request,
                                          const zqb__command_t *command, int kind)
{
    const zqb__service_t *service = request->lane->service;
    const zqb__rare_t *rare = command->rare;
    int flags = command->flags & (ZQB__ONE_WAY | ZQB__FAIL_FAST);
    int named = service->pattern && !zqb__service_is (service, command->service, command->service_size);
    int counted = engine->limits.user_outstanding != 0;
    if (kind == ZQB__OF_ITS_OWN && !flags && !named && !counted && !(rare && zqb__rare_is_kept (rare)))
        return 0; /* and only of these there may be none that says what it asks for: see zqb__accept_special */
    zqb__extra_t *extra = zqb__request_extra (request);
    if (!extra)
        return -1;
    extra->flags = flags;
    extra->user = zqb__user_share (request->lane->client->user);
    extra->local = request->lane->client->local;
    if (named) {
        extra->name = zqb__copy_text (command->service, command->service_size);
        extra->name_size = command->service_size;
        if (!extra->name)
            return -1;
    }
    extra->attempts = rare->attempts == ZQB__ATTEMPTS_ALL ? UINT32_MAX : rare->attempts;
    if (zqb__request_wish_times (engine, extra, rare) != 0)
        return -1;
    if (kind != ZQB__OF_ITS_OWN)
        return 0;
    if (rare->affinity_size)
        extra->slot = (int) (zqb__hash (engine->key, rare->affinity, rare->affinity_size) % ZQB__SLOTS);
    return rare->unique_size ? zqb__request_wish_unique (engine, request, command) : 0;
}

/* Whether a request asks for anything that few do, or has a name of its own. */
static int zqb__is_special (const zqb__service_t *service, const zqb__command_t *command)
{
    return command->rare || command->flags & (ZQB__ONE_WAY | ZQB__FAIL_FAST | ZQB__SURVEY)
           || (service && service->pattern);
}

/* The body, and what it asks for, and the number by which it may be found. -1 and ENOMEM: what there is must be freed.
   */
static int zqb__request_fill (zqb__engine_t *engine, zqb__request_t *request, const zqb__command_t *command, int kind)
{
    request->id = command->id;
    request->arrived = engine->now;
    if (kind != ZQB__FOLLOWS && zqb__stored_keep (&request->body, &command->body) != 0)
        return -1;
    if (zqb__is_special (request->lane->service, command) && zqb__request_wish (engine, request, command, kind) != 0)
        return -1;
    return request->lane->client->numbered && kind != ZQB__SURVEYED ? zqb__request_number (engine, request) : 0;
}

/* NULL and ENOMEM. It is accepted, and in nobody's hand. */
static zqb__request_t *zqb__request_new (zqb__engine_t *engine, zqb__peer_t *client, zqb__service_t *service,
                                         const zqb__command_t *command, int kind)
{
    zqb__lane_t *lane = zqb__lane_require (engine, client, service, zqb__rank_of (command));
    zqb__request_t *request = lane ? (zqb__request_t *) zqb__slab_new (&engine->requests) : NULL;
    if (!request)
        return NULL;
    request->lane = lane;
    if (zqb__request_fill (engine, request, command, kind) != 0) {
        zqb__request_unnumber (engine, request);
        zqb__extra_free (engine, request);
        zqb__stored_close (&request->body);
        zqb__slab_free (&engine->requests, &request->slot);
        return NULL;
    }
    zqb__list_insert (lane->queued, &request->of_lane);
    zqb__request_attach (engine, request, lane);
    engine->stats.accepted++;
    engine->stats.bytes += zqb__stored_bytes (&request->body);
    return request;
}

/* What a client hears of a failure, if its dialect has a word for it. code: a struct that has it, or NULL. */
static zqb__command_t zqb__failure (const char *text, size_t size, const zqb__rare_t *code)
{
    zqb__command_t answer = zqb__command (ZQB__ERROR, 0);
    answer.status = ZQB_EFAILED - ZQB_ERRNO;
    answer.text = text;
    answer.text_size = size;
    answer.rare = code;
    return answer;
}

/* Has a handler do a request; the reply is filled in but for its id. Where the outcome counts. */
static uint64_t *zqb__serve (zqb__engine_t *engine, const zqb__service_t *service, const zqb__user_t *user,
                             const zqb__command_t *command, zqb__command_t *reply)
{
    *reply = zqb__command (ZQB__ERROR, 0);
    engine->asks = user;
    engine->sink.serve (engine->sink.self, service, command, reply);
    if (reply->type == ZQB__REPLY)
        return &engine->stats.replied;
    *reply = zqb__failure (reply->text, reply->text_size, reply->rare);
    return &engine->stats.failed;
}

/* Tells the host what became of a request that a handler has done, if it wants to know. */
static void zqb__report_served (zqb__engine_t *engine, const zqb__command_t *command, int error)
{
    zqb_outcome_t outcome;
    char name[256];
    if (!engine->sink.outcome)
        return;
    memcpy (name, command->service, command->service_size); /* which is in the message, where other things follow */
    name[command->service_size] = 0;
    outcome.service = name;
    outcome.service_size = command->service_size;
    outcome.error = error;
    outcome.attempts = 1;
    outcome.took_us = 0;
    engine->sink.outcome (engine->sink.self, &outcome);
}

/* A survey of a handler: its reply is the answer of one. -1: the client is gone. */
static int zqb__serve_survey (zqb__engine_t *engine, zqb__peer_t *client, zqb__command_t *reply)
{
    zqb__command_t end = zqb__command (ZQB__REPLY, reply->id);
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.done = reply->type == ZQB__REPLY;
    rare.total = 1;
    rare.has_progress = 1;
    end.rare = &rare;
    end.service = reply->service;
    end.service_size = reply->service_size;
    if (reply->type == ZQB__REPLY) {
        reply->type = ZQB__PARTIAL;
        if (zqb__engine_send (engine, client, ZQB__CLIENT, reply) != 0)
            return -1;
    }
    return zqb__engine_send (engine, client, ZQB__CLIENT, &end);
}

/* What a handler has answered, as the client wants it. -1: it is gone. */
static int zqb__serve_tell (zqb__engine_t *engine, zqb__peer_t *client, const zqb__command_t *command,
                            zqb__command_t *reply)
{
    if (command->flags & ZQB__ONE_WAY)
        return 0;
    if (command->flags & ZQB__SURVEY)
        return zqb__serve_survey (engine, client, reply);
    return zqb__engine_send (engine, client, ZQB__CLIENT, reply);
}

/* A request for a service that is served in the broker's own thread. */
static void zqb__serve_here (zqb__engine_t *engine, const zqb__service_t *service, zqb__peer_t *client,
                             const zqb__command_t *command)
{
    zqb__command_t reply;
    uint64_t *outcome = zqb__serve (engine, service, client->user, command, &reply);
    engine->stats.accepted++; /* now, as the handler may look at the counters */
    reply.id = command->id;
    reply.service = command->service;
    reply.service_size = command->service_size;
    int error = reply.type == ZQB__REPLY ? 0 : ZQB_EFAILED;
    int gone = zqb__serve_tell (engine, client, command, &reply) != 0;
    ++*(gone ? &engine->stats.client_gone : outcome);
    zqb__report_served (engine, command, gone ? EHOSTUNREACH : error);
}

/* Those that were queued before there was a handler. */
static void zqb__serve_queued (zqb__engine_t *engine, zqb__service_t *service)
{
    while (service->handler && service->queued) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, place, service->queue.next);
        zqb__command_t command = zqb__request_command (request), reply;
        zqb__request_take_out (engine, request);
        engine->stats.running++;
        uint64_t *outcome = zqb__serve (engine, service, zqb__request_user (request), &command, &reply);
        engine->stats.running--;
        zqb__request_end (engine, request, &reply, outcome);
    }
}

/* A request is queued, unless there is no room for it. */
static void zqb__accept (zqb__engine_t *engine, zqb__service_t *service, zqb__peer_t *client,
                         const zqb__command_t *command)
{
    zqb_stats_t *stats = &engine->stats;
    if (zqb__service_is_full (engine, service, command->rare)) {
        int by_queue = zqb__service_waiting (service) >= engine->limits.queue;
        zqb__refuse (engine, client, command, by_queue ? ZQB_EQUEUEFULL : ZQB_ENOWORKER,
                     by_queue ? &stats->refused_queue : &stats->refused_no_worker);
        return;
    }
    zqb__request_t *request = zqb__request_new (engine, client, service, command, ZQB__OF_ITS_OWN);
    if (!request) {
        zqb__service_settle (engine, service);
        zqb__refuse (engine, client, command, ZQB_EQUEUEFULL, &stats->no_memory);
        return;
    }
    if (request->extra && request->extra->timed)
        zqb__request_set_timer (engine, request);
    uint64_t begins = zqb__begins (engine, command);
    zqb__worker_t *worker = service->queued || begins ? NULL : zqb__service_choose (engine, service);
    if (worker) /* it need not queue */
        zqb__request_give (engine, request, worker);
    else if (begins)
        zqb__request_delay (engine, request, begins);
    else
        zqb__request_enqueue (engine, request, 0);
    if (!worker || service->queued)
        zqb__service_dispatch (engine, service);
}

/* Where it counts that there is no service, by errno. */
static uint64_t *zqb__no_service (zqb__engine_t *engine)
{
    return errno == ENOMEM ? &engine->stats.no_memory : &engine->stats.refused_services;
}

/* A request for a service that is perhaps not known: it becomes known, if there may be another. */
static void zqb__accept_by_name (zqb__engine_t *engine, zqb__service_t *service, zqb__peer_t *client,
                                 const zqb__command_t *command)
{
    if (!service)
        service = zqb__service_require (engine, command->service, command->service_size);
    if (service)
        zqb__accept (engine, service, client, command);
    else
        zqb__refuse (engine, client, command, ZQB_EQUEUEFULL, zqb__no_service (engine));
}

/* ---- unique: requests that do the same as another */

/* Whether a request was asked for by the same name as another, which may be one of several of a pattern. */
static int zqb__request_is_called (const zqb__request_t *request, const zqb__command_t *other)
{
    zqb__command_t own = zqb__command (ZQB__REQUEST, 0);
    zqb__request_name (request, &own);
    return own.service_size == other->service_size && memcmp (own.service, other->service, own.service_size) == 0;
}

/* The request that one of that user with its name and key joins, or NULL: who joins sees the reply, so that it must be
   his own. */
static zqb__request_t *zqb__unique_find (zqb__engine_t *engine, const zqb__service_t *service, const zqb__user_t *user,
                                         int local, const zqb__command_t *command)
{
    const zqb__rare_t *rare = command->rare;
    uint64_t hash = zqb__unique_hash (engine, service, user, command);
    for (zqb__node_t *node = zqb__table_first (&engine->uniques, hash); node; node = zqb__table_next (node)) {
        zqb__extra_t *extra = ZQB__OF (zqb__extra_t, by_unique, node);
        if (extra->request->lane->service == service && extra->user == user && extra->local == local
            && extra->unique_size == rare->unique_size
            && memcmp (extra->unique, rare->unique, rare->unique_size) == 0
            && zqb__request_is_called (extra->request, command))
            return extra->request;
    }
    return NULL;
}

/* It is joined at another service from now on, unless one is there already that others with its key join. */
static void zqb__request_move_unique (zqb__engine_t *engine, zqb__request_t *request, zqb__service_t *to)
{
    zqb__command_t same = zqb__command (ZQB__REQUEST, 0);
    zqb__extra_t *extra = request->extra;
    zqb__rare_t key;
    if (!extra->unique)
        return;
    memset (&key, 0, sizeof key);
    zqb__request_name (request, &same);
    same.rare = &key;
    key.unique = (const unsigned char *) extra->unique;
    key.unique_size = extra->unique_size;
    if (zqb__unique_find (engine, to, extra->user, extra->local, &same)) {
        zqb__request_forget_unique (engine, request);
        return;
    }
    zqb__table_remove (&engine->uniques, &extra->by_unique);
    zqb__table_insert (&engine->uniques, &extra->by_unique, zqb__unique_hash (engine, to, extra->user, &same));
}

static void zqb__request_begin (zqb__engine_t *engine, zqb__request_t *request);

/* Another wants the same: at least as urgently, and as early. Without memory for another lane it stays in its own. */
static void zqb__request_hurry (zqb__engine_t *engine, zqb__request_t *request, int rank, uint64_t begins)
{
    zqb__lane_t *own = request->lane, *lane = own;
    if (rank > own->rank)
        lane = zqb__lane_require (engine, own->client, own->service, rank);
    if (lane && lane != own) {
        zqb__request_change_lane (engine, request, lane);
        zqb__request_renumber (engine, request);
    }
    if (zqb__request_aside (request) != ZQB__DELAYED || begins >= request->extra->begins || request->attempts)
        return;
    request->extra->begins = begins;
    if (begins)
        zqb__request_set_timer (engine, request);
    else
        zqb__request_begin (engine, request);
}

/* The highest rank of a request and of all that have joined it. */
static int zqb__request_highest_rank (const zqb__request_t *request)
{
    int rank = request->lane->rank;
    for (int other = rank + 1; request->extra && other < ZQB__RANKS; other++)
        if (request->extra->joined[other])
            rank = other;
    return rank;
}

/* One that is in nobody's hand gets the rank of those that joined it while it ran. Without memory it keeps its own. */
static void zqb__request_rise (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__lane_t *own = request->lane;
    int rank = zqb__request_highest_rank (request);
    zqb__lane_t *lane = rank > own->rank ? zqb__lane_require (engine, own->client, own->service, rank) : NULL;
    if (!lane)
        return;
    zqb__request_set_lane (engine, request, lane);
    zqb__request_renumber (engine, request);
}

/* A request joins one that does the same. */
static void zqb__follow (zqb__engine_t *engine, zqb__request_t *leader, zqb__peer_t *client,
                         const zqb__command_t *command)
{
    zqb__request_t *request = zqb__request_new (engine, client, leader->lane->service, command, ZQB__FOLLOWS);
    if (!request) {
        zqb__refuse (engine, client, command, ZQB_EQUEUEFULL, &engine->stats.no_memory);
        return;
    }
    request->extra->leader = leader;
    zqb__request_set_aside (engine, request, ZQB__FOLLOWING, &leader->extra->followers);
    if (request->extra->timed)
        zqb__request_set_timer (engine, request);
    if (!leader->worker)
        zqb__request_hurry (engine, leader, request->lane->rank, zqb__begins (engine, command));
}

/* Exchanges what is the clients' of two requests, and not of what is executed. Neither is queued. */
static void zqb__request_swap_clients (zqb__request_t *a, zqb__request_t *b)
{
    zqb__extra_t *x = a->extra, *y = b->extra;
    zqb__lane_t *lane = a->lane;
    char *name = x->name;
    size_t name_size = x->name_size;
    uint64_t id = a->id, ends = x->ends, accepted = x->accepted;
    int flags = x->flags, timed = x->timed;
    a->lane = b->lane, b->lane = lane;
    a->id = b->id, b->id = id;
    x->name = y->name, y->name = name;
    x->name_size = y->name_size, y->name_size = name_size;
    x->ends = y->ends, y->ends = ends;
    x->accepted = y->accepted, y->accepted = accepted;
    b->attempts = a->attempts;
    x->flags = y->flags, y->flags = flags;
    x->timed = timed | y->timed, y->timed = timed & y->timed; /* a may have to wait for a time of its own, too */
    zqb__lane_keep (a->lane, &a->of_lane);
    zqb__lane_keep (b->lane, &b->of_lane);
}

/* How many parts more a worker may send. */
static void zqb__request_grant (zqb__engine_t *engine, zqb__request_t *request, uint32_t parts)
{
    zqb__command_t more = zqb__command (ZQB__MORE, zqb__slot_token (&request->slot));
    more.credit = parts;
    zqb__engine_send (engine, request->worker->peer, ZQB__WORKER, &more);
}

/* The client of a request that others have joined wants it no more: the first of those takes its place. What is left is
   in nobody's hand, and to be ended: it is returned. */
static zqb__request_t *zqb__request_promote (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__request_t *heir = ZQB__OF (zqb__request_t, place, request->extra->followers.next);
    int queued = zqb__request_is_queued (request);
    zqb__request_take_out (engine, heir);
    zqb__heap_remove (&engine->timers, &heir->extra->timer);
    zqb__request_unnumber (engine, request);
    zqb__request_unnumber (engine, heir);
    if (queued) {
        zqb__list_remove (&request->extra->of_hasty);
        zqb__lane_unqueue (request->lane, &request->of_lane);
    }
    zqb__request_change_pin (request, heir->lane->rank);
    zqb__request_swap_clients (request, heir);
    if (queued) {
        if (zqb__request_flags (request) & ZQB__FAIL_FAST)
            zqb__list_append (&request->lane->service->hasty, &request->extra->of_hasty);
        zqb__lane_queue (request->lane, &request->of_lane, 0);
    }
    zqb__request_renumber (engine, request);
    if (request->extra->timed)
        zqb__request_set_timer (engine, request);
    if (request->worker)
        zqb__request_grant (engine, request, zqb__request_has_window (request) ? ZQB__WINDOW_PARTS : ZQB__CREDIT_ALL);
    else
        zqb__request_hurry (engine, request, zqb__request_highest_rank (request), UINT64_MAX);
    return heir;
}

/* ---- surveys: a request to each worker of a service */

static void zqb__survey_ask (zqb__engine_t *engine, zqb__request_t *survey, zqb__worker_t *worker,
                             const zqb__command_t *command)
{
    zqb__lane_t *lane = survey->lane;
    zqb__request_t *request = zqb__request_new (engine, lane->client, lane->service, command, ZQB__SURVEYED);
    if (!request) {
        engine->stats.no_memory++;
        return;
    }
    request->extra->survey = survey;
    zqb__list_append (&survey->extra->asked, &request->extra->of_survey);
    survey->extra->asked_count++;
    zqb__request_pin (engine, request, worker, 0);
    zqb__worker_serve_pins (engine, worker);
}

/* Asks all workers that take requests. */
static void zqb__survey_ask_all (zqb__engine_t *engine, zqb__request_t *survey, const zqb__command_t *command)
{
    zqb__link_t *workers = &survey->lane->service->workers;
    zqb__command_t each = *command;
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    rare.priority = command->rare->priority;
    each.rare = &rare;
    each.flags = command->flags & ZQB__ONE_WAY;
    for (zqb__link_t *at = workers->next; at != workers; at = at->next)
        if (ZQB__OF (zqb__worker_t, of_service, at)->credit)
            zqb__survey_ask (engine, survey, ZQB__OF (zqb__worker_t, of_service, at), &each);
}

/* Why there is no room for a survey of so many: as zqb__refusal. */
static int zqb__survey_refusal (zqb__engine_t *engine, zqb__peer_t *client, const zqb__body_t *body,
                                uint64_t workers, uint64_t **counter)
{
    const zqb__limits_t *limits = &engine->limits;
    zqb_stats_t *stats = &engine->stats;
    *counter = NULL;
    if (workers == 0)
        *counter = &stats->refused_no_worker;
    else if (stats->queued + stats->running + workers >= (uint64_t) limits->requests)
        *counter = &stats->refused_requests;
    else if ((uint64_t) client->outstanding + workers >= (uint64_t) limits->outstanding)
        *counter = &stats->refused_outstanding;
    else if (zqb__too_many_bytes (engine, zqb__times (zqb__body_bytes (body), workers)))
        *counter = &stats->refused_bytes;
    else if (zqb__user_has_too_many (engine, client, workers + 1))
        *counter = &stats->refused_user;
    return !*counter ? 0 : workers ? ZQB_EQUEUEFULL : ZQB_ENOWORKER;
}

static uint64_t zqb__service_takers (const zqb__service_t *service)
{
    uint64_t count = 0;
    for (const zqb__link_t *at = service ? service->workers.next : NULL; at && at != &service->workers; at = at->next)
        count += ZQB__OF (zqb__worker_t, of_service, at)->credit != 0;
    return count;
}

static void zqb__survey_begin (zqb__engine_t *engine, zqb__service_t *service, zqb__peer_t *client,
                               const zqb__command_t *command)
{
    uint64_t *counter;
    int error = zqb__survey_refusal (engine, client, &command->body, zqb__service_takers (service), &counter);
    zqb__request_t *survey = error ? NULL : zqb__request_new (engine, client, service, command, ZQB__FOLLOWS);
    if (!survey) {
        zqb__refuse (engine, client, command, error ? error : ZQB_EQUEUEFULL,
                     error ? counter : &engine->stats.no_memory);
        return;
    }
    zqb__survey_ask_all (engine, survey, command);
    zqb__request_set_aside (engine, survey, ZQB__SURVEYING, NULL);
    if (survey->extra->timed)
        zqb__request_set_timer (engine, survey);
    zqb__survey_settle (engine, survey);
}

/* ---- requests that nobody wants any more */

/* A running one goes on for nobody. Its worker is told; and its client, if its time is over. */
static void zqb__request_let_run (zqb__engine_t *engine, zqb__request_t *request, int fate)
{
    zqb__command_t sorry = zqb__command (ZQB__ERROR, 0);
    zqb__command_t cancel = zqb__command (ZQB__CANCEL, zqb__slot_token (&request->slot));
    sorry.status = ZQB_EEXPIRED - ZQB_ERRNO;
    if (fate == ZQB__EXPIRED)
        zqb__request_tell (engine, request, &sorry);
    if (engine->sink.outcome)
        zqb__request_report (engine, request, zqb__fate_error (fate));
    zqb__engine_send (engine, request->worker->peer, ZQB__WORKER, &cancel);
    zqb__request_forget_unique (engine, request);
    if (request->extra)
        zqb__heap_remove (&engine->timers, &request->extra->timer);
    request->fate = (unsigned) fate & 3u;
    zqb__request_detach (engine, request);
}

/* One that is in nobody's hand ends. */
static void zqb__request_drop (zqb__engine_t *engine, zqb__request_t *request, int fate)
{
    if (fate != ZQB__EXPIRED)
        request->fate = (unsigned) fate & 3u; /* its client is not told */
    zqb__request_end_with (engine, request, ZQB_EEXPIRED, &engine->stats.expired);
}

/* Those of a survey that have not ended; the client hears nothing of them. */
static void zqb__survey_abandon (zqb__engine_t *engine, zqb__request_t *survey, int fate)
{
    zqb__link_t *asked = &survey->extra->asked;
    while (!zqb__list_empty (asked)) {
        zqb__request_t *request = ZQB__OF (zqb__extra_t, of_survey, asked->next)->request;
        int runs = request->worker != NULL;
        zqb__list_remove (&request->extra->of_survey);
        if (runs)
            zqb__request_let_run (engine, request, fate);
        else
            zqb__request_take_out (engine, request);
        request->extra->survey = NULL;
        request->fate = (unsigned) fate & 3u;
        if (!runs)
            zqb__request_drop (engine, request, fate);
    }
}

/* A client wants a request no more, or it is too late, or the client is gone. If others have joined it, it goes on for
   them. Else a running one is finished for nobody, and one that does not run goes. */
static void zqb__request_abandon (zqb__engine_t *engine, zqb__request_t *request, int fate)
{
    zqb__service_t *service = request->lane->service;
    if (request->extra && !zqb__list_empty (&request->extra->followers))
        zqb__request_drop (engine, zqb__request_promote (engine, request), fate);
    else if (request->worker)
        zqb__request_let_run (engine, request, fate);
    else if (zqb__request_aside (request) == ZQB__SURVEYING) {
        zqb__survey_abandon (engine, request, fate);
        request->fate = fate == ZQB__EXPIRED ? 0 : (unsigned) fate & 3u;
        zqb__survey_end (engine, request);
    } else {
        zqb__request_take_out (engine, request);
        zqb__request_drop (engine, request, fate);
    }
    zqb__service_settle (engine, service);
}

/* ---- requests that have to wait */

/* The time has come for one that was not to be begun before: it is queued behind the others, or, if it was tried
   before, in front of them. */
static void zqb__request_begin (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__service_t *service = request->lane->service;
    zqb__request_take_out (engine, request);
    request->arrived = engine->now;
    request->extra->begins = 0;
    zqb__request_set_timer (engine, request);
    zqb__request_enqueue (engine, request, request->attempts > 0);
    if (!zqb__service_serves (service))
        zqb__request_reroute (engine, request);
    zqb__service_end_hasty (engine, service);
    zqb__serve_queued (engine, service);
    zqb__service_dispatch (engine, service);
}

static void zqb__request_tick (zqb__engine_t *engine, zqb__request_t *request)
{
    if (engine->now >= request->extra->ends)
        zqb__request_abandon (engine, request, ZQB__EXPIRED);
    else
        zqb__request_begin (engine, request);
}

/* ---- what clients ask for */

/* Whether a request that is sent again is here already, or that cannot be told for lack of memory: then it is as if the
   message had been lost. */
static int zqb__joins (zqb__engine_t *engine, zqb__peer_t *client, uint64_t id)
{
    if (zqb__client_number (engine, client) != 0)
        return 1;
    if (!zqb__request_find (engine, client, id))
        return 0;
    engine->stats.joined++;
    return 1;
}

/* What the host has to say of a request. 1: it does not want it, and the client was told. */
static int zqb__filtered (zqb__engine_t *engine, zqb__peer_t *client, zqb__command_t *command, zqb__rare_t *rare)
{
    zqb__command_t refusal = zqb__command (ZQB__ERROR, 0);
    refusal.status = ZQB_EREFUSED - ZQB_ERRNO;
    engine->asks = client->user;
    if (!engine->sink.filter || engine->sink.filter (engine->sink.self, command, rare, &refusal) == 0)
        return 0;
    zqb__refuse_with (engine, client, command, &refusal, &engine->stats.refused_filter);
    return 1;
}

/* A request that is not like all others, or that the host wants to see. */
static void zqb__accept_special (zqb__engine_t *engine, zqb__service_t *service, zqb__peer_t *client,
                                 const zqb__command_t *command)
{
    zqb__command_t wanted = *command;
    zqb__request_t *leader = NULL;
    zqb__rare_t rare;
    memset (&rare, 0, sizeof rare);
    if (command->rare)
        rare = *command->rare;
    if (zqb__filtered (engine, client, &wanted, &rare))
        return;
    wanted.rare = &rare;
    if (rare.unique_size && service && !(wanted.flags & ZQB__SURVEY))
        leader = zqb__unique_find (engine, service, client->user, client->local, &wanted);
    if (wanted.flags & ZQB__SURVEY)
        zqb__survey_begin (engine, service, client, &wanted);
    else if (wanted.flags & ZQB__FAIL_FAST && !zqb__service_serves (service))
        zqb__refuse (engine, client, &wanted, ZQB_ENOWORKER, &engine->stats.refused_no_worker);
    else if (leader)
        zqb__follow (engine, leader, client, &wanted);
    else
        zqb__accept_by_name (engine, service, client, &wanted);
}

/* A request that has something to pass first. error: why it cannot be taken anyway, or 0. */
static ZQB__SELDOM void zqb__on_guarded_request (zqb__engine_t *engine, zqb__service_t *service, zqb__peer_t *client,
                                                 const zqb__command_t *command, int error, uint64_t *counter)
{
    if (zqb__guards_refuse (engine, service, client, command, error))
        return;
    if (error)
        zqb__refuse (engine, client, command, error, counter);
    else if (service && service->handler)
        zqb__serve_here (engine, service, client, command);
    else if (engine->sink.filter || engine->limits.user_outstanding || zqb__is_special (service, command))
        zqb__accept_special (engine, service, client, command);
    else
        zqb__accept_by_name (engine, service, client, command);
}

/* RFC 7, "a client request"; RFC 18; ZQB/1 REQUEST. One that is sent again joins the first, if that is still here. */
static void zqb__on_request (zqb__engine_t *engine, zqb__peer_t *client, const zqb__command_t *command)
{
    uint64_t *counter;
    zqb__service_t *service = zqb__service_route (engine, command->service, command->service_size);
    if ((command->flags & ZQB__AGAIN) && zqb__joins (engine, client, command->id))
        return;
    int error = zqb__refusal (engine, client, &command->body, &counter);
    if (!service && engine->mmi.handler && zqb__name_reserved (command->service, command->service_size))
        service = &engine->mmi;
    if (engine->guarded && !zqb__client_has_passed (engine, service, client, command))
        zqb__on_guarded_request (engine, service, client, command, error, counter);
    else if (error)
        zqb__refuse (engine, client, command, error, counter);
    else if (service && service->handler)
        zqb__serve_here (engine, service, client, command);
    else if (zqb__is_special (service, command))
        zqb__accept_special (engine, service, client, command);
    else
        zqb__accept_by_name (engine, service, client, command);
}

/* ZQB/1: a client has no use for a request any more. */
static void zqb__on_cancel (zqb__engine_t *engine, zqb__peer_t *client, const zqb__command_t *command)
{
    if (zqb__client_number (engine, client) != 0)
        return;
    zqb__request_t *request = zqb__request_find (engine, client, command->id);
    if (request)
        zqb__request_abandon (engine, request, ZQB__CANCELLED);
}

enum { ZQB__MORES = 32 }; /* what a client may say before it has read anything: it comes back, and says it again */

/* ZQB/1: a client has read parts of a reply. Who says so more often than there are parts is not listened to: all that
   would wait for the worker, who may not read for long, and would be lost as too slow. */
static void zqb__on_more (zqb__engine_t *engine, zqb__peer_t *client, const zqb__command_t *command)
{
    if (zqb__client_number (engine, client) != 0)
        return;
    zqb__request_t *request = zqb__request_find (engine, client, command->id);
    if (!request || !request->worker || request->mores >= ZQB__MORES)
        return;
    request->mores++;
    zqb__request_grant (engine, request, command->credit);
}

/* ---- what workers say */

static void zqb__refuse_worker (zqb__engine_t *engine, zqb__peer_t *peer, const char *why, uint64_t *counter)
{
    ++*counter;
    zqb__engine_tell (engine, ZQB_LOG_WARNING, "worker refused (%s): %s", zqb__peer_dialect (peer, ZQB__WORKER), why);
    zqb__send_away (engine, peer, ZQB_EREFUSED);
}

/* Whether there may not be one more, of this user's. */
static int zqb__too_many_workers (const zqb__engine_t *engine, zqb__peer_t *peer)
{
    uint64_t most = engine->limits.user_workers;
    return engine->stats.workers >= (uint64_t) engine->limits.workers
           || (most && zqb__peer_quota (peer, NULL)->workers >= most);
}

/* A worker has come over another connection than before: what it was there is over, and its life is the new peer's. */
static void zqb__worker_succeed (zqb__engine_t *engine, zqb__peer_t *peer)
{
    uint64_t life = peer->life ? 0 : peer->said_life;
    zqb__peer_t *former = life ? zqb__peer_of_life (engine, life, peer->user, peer->local) : NULL;
    if (!former)
        return;
    if (former->worker)
        zqb__worker_remove (engine, former->worker);
    zqb__table_remove (&engine->lives, &former->by_life);
    former->life = 0;
    zqb__peer_rest (engine, former);
    zqb__peer_set_life (engine, peer, peer->said_life);
}

/* RFC 7, RFC 18, RFC 6, ZQB/1: a worker registers. One that was registered starts anew. */
static void zqb__on_ready (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    zqb__worker_succeed (engine, peer);
    if (peer->worker)
        zqb__worker_remove (engine, peer->worker);
    if (!zqb__list_empty (&peer->failed))
        return; /* it could not be told what became of a request of its own */
    if (zqb__name_reserved (command->service, command->service_size)) {
        zqb__refuse_worker (engine, peer, "mmi. names are the broker's", &engine->stats.refused_name);
        return;
    }
    if (engine->guarded && !zqb__worker_may (engine, peer, command->service, command->service_size)) {
        zqb__deny_worker (engine, peer, command->service, command->service_size);
        return;
    }
    if (zqb__too_many_workers (engine, peer)) {
        zqb__refuse_worker (engine, peer, "there are too many", &engine->stats.refused_workers);
        return;
    }
    zqb__service_t *service = zqb__service_require (engine, command->service, command->service_size);
    if (!service)
        zqb__refuse_worker (engine, peer, "no room for its service", zqb__no_service (engine));
    else if (service->handler)
        zqb__refuse_worker (engine, peer, "a handler serves that name", &engine->stats.refused_name);
    else if (!zqb__worker_new (engine, peer, service, command)) {
        zqb__refuse_worker (engine, peer, "no memory", &engine->stats.no_memory);
        zqb__service_settle (engine, service);
    } else {
        zqb__service_log (engine, ZQB_LOG_INFO, service, "registered, ", zqb__peer_dialect (peer, ZQB__WORKER));
        if (service->worker_count == 1)
            zqb__service_got_first (engine, service);
        zqb__service_dispatch (engine, service);
    }
}

/* The request that a worker answers: what it holds under that token, or NULL, which is counted. */
static zqb__request_t *zqb__held_request (zqb__engine_t *engine, zqb__peer_t *peer, uint64_t token)
{
    zqb__request_t *request = (zqb__request_t *) zqb__slab_find (&engine->requests, token);
    if (!peer->worker) {
        engine->stats.bad_state++;
        zqb__send_away (engine, peer, 0);
        return NULL;
    }
    if (request && request->worker == peer->worker)
        return request;
    engine->stats.stale++;
    return NULL;
}

/* Adds frames to the reply that is gathered for a client whose dialect has no partial replies. NULL, or where it counts
   that it cannot be. */
static uint64_t *zqb__request_gather (zqb__engine_t *engine, zqb__request_t *request, const zqb__body_t *part)
{
    if (zqb__too_many_bytes (engine, zqb__body_bytes (part)))
        return &engine->stats.refused_bytes;
    zqb__extra_t *extra = zqb__request_extra (request);
    if (!extra || zqb__parcel_add_body (&extra->gathered, part) != 0)
        return &engine->stats.no_memory;
    engine->stats.bytes += zqb__body_bytes (part);
    zqb__body_t whole = zqb__parcel_body (&extra->gathered);
    return zqb__too_large (engine, &whole);
}

enum { ZQB__RESTS_DOUBLED = 4 };

/* It failed too often, and gets nothing for a while; then one request, to see. */
static void zqb__worker_rest (zqb__engine_t *engine, zqb__worker_t *worker)
{
    unsigned doublings = worker->rests < ZQB__RESTS_DOUBLED ? (unsigned) worker->rests : (unsigned) ZQB__RESTS_DOUBLED;
    engine->stats.rested++;
    worker->rested = zqb__after (engine->now, zqb__times (engine->limits.rest, (uint64_t) 1 << doublings));
    worker->resting = worker->probation = 1;
    worker->failures = 0;
    worker->rests++;
    zqb__worker_set_timer (engine, worker);
    zqb__service_log (engine, ZQB_LOG_WARNING, worker->service, "rested: ", "it failed too often");
}

/* Keeps how well a worker does. */
static inline void zqb__worker_judge (zqb__engine_t *engine, zqb__worker_t *worker, int failed)
{
    int slow = engine->now - worker->since > engine->limits.slow;
    if (!failed && !slow) {
        if (worker->failures || worker->probation)
            worker->failures = worker->probation = worker->rests = 0;
        return;
    }
    worker->failed += (uint64_t) failed;
    worker->slow += (uint64_t) slow;
    if (!worker->resting && (++worker->failures >= engine->limits.rest_failures || worker->probation))
        zqb__worker_rest (engine, worker);
}

/* One that is to leave has nothing more to do. Who speaks ZQB/1 knows that, and says so. 1: it is gone. */
static int zqb__worker_drained (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__peer_t *peer = worker->peer;
    if (worker->load || peer->dialect[ZQB__WORKER] == ZQB__ZQB1)
        return 0;
    engine->stats.workers_left++;
    zqb__service_log (engine, ZQB_LOG_INFO, worker->service, "drained", "");
    zqb__send_away (engine, peer, 0);
    zqb__worker_remove (engine, worker);
    zqb__peer_rest (engine, peer);
    return 1;
}

/* A worker has one request less: others have their turn. */
static inline void zqb__worker_free_hand (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__service_t *service = worker->service;
    if (worker->draining && zqb__worker_drained (engine, worker))
        return;
    if (worker->pin_mask)
        zqb__worker_serve_pins (engine, worker);
    zqb__service_dispatch (engine, service);
}

/* A worker is done with a request. */
static void zqb__request_done (zqb__engine_t *engine, zqb__request_t *request, zqb__command_t *answer,
                               uint64_t *outcome)
{
    zqb__worker_t *worker = request->worker;
    zqb__request_take_out (engine, request);
    if (request->lane) /* how one ends that nobody wants says nothing of the worker */
        zqb__worker_judge (engine, worker, answer->type == ZQB__ERROR);
    zqb__worker_count_done (engine, worker);
    zqb__worker_place (worker);
    zqb__request_end (engine, request, answer, outcome);
    zqb__worker_free_hand (engine, worker);
}

/* All workers of its service that take requests have refused a request, or as many as are remembered. */
static int zqb__request_is_unwanted (const zqb__request_t *request)
{
    zqb__service_t *service = request->lane->service;
    return request->extra->refusals == ZQB__REFUSALS_MOST
           || !zqb__service_other (service, request, &service->workers);
}

/* A request that a worker has refused goes to another: to the first with room that has not, or it waits for the next.
   */
static void zqb__request_pass_on (zqb__engine_t *engine, zqb__request_t *request, zqb__worker_t *refuser)
{
    zqb__service_t *service = request->lane->service;
    zqb__worker_t *worker = engine->paused ? NULL : zqb__service_other_ready (service, request);
    if (!worker)
        worker = zqb__service_other (service, request, &refuser->of_service);
    zqb__request_pin (engine, request, worker, 0);
    zqb__worker_serve_pins (engine, worker);
}

/* ZQB/1: a request is not for that worker. Without memory to remember that, it is a failure. */
static void zqb__on_refused (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__worker_t *worker = request->worker;
    zqb__extra_t *extra = zqb__request_extra (request);
    engine->stats.given_back++;
    zqb__request_take_out (engine, request);
    zqb__request_drop_gathered (engine, request);
    zqb__slot_renew (&request->slot);
    request->attempts--;
    worker->since = engine->now; /* it does not hang */
    zqb__worker_place (worker);
    if (extra && request->lane)
        extra->refused[extra->refusals++] = worker->number;
    if (!extra || !request->lane || extra->survey || zqb__request_is_unwanted (request))
        zqb__request_end_with (engine, request, ZQB_EREFUSED, &engine->stats.failed);
    else
        zqb__request_pass_on (engine, request, worker);
    zqb__worker_free_hand (engine, worker);
}

/* A reply, or a part of one, that cannot be passed on, and where that counts. */
static void zqb__reply_refused (zqb__engine_t *engine, zqb__request_t *request, uint64_t *counter)
{
    const char *text = counter == &engine->stats.no_memory       ? "the broker is out of memory"
                       : counter == &engine->stats.refused_bytes ? "the broker holds too much"
                                                                 : "the reply is too large";
    zqb__command_t answer = zqb__failure (text, strlen (text), NULL);
    ++*counter;
    zqb__request_done (engine, request, &answer, &engine->stats.failed);
}

static int zqb__gathers (const zqb__request_t *request)
{
    return !zqb__dialects[request->lane->client->dialect[ZQB__CLIENT]].partials
           || (request->extra && request->extra->survey);
}

/* Tells something to the client of a request, and to all that have joined it, in the order in which they did. */
static void zqb__request_share (zqb__engine_t *engine, zqb__request_t *request, zqb__command_t *answer)
{
    zqb__request_tell (engine, request, answer);
    if (!request->extra)
        return;
    zqb__link_t *followers = &request->extra->followers;
    for (zqb__link_t *at = followers->next; at != followers; at = at->next)
        zqb__request_tell (engine, ZQB__OF (zqb__request_t, place, at), answer);
}

static void zqb__on_partial (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    zqb__request_t *request = zqb__held_request (engine, peer, command->id);
    if (!request || !request->lane)
        return;
    engine->stats.partials++;
    request->mores -= request->mores > 0;
    uint64_t *refused = zqb__too_large (engine, &command->body);
    if (!refused && zqb__gathers (request))
        refused = zqb__request_gather (engine, request, &command->body);
    else if (!refused) {
        zqb__command_t answer = zqb__command (ZQB__PARTIAL, 0);
        answer.body = command->body;
        zqb__request_share (engine, request, &answer);
    }
    if (refused)
        zqb__reply_refused (engine, request, refused);
}

/* ZQB/1: how far a worker is. Of a request of a survey nobody is told. */
static void zqb__on_progress (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    zqb__request_t *request = zqb__held_request (engine, peer, command->id);
    zqb__command_t answer = zqb__command (ZQB__PROGRESS, 0);
    zqb__rare_t rare;
    if (!request || !request->lane)
        return;
    engine->stats.progress++;
    memset (&rare, 0, sizeof rare);
    rare.has_progress = 1; /* 0 of 0 if the worker does not say */
    rare.done = command->rare ? command->rare->done : 0;
    rare.total = command->rare ? command->rare->total : 0;
    answer.text = command->text;
    answer.text_size = command->text_size;
    answer.rare = &rare;
    zqb__request_share (engine, request, &answer);
}

static void zqb__on_reply (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    zqb__request_t *request = zqb__held_request (engine, peer, command->id);
    zqb__command_t answer = zqb__command (ZQB__REPLY, 0);
    if (!request)
        return;
    uint64_t *refused;
    if (request->extra && request->extra->gathered.bytes.size && request->lane) {
        refused = zqb__request_gather (engine, request, &command->body);
        answer.body = zqb__parcel_body (&request->extra->gathered);
    } else {
        refused = zqb__too_large (engine, &command->body);
        answer.body = command->body;
    }
    if (refused)
        zqb__reply_refused (engine, request, refused);
    else
        zqb__request_done (engine, request, &answer, &engine->stats.replied);
}

/* ZQB/1: the work failed for good, or is not for this worker. */
static void zqb__on_error (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    zqb__request_t *request = zqb__held_request (engine, peer, command->id);
    if (!request)
        return;
    if (command->status == ZQB_EREFUSED - ZQB_ERRNO) {
        zqb__on_refused (engine, request);
        return;
    }
    zqb__command_t answer = zqb__failure (command->text, command->text_size, command->rare);
    zqb__request_done (engine, request, &answer, &engine->stats.failed);
}

/* Any message shows that a worker lives; a stranger that sends heartbeats must register (again). */
static void zqb__on_heartbeat (zqb__engine_t *engine, zqb__peer_t *peer)
{
    if (peer->worker)
        return;
    engine->stats.bad_state++;
    zqb__send_away (engine, peer, 0);
}

/* A worker takes no more: what waits for it goes to others. It is told, so that it knows that nothing more comes. */
static void zqb__worker_drain (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__service_t *service = worker->service;
    zqb__command_t drain = zqb__command (ZQB__DRAIN, 0);
    worker->draining = 1;
    zqb__worker_retire (worker);
    zqb__worker_free_slots (worker);
    zqb__worker_unpin (engine, worker);
    zqb__engine_send (engine, worker->peer, ZQB__WORKER, &drain);
    if (!zqb__worker_drained (engine, worker))
        zqb__service_dispatch (engine, service);
}

/* ZQB/1: a worker wants to leave when it has done what it holds. */
static void zqb__on_drain (zqb__engine_t *engine, zqb__peer_t *peer)
{
    if (peer->worker)
        zqb__worker_drain (engine, peer->worker);
    else
        zqb__on_heartbeat (engine, peer);
}

/* A worker says goodbye. What it has not begun has not been tried. */
static void zqb__on_disconnect (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    if (!peer->worker) {
        engine->stats.bad_state++;
        return;
    }
    zqb__link_t *hand = &peer->worker->hand;
    for (zqb__link_t *at = hand->next; (command->flags & ZQB__UNBEGUN) && at != hand; at = at->next)
        ZQB__OF (zqb__request_t, place, at)->attempts--;
    engine->stats.workers_left++;
    zqb__service_log (engine, ZQB_LOG_INFO, peer->worker->service, "left", "");
    zqb__worker_remove (engine, peer->worker);
}

/* A worker is lost without a word. */
static void zqb__worker_lost (zqb__engine_t *engine, zqb__worker_t *worker, const char *why)
{
    engine->stats.workers_lost++;
    zqb__service_log (engine, ZQB_LOG_WARNING, worker->service, "lost: ", why);
    zqb__worker_remove (engine, worker);
}

/* ---- time */

/* Why a worker is lost, or NULL. As long as not everything is read that was sent, nobody is. */
static const char *zqb__worker_ails (const zqb__engine_t *engine, const zqb__worker_t *worker)
{
    if (!engine->caught_up)
        return NULL;
    if (worker->load)
        return engine->now >= zqb__after (worker->since, worker->service->limit) ? "it hangs" : NULL;
    int silent = engine->now >= zqb__after (worker->heard, worker->expiry);
    return silent && zqb__worker_has_heartbeats (worker) ? "silent" : NULL;
}

static void zqb__worker_tick (zqb__engine_t *engine, zqb__worker_t *worker)
{
    zqb__peer_t *peer = worker->peer;
    zqb__command_t beat = zqb__command (ZQB__HEARTBEAT, 0);
    const char *why = zqb__worker_ails (engine, worker);
    int due = engine->now >= zqb__after (worker->told, worker->beat);
    if (why) {
        engine->heard = peer; /* what it held may have been its own: it does not rest before it was told */
        zqb__worker_lost (engine, worker, why);
        zqb__send_away (engine, peer, 0);
        engine->heard = NULL;
        zqb__peer_rest (engine, peer);
        return;
    }
    if (worker->resting && engine->now >= worker->rested) {
        worker->resting = 0;
        zqb__worker_go_on (engine, worker);
        zqb__service_dispatch (engine, worker->service);
    }
    if (!due || zqb__engine_send (engine, peer, ZQB__WORKER, &beat) == 0)
        zqb__worker_set_timer (engine, worker);
}

/* The requests of a service without workers that have waited too long. */
static void zqb__service_tick (zqb__engine_t *engine, zqb__service_t *service)
{
    while (service->queued && !service->worker_count) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, place, service->queue.next);
        if (engine->now < zqb__after (request->arrived, engine->limits.no_worker))
            break;
        zqb__request_take_out (engine, request);
        zqb__request_end_with (engine, request, ZQB_ENOWORKER, &engine->stats.expired);
    }
    zqb__service_settle (engine, service);
}

/* ---- the door */

/* Whether there is room for another request, even if it is large; for this service, if there is a name. An engine that
   has none has room for whatever is not too large. */
static int zqb__engine_has_room (zqb__engine_t *engine, const char *name, size_t size)
{
    const zqb_stats_t *stats = &engine->stats;
    const zqb__service_t *service = name ? zqb__service_route (engine, name, size) : NULL;
    if (stats->queued + stats->running >= (uint64_t) engine->limits.requests)
        return 0;
    uint64_t large = engine->limits.bytes / 4;
    if (engine->limits.message < large)
        large = engine->limits.message;
    if (stats->bytes && engine->limits.bytes != INT64_MAX && zqb__too_many_bytes (engine, large))
        return 0;
    return !service || !zqb__service_is_full (engine, service, NULL);
}

static int zqb__engine_init (zqb__engine_t *engine, const zqb__limits_t *limits, const zqb__sink_t *sink, uint64_t seed,
                             uint64_t now)
{
    memset (engine, 0, sizeof *engine);
    engine->limits = *limits;
    engine->sink = *sink;
    engine->now = now;
    engine->caught_up = 1;
    engine->access_version = 1;
    zqb__engine_guard (engine);
    engine->key.k0 = seed;
    engine->key.k1 = seed * 0x9e3779b97f4a7c15u + 1;
    zqb__list_init (&engine->idle_peers);
    zqb__list_init (&engine->all_services);
    zqb__list_init (&engine->failed_peers);
    zqb__slab_init (&engine->requests, sizeof (zqb__request_t), (uint32_t) (seed >> 16));
    zqb__peer_init (&engine->nobody);
    engine->nobody.outstanding = 1; /* more than none, so that it never rests */
    zqb__table_t *tables[] = {&engine->peers, &engine->lives, &engine->connections, &engine->services, &engine->lanes,
                              &engine->ids, &engine->uniques, &engine->users};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (zqb__table_init (tables[i]) != 0) {
            while (i-- > 0)
                zqb__table_close (tables[i]);
            return -1;
        }
    return 0;
}

/* One of the requests of a client that has some. Of its lanes at most one is empty. */
static zqb__request_t *zqb__client_request (const zqb__peer_t *client)
{
    const zqb__link_t *at = client->lanes.next;
    if (zqb__list_empty (&ZQB__OF (zqb__lane_t, of_client, at)->requests))
        at = at->next;
    return ZQB__OF (zqb__request_t, of_lane, ZQB__OF (zqb__lane_t, of_client, at)->requests.next);
}

/* Those of a lane that are wanted even if their client goes are nobody's from now on. -1: ENOMEM, counted. */
static int zqb__lane_orphan (zqb__engine_t *engine, zqb__lane_t *lane)
{
    zqb__link_t *end = &lane->requests;
    zqb__lane_t *to = zqb__lane_require (engine, &engine->nobody, lane->service, lane->rank);
    engine->stats.no_memory += !to;
    for (zqb__link_t *at = end->next, *next; to && at != end; at = next) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, of_lane, at);
        next = at->next;
        if (zqb__request_flags (request) & ZQB__ONE_WAY)
            zqb__request_change_lane (engine, request, to);
    }
    return to ? 0 : -1;
}

static void zqb__client_orphan (zqb__engine_t *engine, zqb__peer_t *peer)
{
    for (zqb__link_t *at = peer->lanes.next, *next; peer->one_way && at != &peer->lanes; at = next) {
        next = at->next;
        if (zqb__lane_orphan (engine, ZQB__OF (zqb__lane_t, of_client, at)) != 0)
            return; /* they end with the others */
    }
}

/* A client can no longer be told anything. */
static void zqb__client_lost (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__client_orphan (engine, peer);
    while (peer->outstanding)
        zqb__request_abandon (engine, zqb__client_request (peer), ZQB__CLIENT_GONE);
}

/* A client of ZQB/1 may come back over another connection, and is waited for. 0: not this one. */
static int zqb__peer_waited_for (zqb__engine_t *engine, zqb__peer_t *peer)
{
    uint64_t at = zqb__after (engine->now, engine->limits.expiry);
    if (!peer->life || peer->worker || peer->given_up || at == UINT64_MAX)
        return 0;
    if (!peer->outstanding || peer->timer.place)
        return 1;
    return zqb__heap_set (&engine->timers, &peer->timer, at) == 0;
}

/* Replies that were packed for a peer and cannot be sent have not been given, and requests have not been tried. */
static void zqb__peer_drop_out (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__link_t *hand = peer->worker ? &peer->worker->hand : NULL;
    zqb__link_t *at = hand ? hand->prev : NULL;
    for (; peer->requests_out && at != hand; at = at->prev, peer->requests_out--)
        ZQB__OF (zqb__request_t, place, at)->attempts--;
    peer->requests_out = 0;
    engine->stats.replied -= peer->replies;
    engine->stats.client_gone += peer->replies;
    peer->replies = 0;
    zqb__parcel_clear (&peer->out);
    zqb__list_remove (&peer->dirty);
}

/* What follows when peers could not be reached. */
static void zqb__engine_bury (zqb__engine_t *engine)
{
    while (!zqb__list_empty (&engine->failed_peers)) {
        zqb__peer_t *peer = ZQB__OF (zqb__peer_t, failed, engine->failed_peers.next);
        zqb__peer_in_use (engine, peer);
        zqb__peer_drop_out (engine, peer);
        if (!zqb__peer_waited_for (engine, peer))
            zqb__client_lost (engine, peer);
        if (peer->worker)
            zqb__worker_lost (engine, peer->worker, "unreachable");
        engine->deaf |= peer == engine->heard;
        zqb__list_remove (&peer->failed);
        zqb__peer_rest (engine, peer);
    }
    zqb__peers_forget (engine);
}

/* Another sends from an address of its own choice that somebody had before: what that one had is not the new one's, and
   what he would be told of it is not sent. */
static void zqb__peer_reborn (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__peer_fail (engine, peer);
    zqb__peer_drop_out (engine, peer);
    zqb__client_lost (engine, peer);
    if (peer->worker)
        zqb__worker_lost (engine, peer->worker, "replaced");
    zqb__list_remove (&peer->failed);
    if (peer->life)
        zqb__table_remove (&engine->lives, &peer->by_life);
    peer->life = 0;
    zqb__engine_bury (engine);
    zqb__peer_in_use (engine, peer);
}

/* The client that lives at another address, or NULL. A worker is known by the address of its READY alone: what it
   holds was sent there. If it speaks from another, it is told to register from there. */
static zqb__peer_t *zqb__client_of_life (zqb__engine_t *engine, uint64_t life, const zqb__user_t *user, int local)
{
    zqb__peer_t *peer = life ? zqb__peer_of_life (engine, life, user, local) : NULL;
    return peer && !peer->worker ? peer : NULL;
}

static void zqb__engine_ask_who (zqb__engine_t *engine, zqb__identity_t *who)
{
    memset (who, 0, sizeof *who);
    if (engine->sink.identify)
        engine->sink.identify (engine->sink.self, who);
}

/* Who sends from an address that is not known: a client of ZQB/1 that has reconnected, or somebody new. NULL and
   ENOMEM. */
static zqb__peer_t *zqb__peer_come (zqb__engine_t *engine, int port, const void *address, size_t size, uint64_t hash,
                                    uint64_t life)
{
    zqb__identity_t who;
    zqb__user_t *user;
    zqb__engine_ask_who (engine, &who);
    if (zqb__user_require (engine, who.user, &user) != 0)
        return NULL;
    zqb__peer_t *peer = zqb__client_of_life (engine, life, user, who.local);
    if (peer && peer->former != hash)
        zqb__peer_move (engine, peer, port, address, size, hash);
    int is_new = !peer;
    if (is_new && (peer = zqb__peer_new (engine, port, address, size, hash)) != NULL) {
        peer->user = zqb__user_share (user);
        peer->local = who.local;
    }
    zqb__user_release (engine, user);
    return peer;
}

static void zqb__peer_take_life (zqb__engine_t *engine, zqb__peer_t *peer, uint64_t life)
{
    if (life && !peer->life && !zqb__peer_of_life (engine, life, peer->user, peer->local))
        zqb__peer_set_life (engine, peer, life);
}

/* The peer that is being heard may be another user than before, who has the same address now: then what that one had is
   not his. -1 and ENOMEM: it is not known who he is, and what he says is not to be heard. */
static int zqb__engine_recognise (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__identity_t who;
    zqb__user_t *user;
    zqb__engine_ask_who (engine, &who);
    if (zqb__user_require (engine, who.user, &user) != 0)
        return -1;
    if (user == peer->user && who.local == peer->local) {
        zqb__user_release (engine, user);
        return 0;
    }
    zqb__peer_reborn (engine, peer);
    zqb__user_release (engine, peer->user);
    peer->user = user;
    peer->local = who.local;
    zqb__peer_forget_grants (peer);
    memset (&peer->quota, 0, sizeof peer->quota);
    memset (&peer->pace, 0, sizeof peer->pace);
    zqb__peer_take_life (engine, peer, peer->said_life);
    return 0;
}

/* Who sends from this address on this port; life is 0 but in ZQB/1. To be released. NULL and ENOMEM. */
static zqb__peer_t *zqb__engine_peer (zqb__engine_t *engine, int port, const void *address, size_t size, uint64_t life)
{
    uint64_t hash = zqb__hash (engine->key, address, size);
    zqb__peer_t *peer = zqb__peer_find (engine, port, address, size, hash);
    if (!peer && (peer = zqb__peer_come (engine, port, address, size, hash, life)) == NULL)
        return NULL;
    peer->said_life = life;
    engine->heard = peer;
    peer->given_up = 0;
    zqb__peer_in_use (engine, peer);
    if (life && peer->life && peer->life != life)
        zqb__peer_reborn (engine, peer);
    zqb__heap_remove (&engine->timers, &peer->timer);
    zqb__peer_take_life (engine, peer, life);
    return peer;
}

/* The caller is done with a peer. */
static void zqb__engine_release (zqb__engine_t *engine, zqb__peer_t *peer)
{
    engine->heard = NULL;
    zqb__peer_rest (engine, peer);
}

/* A command of a peer, whose dialect the caller has set. -1: the peer cannot be told anything any more, and the rest of
   its message is to be passed over. */
static int zqb__engine_receive (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    engine->deaf = 0;
    if (peer->worker)
        peer->worker->heard = engine->now;
    switch (command->type) {
        case ZQB__READY: zqb__on_ready (engine, peer, command); break;
        case ZQB__REQUEST: zqb__on_request (engine, peer, command); break;
        case ZQB__PARTIAL: zqb__on_partial (engine, peer, command); break;
        case ZQB__REPLY: zqb__on_reply (engine, peer, command); break;
        case ZQB__ERROR: zqb__on_error (engine, peer, command); break;
        case ZQB__HEARTBEAT: zqb__on_heartbeat (engine, peer); break;
        case ZQB__DISCONNECT: zqb__on_disconnect (engine, peer, command); break;
        case ZQB__CANCEL: zqb__on_cancel (engine, peer, command); break;
        case ZQB__PROGRESS: zqb__on_progress (engine, peer, command); break;
        case ZQB__MORE: zqb__on_more (engine, peer, command); break;
        case ZQB__DRAIN: zqb__on_drain (engine, peer); break;
        default: break; /* ZQB/1 of a later version */
    }
    if (!zqb__list_empty (&engine->failed_peers))
        zqb__engine_bury (engine);
    return engine->deaf ? -1 : 0;
}

/* A peer sent something that is wrong: a worker is let go, as it cannot be relied upon; a client is told. */
static void zqb__engine_malformed (zqb__engine_t *engine, zqb__peer_t *peer, int side)
{
    int worker = peer->worker || (side == ZQB__WORKER && peer->dialect[ZQB__WORKER] != ZQB__ZQB1);
    zqb__command_t answer = zqb__command (ZQB__ERROR, 0);
    answer.status = ZQB_EMALFORMED - ZQB_ERRNO;
    if (peer->worker)
        zqb__worker_lost (engine, peer->worker, "malformed message");
    if (worker)
        zqb__send_away (engine, peer, ZQB_EMALFORMED);
    else
        zqb__engine_send (engine, peer, ZQB__CLIENT, &answer);
    zqb__engine_bury (engine);
}

/* A worker registers, or a client asks, at an endpoint that is not for it. */
static void zqb__engine_turn_away (zqb__engine_t *engine, zqb__peer_t *peer, const zqb__command_t *command)
{
    uint64_t *counter = &engine->stats.refused_endpoint;
    if (command->type == ZQB__REQUEST)
        zqb__refuse (engine, peer, command, ZQB_EREFUSED, counter);
    else
        zqb__refuse_worker (engine, peer, "this endpoint is for clients", counter);
    zqb__engine_bury (engine);
}

/* Something that a peer has said is lost for lack of memory. It may have been the reply of a worker: that is let go,
   and what it holds goes to others. LRU has no word for it, but there whoever said something is ready for the next. */
static void zqb__engine_missed (zqb__engine_t *engine, zqb__peer_t *peer)
{
    zqb__worker_t *worker = peer->worker;
    if (!worker)
        return;
    if (peer->dialect[ZQB__WORKER] == ZQB__LRU) {
        zqb__worker_take_back (engine, worker);
        zqb__worker_place (worker);
        zqb__worker_free_hand (engine, worker);
    } else {
        zqb__worker_lost (engine, worker, "no memory for what it said");
        zqb__send_away (engine, peer, 0);
    }
    zqb__engine_bury (engine);
}

/* A peer seems to be out of reach, but may have said something before that was not heard yet. */
static void zqb__engine_suspect (zqb__peer_t *peer)
{
    if (peer->worker)
        zqb__worker_retire (peer->worker);
}

/* What the sink took for a peer could not be sent. */
static void zqb__engine_lost (zqb__engine_t *engine, zqb__peer_t *peer)
{
    engine->stats.unsendable++;
    zqb__peer_fail (engine, peer);
    zqb__engine_bury (engine);
}

/* A connection is gone. A worker that came over it is lost. So is a client, but for one of ZQB/1, which may come back
   over another connection, and is waited for. When the caller has said this of all connections that are gone, it calls
   zqb__engine_bury: so no request is given to one dead worker after the other. */
static void zqb__engine_disconnected (zqb__engine_t *engine, int port, int connection)
{
    zqb__connection_t *gone;
    while ((gone = zqb__connection_find (engine, port, connection)) != NULL) {
        zqb__peer_t *peer = ZQB__OF (zqb__peer_t, of_connection, gone->peers.next);
        zqb__peer_leave_connection (engine, peer);
        if (!zqb__peer_waited_for (engine, peer))
            zqb__peer_fail (engine, peer);
    }
}

/* It was waited for, and did not come back. */
static void zqb__peer_give_up (zqb__engine_t *engine, zqb__peer_t *peer)
{
    peer->given_up = 1;
    zqb__peer_fail (engine, peer);
}

/* ---- how many workers a service should have */

/* How long the first of those that could be begun has waited. */
static uint64_t zqb__service_oldest (const zqb__engine_t *engine, const zqb__service_t *service)
{
    if (!service->queued)
        return 0;
    return engine->now - ZQB__OF (zqb__request_t, place, service->queue.next)->arrived;
}

/* How things stand at a service. What is delayed, or waits for one worker, would not be helped by another. A worker
   that gets nothing any more is none. */
static zqb_scale_t zqb__service_measure (const zqb__engine_t *engine, const zqb__service_t *service)
{
    zqb_scale_t scale;
    memset (&scale, 0, sizeof scale);
    scale.service = service->name;
    scale.queued = service->queued;
    scale.oldest_us = (int64_t) zqb__service_oldest (engine, service);
    for (const zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next) {
        const zqb__worker_t *worker = ZQB__OF (zqb__worker_t, of_service, at);
        if (worker->draining || !worker->credit)
            continue;
        if (worker->load)
            scale.busy++;
        else
            scale.idle++;
    }
    return scale;
}

/* Tells the host when another number is wanted than before. */
static void zqb__watch_tick (zqb__engine_t *engine, zqb__watch_t *watch)
{
    zqb_scale_t scale = zqb__service_measure (engine, watch->service);
    scale.wanted = zqb__scaling_sample (&watch->scaling, engine->now, &scale);
    zqb__heap_set (&engine->timers, &watch->timer, zqb__after (engine->now, ZQB__SCALE_US));
    if (scale.wanted == watch->told)
        return;
    watch->told = scale.wanted;
    engine->sink.scale (engine->sink.self, watch->fn, &scale, watch->arg);
}

static void zqb__service_unwatch (zqb__engine_t *engine, zqb__service_t *service)
{
    if (!service->watch)
        return;
    zqb__heap_remove (&engine->timers, &service->watch->timer);
    ZQB_FREE (service->watch);
    service->watch = NULL;
}

/* From now on fn is told how many workers a service should have, for the first time in the next tick. -1: ENOMEM,
   ENOSPC. */
static int zqb__engine_scale (zqb__engine_t *engine, const char *name, const zqb_scale_options_t *options,
                              zqb_scale_fn *fn, void *arg)
{
    zqb__service_t *service = zqb__service_require (engine, name, strlen (name));
    if (service && !service->watch)
        service->watch = (zqb__watch_t *) zqb__alloc (sizeof *service->watch);
    zqb__watch_t *watch = service ? service->watch : NULL;
    if (watch) {
        watch->service = service;
        watch->fn = fn;
        watch->arg = arg;
        watch->told = 0;
        watch->timer.kind = ZQB__TIMER_SCALE;
        zqb__scaling_init (&watch->scaling, options, service->worker_count, engine->now);
        zqb__heap_set (&engine->timers, &watch->timer, engine->now); /* there is room: it is reserved */
    } else if (service) {
        zqb__service_settle (engine, service);
        errno = ENOMEM;
    }
    return watch ? 0 : -1;
}

/* Nobody is told any more. */
static void zqb__engine_unscale (zqb__engine_t *engine, const char *name)
{
    zqb__service_t *service = zqb__service_find (engine, name, strlen (name));
    if (!service)
        return;
    zqb__service_unwatch (engine, service);
    zqb__service_settle (engine, service);
}

static void zqb__engine_due (zqb__engine_t *engine, zqb__timer_t *timer)
{
    switch (timer->kind) {
        case ZQB__TIMER_WORKER: zqb__worker_tick (engine, ZQB__OF (zqb__worker_t, timer, timer)); break;
        case ZQB__TIMER_SERVICE: zqb__service_tick (engine, ZQB__OF (zqb__service_t, timer, timer)); break;
        case ZQB__TIMER_REQUEST: zqb__request_tick (engine, ZQB__OF (zqb__extra_t, timer, timer)->request); break;
        case ZQB__TIMER_SCALE: zqb__watch_tick (engine, ZQB__OF (zqb__watch_t, timer, timer)); break;
        default: zqb__peer_give_up (engine, ZQB__OF (zqb__peer_t, timer, timer)); break;
    }
}

/* Does what is due at engine->now. */
static void zqb__engine_tick (zqb__engine_t *engine)
{
    zqb__timer_t *timer;
    while ((timer = zqb__heap_due (&engine->timers, engine->now)) != NULL)
        zqb__engine_due (engine, timer);
    zqb__engine_bury (engine);
}

/* When something will be due: UINT64_MAX is never. */
static uint64_t zqb__engine_next (const zqb__engine_t *engine)
{
    return zqb__heap_next_at (&engine->timers);
}

enum { ZQB__LATE_US = 250000 };

/* Whether what was due a whole heartbeat ago, and not just a moment, was not done: then we did not run, or our machine
   did not. */
static int zqb__engine_is_late (const zqb__engine_t *engine)
{
    uint64_t next = zqb__engine_next (engine), late = next < engine->now ? engine->now - next : 0;
    return late >= engine->limits.heartbeat && late >= ZQB__LATE_US;
}

/* Nobody gets a request until zqb__engine_go_on. After a standstill many may have gone, of which we hear one after the
   other: a request that is given to each of them in turn would be given up soon. */
static void zqb__engine_pause (zqb__engine_t *engine)
{
    engine->paused = 1;
}

static void zqb__engine_go_on (zqb__engine_t *engine)
{
    zqb__link_t *services = &engine->all_services;
    engine->paused = 0;
    for (zqb__link_t *at = services->next, *next = at->next; at != services; at = next, next = at->next) {
        zqb__service_t *service = ZQB__OF (zqb__service_t, all, at);
        zqb__service_serve_pins (engine, service);
        zqb__service_dispatch (engine, service);
    }
    zqb__engine_bury (engine);
}

/* Sets or, with NULL, removes the handler of a service. -1: ENOMEM, ENOSPC, EADDRINUSE (it has workers). */
static int zqb__engine_handle (zqb__engine_t *engine, const char *name, zqb_handler_fn *handler, void *arg)
{
    zqb__service_t *service = zqb__service_require (engine, name, strlen (name));
    if (!service)
        return -1;
    if (service->worker_count) {
        errno = EADDRINUSE;
        return -1;
    }
    service->handler = handler;
    service->handler_arg = arg;
    zqb__serve_queued (engine, service);
    if (handler)
        zqb__service_got_first (engine, service);
    zqb__service_settle (engine, service);
    zqb__engine_bury (engine);
    return 0;
}

/* Sets how long a worker of a service may be at work and finish nothing. -1: ENOMEM, ENOSPC. */
static int zqb__engine_limit (zqb__engine_t *engine, const char *name, uint64_t limit)
{
    zqb__service_t *service = zqb__service_require (engine, name, strlen (name));
    if (!service)
        return -1;
    service->limit = limit;
    for (zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next)
        zqb__worker_set_timer (engine, ZQB__OF (zqb__worker_t, of_service, at));
    zqb__service_settle (engine, service);
    return 0;
}

/* ---- rules that change */

/* Workers that may serve no more are sent away: none gets what another held. */
static void zqb__engine_deny_workers (zqb__engine_t *engine)
{
    zqb__link_t denied, *services = &engine->all_services;
    zqb__list_init (&denied);
    for (zqb__link_t *at = services->next; at != services; at = at->next) {
        zqb__service_t *service = ZQB__OF (zqb__service_t, all, at);
        for (zqb__link_t *of = service->workers.next; of != &service->workers; of = of->next) {
            zqb__worker_t *worker = ZQB__OF (zqb__worker_t, of_service, of);
            if (zqb__worker_may (engine, worker->peer, service->name, service->name_size))
                continue;
            zqb__worker_retire (worker);
            zqb__list_append (&denied, &worker->denied);
        }
    }
    while (!zqb__list_empty (&denied)) {
        zqb__worker_t *worker = ZQB__OF (zqb__worker_t, denied, denied.next);
        zqb__peer_t *peer = worker->peer;
        zqb__list_remove (&worker->denied);
        zqb__deny_worker (engine, peer, worker->service->name, worker->service->name_size);
        zqb__worker_remove (engine, worker);
        zqb__peer_rest (engine, peer);
    }
}

/* Whether a request that a client still has may be asked for. What a survey asks for goes with it. */
static int zqb__request_may (zqb__engine_t *engine, const zqb__request_t *request)
{
    zqb__command_t name = zqb__command (ZQB__REQUEST, 0);
    if (request->extra && request->extra->survey)
        return 1;
    zqb__request_name (request, &name);
    int survey = zqb__request_aside (request) == ZQB__SURVEYING && !request->worker;
    name.flags = survey ? (int) ZQB__SURVEY : 0;
    return zqb__client_may (engine, request->lane->service, request->lane->client, zqb__action_of (&name),
                            name.service, name.service_size);
}

enum { ZQB__DENIED_SOME = 32 };

/* Requests that may not be asked for any more, by their tokens: all at once, or some when there is no memory. */
typedef struct zqb__denied_t {
    uint64_t some[ZQB__DENIED_SOME], *tokens;
    size_t count, most;
} zqb__denied_t;

static void zqb__lane_find_denied (zqb__engine_t *engine, const zqb__lane_t *lane, zqb__denied_t *denied)
{
    if (lane->client == &engine->nobody)
        return;
    for (zqb__link_t *in = lane->requests.next; in != &lane->requests && denied->count < denied->most; in = in->next) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, of_lane, in);
        if (!zqb__request_may (engine, request))
            denied->tokens[denied->count++] = zqb__slot_token (&request->slot);
    }
}

/* Returns how many it found. */
static size_t zqb__engine_find_denied (zqb__engine_t *engine, zqb__denied_t *denied)
{
    zqb__link_t *services = &engine->all_services;
    denied->count = 0;
    for (zqb__link_t *at = services->next; at != services; at = at->next) {
        zqb__link_t *lanes = &ZQB__OF (zqb__service_t, all, at)->lanes;
        for (zqb__link_t *of = lanes->next; of != lanes; of = of->next)
            zqb__lane_find_denied (engine, ZQB__OF (zqb__lane_t, of_service, of), denied);
    }
    return denied->count;
}

/* A client may not ask for this any more: it is cancelled, and he is told. If others have joined it, it goes on for
   them. */
static void zqb__request_deny (zqb__engine_t *engine, zqb__request_t *request)
{
    zqb__command_t sorry = zqb__command (ZQB__ERROR, 0);
    zqb__command_t name = zqb__command (ZQB__REQUEST, 0);
    sorry.status = ZQB_EDENIED - ZQB_ERRNO;
    engine->stats.denied_call++;
    zqb__request_name (request, &name);
    zqb__complain (engine, request->lane->client, 0, name.service, name.service_size);
    zqb__request_tell (engine, request, &sorry);
    zqb__request_abandon (engine, request, ZQB__CANCELLED);
}

/* Denies those that are still there. Whether there was one: a host may have changed its mind of all of them. */
static int zqb__engine_deny_found (zqb__engine_t *engine, const zqb__denied_t *denied)
{
    int some = 0;
    for (size_t i = 0; i < denied->count; i++) {
        zqb__request_t *request = (zqb__request_t *) zqb__slab_find (&engine->requests, denied->tokens[i]);
        if (!request || !request->lane || zqb__request_may (engine, request))
            continue;
        zqb__request_deny (engine, request);
        some = 1;
    }
    return some;
}

/* What clients may not ask for any more ends; what takes the place of something that has ended, as it had joined that,
   may be of that kind, too. */
static void zqb__engine_deny_requests (zqb__engine_t *engine)
{
    zqb__denied_t denied;
    size_t room = zqb__slab_room (&engine->requests);
    uint64_t *all = (uint64_t *) ZQB_MALLOC (room * sizeof *all);
    denied.tokens = all ? all : denied.some;
    denied.most = all ? room : (size_t) ZQB__DENIED_SOME;
    for (int some = 1; some && zqb__engine_find_denied (engine, &denied) > 0;)
        some = zqb__engine_deny_found (engine, &denied);
    ZQB_FREE (all);
}

/* The rules have changed, or who is welcome: what they say holds from now on, for what is there, too. */
static void zqb__engine_access_changed (zqb__engine_t *engine)
{
    engine->access_version++;
    zqb__engine_guard (engine);
    if (zqb__engine_checks (engine)) {
        zqb__engine_deny_workers (engine);
        zqb__engine_deny_requests (engine);
    }
    zqb__engine_bury (engine);
}

/* Takes these over, instead of those before; NULL: everything is allowed. */
static void zqb__engine_rules (zqb__engine_t *engine, zqb__rules_t *rules)
{
    zqb__rules_free (engine->rules);
    engine->rules = rules;
    zqb__engine_access_changed (engine);
}

/* Has somebody look at a peer of each connection that is known. */
static void zqb__engine_connections (zqb__engine_t *engine, int (*look) (void *self, const zqb__peer_t *peer),
                                     void *self)
{
    for (size_t i = 0; i < engine->connections.size; i++)
        for (zqb__node_t *node = engine->connections.buckets[i]; node; node = node->next) {
            zqb__connection_t *connection = ZQB__OF (zqb__connection_t, by_number, node);
            look (self, ZQB__OF (zqb__peer_t, of_connection, connection->peers.next));
        }
}

/* Sets by which policy the workers of a service are chosen. -1: ENOMEM, ENOSPC. */
static int zqb__engine_policy (zqb__engine_t *engine, const char *name, int policy, zqb_choose_fn *choose, void *arg)
{
    zqb__service_t *service = zqb__service_require (engine, name, strlen (name));
    if (!service)
        return -1;
    service->policy = policy;
    service->choose = choose;
    service->choose_arg = arg;
    for (zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next)
        zqb__worker_unplace (ZQB__OF (zqb__worker_t, of_service, at));
    for (zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next)
        zqb__worker_place (ZQB__OF (zqb__worker_t, of_service, at));
    zqb__service_settle (engine, service);
    return 0;
}

/* Drains the worker of this number, or, with 0, all that a service has. -1: ENOENT. */
static int zqb__engine_drain (zqb__engine_t *engine, const char *name, uint64_t number)
{
    zqb__service_t *service = zqb__service_find (engine, name, strlen (name));
    int left = service ? service->worker_count : 0, found = 0;
    zqb__link_t *at = left ? service->workers.next : NULL;
    for (; left > 0; left--) { /* the service may be gone with the last */
        zqb__worker_t *worker = ZQB__OF (zqb__worker_t, of_service, at);
        at = at->next;
        if (number && worker->number != number)
            continue;
        found = 1;
        if (!worker->draining)
            zqb__worker_drain (engine, worker);
    }
    zqb__engine_bury (engine);
    if (found)
        return 0;
    errno = ENOENT;
    return -1;
}

/* One step towards having no services: a worker is sent away, or a request ended. */
static void zqb__engine_finish_service (zqb__engine_t *engine, zqb__service_t *service)
{
    service->handler = NULL;
    service->limit = UINT64_MAX;
    service->policy = ZQB_POLICY_LRU;
    zqb__service_unwatch (engine, service);
    if (service->worker_count) {
        zqb__worker_t *worker = ZQB__OF (zqb__worker_t, of_service, service->workers.next);
        zqb__send_away (engine, worker->peer, 0);
        zqb__worker_remove (engine, worker);
        return;
    }
    zqb__link_t *waiting = service->queued ? &service->queue : &service->delayed;
    if (!zqb__list_empty (waiting)) {
        zqb__request_t *request = ZQB__OF (zqb__request_t, place, waiting->next);
        zqb__request_take_out (engine, request);
        zqb__request_end_with (engine, request, ZQB_ECANCELLED, &engine->stats.cancelled);
    }
    zqb__service_settle (engine, service);
}

/* Tells workers and clients that it is over. Nothing is left but peers, for whom the sink may have something. */
static void zqb__engine_finish (zqb__engine_t *engine)
{
    zqb__link_t *services = &engine->all_services;
    engine->ending = 1;
    for (zqb__link_t *at = services->next; at != services; at = at->next) {
        zqb__link_t *workers = &ZQB__OF (zqb__service_t, all, at)->workers;
        for (zqb__link_t *of = workers->next; of != workers; of = of->next)
            zqb__worker_retire (ZQB__OF (zqb__worker_t, of_service, of));
    }
    while (!zqb__list_empty (services))
        zqb__engine_finish_service (engine, ZQB__OF (zqb__service_t, all, services->next));
    zqb__engine_bury (engine);
}

static void zqb__engine_close (zqb__engine_t *engine)
{
    zqb__engine_finish (engine);
    for (size_t i = 0; i < engine->peers.size; i++)
        for (zqb__node_t *node = engine->peers.buckets[i], *next; node; node = next) {
            next = node->next;
            zqb__peer_leave_connection (engine, ZQB__OF (zqb__peer_t, by_address, node));
            zqb__user_release (engine, ZQB__OF (zqb__peer_t, by_address, node)->user);
            zqb__peer_free (ZQB__OF (zqb__peer_t, by_address, node));
        }
    zqb__table_close (&engine->connections);
    zqb__table_close (&engine->peers);
    zqb__table_close (&engine->lives);
    zqb__table_close (&engine->services);
    zqb__table_close (&engine->lanes);
    zqb__table_close (&engine->ids);
    zqb__table_close (&engine->uniques);
    zqb__table_close (&engine->users);
    zqb__rules_free (engine->rules);
    engine->rules = NULL;
    zqb__heap_close (&engine->timers);
    zqb__slab_close (&engine->requests);
}

/* ================================================================================================================
   >>keys
   Owns:    what a socket has to prove and to ask for: CURVE keys, PLAIN users and passwords, the ZAP domain; and that
            our copies of secrets are wiped
   Door:    zqb__keys_*, zqb__key_decode, zqb_curve_keypair
   Uses:    platform, what libzmq has for it
   Never:   logs a secret; decides who may do what
   ================================================================================================================ */

enum { ZQB__KEY = 32, ZQB__KEY_TEXT = 40, ZQB__KEY_FILE = 4095, ZQB__PLAIN_MAX = 255 };

/* An allocation that only those have who want security. */
typedef struct zqb__keys_t {
    int mechanism; /* ZMQ_NULL, ZMQ_PLAIN, ZMQ_CURVE */
    int is_broker;
    int enforced;  /* without a ZAP handler nobody gets in */
    unsigned char server_public[ZQB__KEY], public_key[ZQB__KEY], secret_key[ZQB__KEY];
    char user[ZQB__PLAIN_MAX + 1], password[ZQB__PLAIN_MAX + 1], domain[ZQB__PLAIN_MAX + 1];
} zqb__keys_t;

static void zqb__keys_free (zqb__keys_t **keys)
{
    if (!*keys)
        return;
    zqb__wipe (*keys, sizeof **keys);
    ZQB_FREE (*keys);
    *keys = NULL;
}

/* NULL of NULL; NULL and ENOMEM. */
static zqb__keys_t *zqb__keys_copy (const zqb__keys_t *keys)
{
    zqb__keys_t *copy = keys ? (zqb__keys_t *) zqb__alloc (sizeof *copy) : NULL;
    if (copy)
        *copy = *keys;
    return copy;
}

/* libzmq may have been built without CURVE. -1 and ENOTSUP. */
static int zqb__keys_have_curve (void)
{
    if (zmq_has ("curve"))
        return 0;
    errno = ENOTSUP;
    return -1;
}

ZQB_API int zqb_curve_keypair (char public_key[41], char secret_key[41])
{
    if (!public_key || !secret_key)
        return zqb__invalid ();
    return zqb__keys_have_curve () == 0 ? zmq_curve_keypair (public_key, secret_key) : -1;
}

/* ---- keys as text */

/* The 40 characters that begin here, behind which only `end` may follow. Older libzmqs look up what is not Z85, too,
   and take numbers that are too large, so both is looked at here. -1 and EINVAL. */
static int zqb__key_decode (const char *text, char end, unsigned char key[ZQB__KEY])
{
    static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  ".-:+=^!/*?&<>()[]{}@%$#";
    char copy[ZQB__KEY_TEXT + 1], again[ZQB__KEY_TEXT + 1];
    if (strspn (text, letters) != ZQB__KEY_TEXT || text[ZQB__KEY_TEXT] != end)
        return zqb__invalid ();
    memcpy (copy, text, ZQB__KEY_TEXT);
    copy[ZQB__KEY_TEXT] = 0;
    int is_key = zmq_z85_decode (key, copy) && zmq_z85_encode (again, key, ZQB__KEY) && strcmp (again, copy) == 0;
    zqb__wipe (copy, sizeof copy);
    zqb__wipe (again, sizeof again);
    return is_key ? 0 : zqb__invalid ();
}

/* If this line gives what has that name, where that begins; else NULL. */
static const char *zqb__key_value (const char *line, const char *name)
{
    line += strspn (line, " \t");
    if (strncmp (line, name, strlen (name)) != 0)
        return NULL;
    line += strlen (name);
    line += strspn (line, " \t");
    return *line == '=' ? line + 1 + strspn (line + 1, " \t") : NULL;
}

/* Looks for the line of a certificate that has the key. -1 and EINVAL. */
static int zqb__key_find (const char *text, const char *name, unsigned char key[ZQB__KEY])
{
    for (const char *line = text; line; line = strchr (line, '\n')) {
        line += *line == '\n';
        const char *value = zqb__key_value (line, name);
        if (value && (*value == '"' || *value == '\''))
            return zqb__key_decode (value + 1, *value, key);
    }
    return zqb__invalid ();
}

/* -1: see "security" in the api. */
static int zqb__key_read (const char *given, int is_secret, unsigned char key[ZQB__KEY])
{
    zqb__file_t file;
    if (strncmp (given, "file:", 5) != 0)
        return zqb__key_decode (given, 0, key);
    if (zqb__file_read (&file, given + 5, ZQB__KEY_FILE, is_secret) != 0)
        return -1;
    int failed = zqb__key_find (file.text, is_secret ? "secret-key" : "public-key", key), error = errno;
    zqb__file_free (&file);
    errno = error;
    return failed;
}

/* A new pair, or the public key of the secret one that is there. -1: what libzmq says. */
static int zqb__keys_complete (zqb__keys_t *keys, int has_secret)
{
    char public_text[ZQB__KEY_TEXT + 1], secret_text[ZQB__KEY_TEXT + 1];
    int failed = has_secret ? !zmq_z85_encode (secret_text, keys->secret_key, ZQB__KEY)
                                || zmq_curve_public (public_text, secret_text) != 0
                            : zmq_curve_keypair (public_text, secret_text) != 0;
    if (!failed)
        failed = zqb__key_decode (public_text, 0, keys->public_key) != 0
                 || (!has_secret && zqb__key_decode (secret_text, 0, keys->secret_key) != 0);
    zqb__wipe (secret_text, sizeof secret_text);
    return failed ? -1 : 0;
}

/* ---- what the options say */

/* A text of so many bytes at most. -1 and EINVAL. */
static int zqb__keys_keep_text (char to[ZQB__PLAIN_MAX + 1], const char *text, size_t least)
{
    size_t size = text ? strlen (text) : 0;
    if (size < least || size > ZQB__PLAIN_MAX)
        return zqb__invalid ();
    if (size)
        memcpy (to, text, size);
    return 0;
}

static int zqb__keys_set_curve (zqb__keys_t *keys, const char *server_public, const char *public_key,
                                const char *secret_key)
{
    keys->mechanism = ZMQ_CURVE;
    if (!server_public || (public_key && !secret_key))
        return zqb__invalid ();
    if (zqb__keys_have_curve () != 0 || zqb__key_read (server_public, 0, keys->server_public) != 0
        || (secret_key && zqb__key_read (secret_key, 1, keys->secret_key) != 0))
        return -1;
    return public_key ? zqb__key_read (public_key, 0, keys->public_key) : zqb__keys_complete (keys, secret_key != NULL);
}

/* A password, or the first line of the file that has it. -1: as for a key. */
static int zqb__keys_keep_password (zqb__keys_t *keys, const char *given)
{
    zqb__file_t file;
    if (!given || strncmp (given, "file:", 5) != 0)
        return zqb__keys_keep_text (keys->password, given, 1);
    if (zqb__file_read (&file, given + 5, ZQB__KEY_FILE, 1) != 0)
        return -1;
    file.text[strcspn (file.text, "\r\n")] = 0;
    int failed = zqb__keys_keep_text (keys->password, file.text, 1), error = errno;
    zqb__file_free (&file);
    errno = error;
    return failed;
}

static int zqb__keys_set_plain (zqb__keys_t *keys, const char *user, const char *password)
{
    keys->mechanism = ZMQ_PLAIN;
    return zqb__keys_keep_text (keys->user, user, 1) == 0 ? zqb__keys_keep_password (keys, password) : -1;
}

/* NULL and errno, if what was set is not all right. */
static zqb__keys_t *zqb__keys_unless (int failed, zqb__keys_t *keys)
{
    int error = errno;
    if (failed)
        zqb__keys_free (&keys);
    errno = error;
    return keys;
}

/* Those of a worker or a client, or NULL if it has none. -1: see "security" in the api; ENOMEM; EINVAL: half of
   something, or both. */
static int zqb__keys_of_peer (zqb__keys_t **keys, const char *server_public, const char *public_key,
                              const char *secret_key, const char *user, const char *password)
{
    int curve = server_public || public_key || secret_key, plain = user || password;
    *keys = NULL;
    if (!curve && !plain)
        return 0;
    if (curve && plain)
        return zqb__invalid ();
    zqb__keys_t *filled = (zqb__keys_t *) zqb__alloc (sizeof *filled);
    if (!filled)
        return -1;
    int failed = curve ? zqb__keys_set_curve (filled, server_public, public_key, secret_key)
                       : zqb__keys_set_plain (filled, user, password);
    *keys = zqb__keys_unless (failed, filled);
    return failed;
}

static int zqb__keys_set_broker (zqb__keys_t *keys, const zqb_broker_options_t *options)
{
    keys->is_broker = 1;
    keys->mechanism = options->server_secret ? ZMQ_CURVE : options->plain ? ZMQ_PLAIN : ZMQ_NULL;
    keys->enforced = options->plain || options->zap_domain || options->auth;
    if (zqb__keys_keep_text (keys->domain, options->zap_domain ? options->zap_domain : "zqbroker", 1) != 0)
        return -1;
    if (!options->server_secret)
        return 0;
    return zqb__keys_have_curve () == 0 ? zqb__key_read (options->server_secret, 1, keys->secret_key) : -1;
}

/* The same for a broker. */
static int zqb__keys_of_broker (zqb__keys_t **keys, const zqb_broker_options_t *options)
{
    *keys = NULL;
    if (options->plain < 0 || options->plain > 1 || (options->plain && options->server_secret))
        return zqb__invalid ();
    if (!options->plain && !options->server_secret && !options->zap_domain && !options->auth)
        return 0;
    zqb__keys_t *filled = (zqb__keys_t *) zqb__alloc (sizeof *filled);
    if (!filled)
        return -1;
    int failed = zqb__keys_set_broker (filled, options);
    *keys = zqb__keys_unless (failed, filled);
    return failed;
}

/* ---- sockets */

/* libzmq has it since 4.2.3, though its header shows it only to those who want drafts. */
enum { ZQB__ZAP_ENFORCE_DOMAIN = 93 };

/* Without a handler nobody is to get in. -1 and ENOTSUP: this libzmq would let them in. */
static int zqb__zap_enforce (void *socket)
{
    int on = 1;
    if (zmq_setsockopt (socket, ZQB__ZAP_ENFORCE_DOMAIN, &on, sizeof on) == 0)
        return 0;
    errno = ENOTSUP;
    return -1;
}

static int zqb__keys_apply_broker (const zqb__keys_t *keys, void *socket)
{
    int on = 1;
    if (zmq_setsockopt (socket, ZMQ_ZAP_DOMAIN, keys->domain, strlen (keys->domain)) != 0
        || (keys->enforced && zqb__zap_enforce (socket) != 0))
        return -1;
    if (keys->mechanism == ZMQ_PLAIN)
        return zmq_setsockopt (socket, ZMQ_PLAIN_SERVER, &on, sizeof on);
    if (keys->mechanism == ZMQ_NULL)
        return 0;
    return zmq_setsockopt (socket, ZMQ_CURVE_SERVER, &on, sizeof on) == 0
             ? zmq_setsockopt (socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, ZQB__KEY)
             : -1;
}

static int zqb__keys_apply_peer (const zqb__keys_t *keys, void *socket)
{
    if (keys->mechanism == ZMQ_PLAIN)
        return zmq_setsockopt (socket, ZMQ_PLAIN_USERNAME, keys->user, strlen (keys->user)) == 0
                 ? zmq_setsockopt (socket, ZMQ_PLAIN_PASSWORD, keys->password, strlen (keys->password))
                 : -1;
    if (zmq_setsockopt (socket, ZMQ_CURVE_SERVERKEY, keys->server_public, ZQB__KEY) != 0
        || zmq_setsockopt (socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, ZQB__KEY) != 0)
        return -1;
    return zmq_setsockopt (socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, ZQB__KEY);
}

/* Sets up a socket before it is bound or connected. -1: what zmq_setsockopt says; then it must not be used, as nothing
   would protect it. */
static int zqb__keys_apply (const zqb__keys_t *keys, void *socket)
{
    if (!keys)
        return 0;
    return keys->is_broker ? zqb__keys_apply_broker (keys, socket) : zqb__keys_apply_peer (keys, socket);
}

/* ================================================================================================================
   >>transport
   Owns:    messages of several frames on sockets: receiving into an inbox, sending from an outbox, how much waits there
   Door:    zqb__inbox_*, zqb__outbox_*, zqb__monitor_*
   Uses:    platform, message, zmq_msg_recv and zmq_msg_send
   Never:   blocks, unless the socket of a worker says so; knows who sends or why
   ================================================================================================================ */

typedef struct zqb__inbox_t {
    zmq_msg_t *frames;
    size_t count, capacity;
    size_t limit; /* so many are kept; SIZE_MAX all */
    int overflow; /* there were more */
    int starved;  /* there was no memory for one, and none is kept from there on */
} zqb__inbox_t;

static void zqb__inbox_clear (zqb__inbox_t *inbox)
{
    for (size_t i = 0; i < inbox->count; i++)
        zmq_msg_close (&inbox->frames[i]);
    inbox->count = 0;
    inbox->overflow = inbox->starved = 0;
}

static void zqb__inbox_close (zqb__inbox_t *inbox)
{
    zqb__inbox_clear (inbox);
    ZQB_FREE (inbox->frames);
    inbox->frames = NULL;
    inbox->capacity = 0;
}

/* Whether libzmq may take it for a command of ZMTP, SUBSCRIBE or CANCEL: it hands these out like frames, of which they
   are the beginning, and would send it on as a command, and garbled. Smaller ones are copied anyway. */
static int zqb__frame_may_command (zmq_msg_t *frame)
{
    const void *data = zmq_msg_data (frame);
    return zmq_msg_size (frame) >= ZQB__LARGE_FROM
           && (memcmp (data, "\6CANCEL", 7) == 0 || memcmp (data, "\11SUBSCRIBE", 10) == 0);
}

/* Makes it a plain one. -1 and ENOMEM. */
static int zqb__frame_strip (zmq_msg_t *frame)
{
    zmq_msg_t plain;
    if (zqb__frame_fill (&plain, zmq_msg_data (frame), zmq_msg_size (frame)) != 0)
        return -1;
    zmq_msg_close (frame);
    zqb__move_frames (frame, &plain, 1);
    return 0;
}

/* Keeps a frame, or drops it when there are too many, or no memory. The first two tell of the connection, and are never
   sent on. */
static void zqb__inbox_keep (zqb__inbox_t *inbox, zmq_msg_t *frame)
{
    void **frames = (void **) &inbox->frames;
    inbox->overflow |= inbox->count >= inbox->limit;
    if (!inbox->overflow && !inbox->starved)
        inbox->starved = zqb__grow (frames, &inbox->capacity, inbox->count + 1, sizeof *inbox->frames) != 0;
    if (!inbox->overflow && !inbox->starved && inbox->count >= 2 && zqb__frame_may_command (frame))
        inbox->starved = zqb__frame_strip (frame) != 0;
    if (inbox->overflow || inbox->starved)
        zmq_msg_close (frame);
    else
        zqb__move_frames (&inbox->frames[inbox->count++], frame, 1);
}

/* How long a receive blocks where it may. Blocking in libzmq takes two system calls less than to look, to poll and to
   look again, but nothing else is seen meanwhile: so it is for a moment only, in which answers come to those who are
   quick. A shorter time would cost more than it saves, as it would be the next thing that the kernel has to set its
   clock for. */
enum { ZQB__BLOCK_MS = 4, ZQB__BLOCK_US = 1000 * ZQB__BLOCK_MS };

/* Receives a message: 1; 0: none; -1: ETERM and other errors of the socket. flags: ZMQ_DONTWAIT only looks, 0 blocks
   for a moment, which may end with EINTR. */
static int zqb__inbox_receive (zqb__inbox_t *inbox, void *socket, int flags)
{
    int more = 1;
    zqb__inbox_clear (inbox);
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init (&frame);
        if (zmq_msg_recv (&frame, socket, flags) < 0) {
            zmq_msg_close (&frame);
            if (errno == EINTR && flags)
                continue;
            return errno == EAGAIN ? 0 : -1;
        }
        more = zmq_msg_more (&frame);
        flags = ZMQ_DONTWAIT; /* a message comes whole */
        zqb__inbox_keep (inbox, &frame);
    }
    return 1;
}

/* Whether a receive would tell something: a message, or that the context has ended. */
static int zqb__socket_readable (void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt (socket, ZMQ_EVENTS, &events, &size) != 0 || (events & ZMQ_POLLIN);
}

/* ---- monitors: libzmq says there what happens to the connections of a socket */

/* A socket that tells of some kinds of events. It is looked at once, in vain: only then libzmq makes its descriptor
   readable when there is something. NULL: what zmq_socket_monitor and zmq_socket say. */
static void *zqb__monitor_open (void *ctx, void *socket, int events)
{
    char endpoint[64];
    snprintf (endpoint, sizeof endpoint, "inproc://zqbroker-monitor-%016llx", (unsigned long long) zqb__random ());
    if (zmq_socket_monitor (socket, endpoint, events) != 0)
        return NULL;
    void *monitor = zmq_socket (ctx, ZMQ_PAIR);
    if (monitor) {
        zqb__set_int (monitor, ZMQ_LINGER, 0);
        zqb__set_int (monitor, ZMQ_RCVHWM, 0);
        if (zmq_connect (monitor, endpoint) == 0) {
            zqb__socket_readable (monitor);
            return monitor;
        }
    }
    int error = errno;
    zmq_socket_monitor (socket, NULL, 0);
    if (monitor)
        zmq_close (monitor);
    errno = error;
    return NULL;
}

/* The watch is ended before the monitor is closed: libzmq would wait for ever to tell of the next event. */
static void zqb__monitor_close (void *socket, void *monitor)
{
    if (!monitor)
        return;
    zmq_socket_monitor (socket, NULL, 0);
    zmq_close (monitor);
}

/* The next event and its value: 1; 0: there is none. */
static int zqb__monitor_next (void *monitor, zqb__inbox_t *inbox, uint16_t *event, int32_t *value)
{
    while (zqb__inbox_receive (inbox, monitor, ZMQ_DONTWAIT) == 1)
        if (inbox->count && zmq_msg_size (&inbox->frames[0]) >= sizeof *event + sizeof *value) {
            const char *data = (const char *) zmq_msg_data (&inbox->frames[0]);
            memcpy (event, data, sizeof *event);
            memcpy (value, data + sizeof *event, sizeof *value);
            return 1;
        }
    return 0;
}

/* ---- the outbox is a message whose memory is used again and again */

static void zqb__outbox_clear (zqb_msg_t *outbox)
{
    for (size_t i = 0; i < outbox->count_; i++)
        zmq_msg_close (&zqb__msg_frames (outbox)[i]);
    outbox->count_ = 0;
}

/* Adds the frames of an address, which is laid out like a body block. */
static int zqb__outbox_add_address (zqb_msg_t *outbox, const unsigned char *address, size_t size)
{
    zqb__body_t body;
    memset (&body, 0, sizeof body);
    body.block = address;
    body.size = size;
    return zqb__body_to_msg (&body, outbox);
}

/* Adds a parcel: its bytes as one frame, and the large frames, which are moved out of it. -1: ENOMEM, and it is
   whole. */
static int zqb__outbox_add_parcel (zqb_msg_t *outbox, zqb__parcel_t *parcel)
{
    if (zqb__msg_reserve (outbox, 1 + parcel->large_count) != 0
        || zqb_msg_add (outbox, parcel->bytes.bytes, parcel->bytes.size) != 0)
        return -1;
    for (size_t i = 0; i < parcel->large_count; i++)
        if (zqb_msg_add_frame (outbox, &parcel->large[i]) != 0)
            return -1;
    return 0;
}

/* ---- tickets: libzmq does not tell how much waits to be sent. So a larger message carries a ticket, in one of its
   frames, which libzmq gives back, in a thread of its own, when that is sent or dropped. */

typedef struct zqb__ticket_t {
    zmq_msg_t frame; /* what that frame was before */
    zqb__account_t *account;
    uint64_t bytes;
} zqb__ticket_t;

enum { ZQB__TICKET_FROM = 4096 }; /* bytes; what is less is bounded by how many messages may wait */

static void zqb__ticket_return (void *data, void *hint)
{
    zqb__ticket_t *ticket = (zqb__ticket_t *) hint;
    (void) data;
    zmq_msg_close (&ticket->frame);
    zqb__account_release (ticket->account, ticket->bytes);
    ZQB_FREE (ticket);
}

/* Puts a ticket into a frame, and takes it over. -1: ENOMEM, and it is as it was. */
static int zqb__ticket_put (zqb__ticket_t *ticket, zmq_msg_t *frame)
{
    zqb__move_frames (&ticket->frame, frame, 1);
    zmq_msg_t *was = &ticket->frame;
    if (zmq_msg_init_data (frame, zmq_msg_data (was), zmq_msg_size (was), zqb__ticket_return, ticket) == 0)
        return 0;
    zqb__move_frames (frame, was, 1);
    return -1;
}

static zmq_msg_t *zqb__outbox_largest (zqb_msg_t *outbox, uint64_t *bytes)
{
    zmq_msg_t *frames = zqb__msg_frames (outbox), *largest = frames;
    *bytes = 0;
    for (size_t i = 0; i < zqb_msg_count (outbox); i++) {
        *bytes += zmq_msg_size (&frames[i]);
        if (zmq_msg_size (&frames[i]) > zmq_msg_size (largest))
            largest = &frames[i];
    }
    return largest;
}

/* Counts what is to be sent, if it is large. -1 and EAGAIN: too much is under way. Without memory it is not counted. */
static int zqb__outbox_count (zqb_msg_t *outbox, zqb__account_t *account)
{
    uint64_t bytes;
    zmq_msg_t *largest = zqb__outbox_largest (outbox, &bytes);
    zqb__ticket_t *ticket = bytes < ZQB__TICKET_FROM ? NULL : (zqb__ticket_t *) zqb__alloc (sizeof *ticket);
    if (!ticket)
        return 0;
    ticket->account = account;
    ticket->bytes = bytes;
    int fits = zqb__account_use (account, bytes) == 0;
    if (fits && zqb__ticket_put (ticket, largest) == 0)
        return 0;
    if (fits)
        zqb__account_release (account, bytes);
    ZQB_FREE (ticket);
    return fits ? 0 : -1;
}

/* Sends the frames as one message. -1: EHOSTUNREACH, EAGAIN, ETERM ...; nothing has been sent then. */
static int zqb__outbox_send (zqb_msg_t *outbox, void *socket, int flags)
{
    size_t count = zqb_msg_count (outbox);
    for (size_t i = 0; i < count; i++) {
        int more = i + 1 < count ? ZMQ_SNDMORE : 0;
        while (zmq_msg_send (&zqb__msg_frames (outbox)[i], socket, flags | more) < 0)
            if (errno != EINTR)
                return -1;
    }
    return 0;
}

/* ================================================================================================================
   >>security
   Owns:    who may connect: lists of addresses, keys and users, the file that has them, the thread that answers ZAP
   Door:    zqb_auth_*; zqb__auth_watch, _unwatch, _version, _admits: for a broker, of peers that were let in before
   Uses:    transport, keys (zqb__key_decode), containers, platform
   Never:   tells a password, or leaves one in memory that is given back; holds its lock while the host is asked
   Where to look: a book is what is listed; there is one of calls and one of the file, so that a reload just exchanges
            the latter. zqb__zap_read reads a request, zqb__auth_judge says what becomes of it.
   ================================================================================================================ */

/* ---- addresses */

enum { ZQB__NET_UNKNOWN = 0, ZQB__NET_IPC = 1, ZQB__NET_IP4 = 4, ZQB__NET_IP6 = 6 };
enum { ZQB__NET_TEXT = 64 };

/* An address, or all that have the same first bits. */
typedef struct zqb__net_t {
    int family;
    int allow;
    unsigned bits;
    unsigned char bytes[16];
} zqb__net_t;

/* IPv6 that stands for IPv4 is IPv4: a socket of both kinds tells of IPv4 peers that way. */
static void zqb__net_unmap (zqb__net_t *net)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (net->family != ZQB__NET_IP6 || net->bits < 96 || memcmp (net->bytes, mapped, sizeof mapped) != 0)
        return;
    memmove (net->bytes, net->bytes + sizeof mapped, 4);
    net->family = ZQB__NET_IP4;
    net->bits -= 96;
}

/* The first bytes of a text as an address of IP; -1: they are none. */
static int zqb__net_address (zqb__net_t *net, const char *text, size_t size)
{
    char address[ZQB__NET_TEXT];
    memset (net, 0, sizeof *net);
    if (size >= sizeof address)
        return -1;
    memcpy (address, text, size);
    address[size] = 0;
    if (inet_pton (AF_INET, address, net->bytes) == 1)
        net->family = ZQB__NET_IP4;
    else if (inet_pton (AF_INET6, address, net->bytes) == 1)
        net->family = ZQB__NET_IP6;
    net->bits = net->family == ZQB__NET_IP4 ? 32 : 128;
    return net->family ? 0 : -1;
}

/* Where a peer is, as libzmq tells. Over ipc that is "localhost", with credentials where the system has them. An empty
   one, or another that we cannot read, is in no list. */
static zqb__net_t zqb__net_of_peer (const char *address)
{
    zqb__net_t net;
    size_t local = strlen ("localhost");
    if (strncmp (address, "localhost", local) == 0 && (!address[local] || address[local] == ':')) {
        memset (&net, 0, sizeof net);
        net.family = ZQB__NET_IPC;
    } else if (zqb__net_address (&net, address, strcspn (address, "%")) != 0) /* fe80::1%eth0 */
        net.family = ZQB__NET_UNKNOWN;
    zqb__net_unmap (&net);
    return net;
}

/* "/8" and the like. -1: it is none. */
static int zqb__net_bits (zqb__net_t *net, const char *text)
{
    size_t digits = strspn (text + 1, "0123456789");
    if (*text != '/' || digits < 1 || digits > 3 || text[1 + digits])
        return -1;
    unsigned bits = (unsigned) atoi (text + 1);
    if (bits > net->bits)
        return -1;
    net->bits = bits;
    return 0;
}

/* -1: EINVAL. */
static int zqb__net_read (zqb__net_t *net, const char *cidr)
{
    size_t size = cidr ? strcspn (cidr, "/") : 0;
    if (cidr && strcmp (cidr, "ipc") == 0) {
        memset (net, 0, sizeof *net);
        net->family = ZQB__NET_IPC;
        return 0;
    }
    if (!cidr || zqb__net_address (net, cidr, size) != 0 || (cidr[size] && zqb__net_bits (net, cidr + size) != 0))
        return zqb__invalid ();
    zqb__net_unmap (net);
    return 0;
}

static int zqb__net_covers (const zqb__net_t *net, const zqb__net_t *peer)
{
    size_t whole = net->bits / 8;
    unsigned mask = 0xff00u >> net->bits % 8 & 0xffu;
    return net->family == peer->family && memcmp (net->bytes, peer->bytes, whole) == 0
           && (!mask || ((net->bytes[whole] ^ peer->bytes[whole]) & mask) == 0);
}

/* ---- a book: what is listed */

/* A key with its user, or a user with a password. */
typedef struct zqb__known_t {
    zqb__node_t by_name;   /* the key or the user */
    size_t name_size, value_size;
    unsigned char name[ZQB__SECRET_ROOM], value[ZQB__SECRET_ROOM]; /* zeros behind */
} zqb__known_t;

typedef struct zqb__book_t {
    zqb__key_t hash;
    zqb__net_t *nets;
    size_t net_count, net_capacity;
    size_t allows;                    /* of them: that allow */
    zqb__table_t keys, users;
    size_t most;
} zqb__book_t;

static void zqb__book_close (zqb__book_t *book)
{
    zqb__table_t *tables[2] = {&book->keys, &book->users};
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; tables[i]->buckets && j < tables[i]->size; j++)
            for (zqb__node_t *node = tables[i]->buckets[j], *next; node; node = next) {
                zqb__known_t *known = ZQB__OF (zqb__known_t, by_name, node);
                next = node->next;
                zqb__wipe (known, sizeof *known);
                ZQB_FREE (known);
            }
    zqb__table_close (&book->keys);
    zqb__table_close (&book->users);
    ZQB_FREE (book->nets);
    memset (book, 0, sizeof *book);
}

/* -1: ENOMEM, and nothing is to be closed. */
static int zqb__book_init (zqb__book_t *book, zqb__key_t hash, size_t most)
{
    memset (book, 0, sizeof *book);
    book->hash = hash;
    book->most = most;
    if (zqb__table_init (&book->keys) == 0 && zqb__table_init (&book->users) == 0)
        return 0;
    zqb__book_close (book);
    errno = ENOMEM;
    return -1;
}

static size_t zqb__book_count (const zqb__book_t *book)
{
    return book->net_count + book->keys.count + book->users.count;
}

/* -1: ENOSPC. */
static int zqb__book_has_room (const zqb__book_t *book)
{
    errno = ENOSPC;
    return zqb__book_count (book) < book->most ? 0 : -1;
}

/* -1: EINVAL, ENOSPC, ENOMEM. */
static int zqb__book_add_net (zqb__book_t *book, const char *cidr, int allow)
{
    zqb__net_t net;
    if (zqb__net_read (&net, cidr) != 0 || zqb__book_has_room (book) != 0
        || zqb__grow ((void **) &book->nets, &book->net_capacity, book->net_count + 1, sizeof net) != 0)
        return -1;
    net.allow = allow;
    book->nets[book->net_count++] = net;
    book->allows += allow ? 1 : 0;
    return 0;
}

static zqb__known_t *zqb__book_find (const zqb__book_t *book, const zqb__table_t *table, const void *name, size_t size)
{
    zqb__node_t *node = zqb__table_first (table, zqb__hash (book->hash, name, size));
    for (; node; node = zqb__table_next (node)) {
        zqb__known_t *known = ZQB__OF (zqb__known_t, by_name, node);
        if (known->name_size == size && memcmp (known->name, name, size) == 0)
            return known;
    }
    return NULL;
}

/* -1: ENOENT. */
static int zqb__book_remove (zqb__book_t *book, zqb__table_t *table, const void *name, size_t size)
{
    zqb__known_t *known = zqb__book_find (book, table, name, size);
    errno = ENOENT;
    if (!known)
        return -1;
    zqb__table_remove (table, &known->by_name);
    zqb__wipe (known, sizeof *known);
    ZQB_FREE (known);
    return 0;
}

/* Replaces what there was under that name. -1: ENOSPC, ENOMEM. */
static int zqb__book_put (zqb__book_t *book, zqb__table_t *table, const void *name, size_t size, const char *value)
{
    int is_new = !zqb__book_find (book, table, name, size);
    if (is_new && zqb__book_has_room (book) != 0)
        return -1;
    zqb__known_t *known = (zqb__known_t *) zqb__alloc (sizeof *known);
    if (!known)
        return -1;
    if (!is_new)
        zqb__book_remove (book, table, name, size);
    memcpy (known->name, name, known->name_size = size);
    memcpy (known->value, value, known->value_size = strlen (value));
    zqb__table_insert (table, &known->by_name, zqb__hash (book->hash, known->name, known->name_size));
    return 0;
}

static int zqb__auth_text_valid (const char *text)
{
    return text && strlen (text) >= 1 && strlen (text) < ZQB__SECRET_ROOM;
}

/* What a key is listed as; its size, or 0: it is none. */
static size_t zqb__auth_key (unsigned char key[ZQB__KEY], const char *text)
{
    key[0] = '*';
    if (text && strcmp (text, "*") == 0)
        return 1;
    return text && zqb__key_decode (text, 0, key) == 0 ? ZQB__KEY : 0;
}

/* ---- the file */

enum { ZQB__AUTH_FILE_MOST = 16 << 20, ZQB__AUTH_LINE_MOST = 1024, ZQB__AUTH_WORDS = 4 };

/* Cuts a line into words, each NUL-terminated; how many, of which at most so many are told. */
static size_t zqb__auth_line_words (char *line, size_t size, char **words, size_t most)
{
    zqb__word_t rest, word;
    size_t count = 0;
    rest.at = line;
    rest.size = size;
    while (count < most && zqb__text_word (&rest, &word)) {
        words[count++] = line + (word.at - line);
        line[word.at - line + (ptrdiff_t) word.size] = 0;
        rest.at += rest.size != 0;
        rest.size -= rest.size != 0;
    }
    return count;
}

static int zqb__book_line_net (zqb__book_t *book, char **words, size_t count, int allow, const char **why)
{
    *why = "one address is expected, such as 192.0.2.0/24";
    return count == 2 ? zqb__book_add_net (book, words[1], allow) : zqb__invalid ();
}

static int zqb__book_line_curve (zqb__book_t *book, char **words, size_t count, const char **why)
{
    unsigned char key[ZQB__KEY];
    *why = "a public key of 40 characters, or *, and a user are expected";
    size_t size = count == 3 && zqb__auth_text_valid (words[2]) ? zqb__auth_key (key, words[1]) : 0;
    if (!size)
        return zqb__invalid ();
    *why = "the key was there before";
    return zqb__book_find (book, &book->keys, key, size) ? zqb__invalid ()
                                                         : zqb__book_put (book, &book->keys, key, size, words[2]);
}

static int zqb__book_line_plain (zqb__book_t *book, char **words, size_t count, int shared, const char **why)
{
    *why = "a user and a password are expected, without spaces in them";
    if (count != 3 || !zqb__auth_text_valid (words[1]) || !zqb__auth_text_valid (words[2]))
        return zqb__invalid ();
    *why = "there are passwords in the file, and others may read it";
    errno = EPERM;
    if (shared)
        return -1;
    *why = "the user was there before";
    size_t size = strlen (words[1]);
    return zqb__book_find (book, &book->users, words[1], size)
               ? zqb__invalid ()
               : zqb__book_put (book, &book->users, words[1], size, words[2]);
}

/* -1: EINVAL, EPERM, ENOSPC, ENOMEM, and why: a text about the first two. The line is cut up. */
static int zqb__book_line (zqb__book_t *book, char *line, size_t size, int shared, const char **why)
{
    char *words[ZQB__AUTH_WORDS];
    size_t count = zqb__auth_line_words (line, size, words, ZQB__AUTH_WORDS);
    if (count && words[0][0] == '#')
        return 0;
    if (count == 0)
        return 0;
    if (strcmp (words[0], "allow") == 0 || strcmp (words[0], "deny") == 0)
        return zqb__book_line_net (book, words, count, words[0][0] == 'a', why);
    if (strcmp (words[0], "curve") == 0)
        return zqb__book_line_curve (book, words, count, why);
    if (strcmp (words[0], "plain") == 0)
        return zqb__book_line_plain (book, words, count, shared, why);
    *why = "allow, deny, curve or plain is expected";
    return zqb__invalid ();
}

/* Reads a whole file, which has a NUL behind it, and is cut up. *line: the number of the last that was read. */
static int zqb__book_read (zqb__book_t *book, char *text, size_t size, int max_lines, int shared, int *line,
                           const char **why)
{
    zqb__word_t rest, words;
    rest.at = text;
    rest.size = size;
    while (zqb__text_line (&rest, &words)) {
        *why = "it is too long, or no text";
        if (++*line > max_lines) {
            errno = ENOSPC;
            return -1;
        }
        if (words.size > ZQB__AUTH_LINE_MOST || !zqb__text_valid (&words))
            return zqb__invalid ();
        if (zqb__book_line (book, text + (words.at - text), words.size, shared, why) != 0)
            return -1;
    }
    return 0;
}

/* ---- requests of ZAP: address, "", version, request id, domain, address, identity, mechanism, credentials */

/* What a peer was let in by, and would have to be let in by again: "key KEY USER", by its key, which was listed as that
   user's; "password STAMP USER", by the user's password of that time, of which the stamp tells no more than whether it
   is another now; "host", by what the host said, or by nothing, as an address is looked at anyway. The user is the one
   of the lists, whatever decide has made of him. libzmq keeps it with the connection, whatever that says of itself. */
static const char zqb__zap_property[] = "X-Zqb-Entry";

enum { ZQB__ENTRY_KEY = 4, ZQB__ENTRY_STAMP = 9 }; /* behind "key ", "password " */
enum { ZQB__ENTRY_ROOM = (int) ZQB__ENTRY_STAMP + (int) ZQB__KEY_TEXT + 1 + (int) ZQB__SECRET_ROOM };

enum { ZQB__ZAP_DELIMITER = 1, ZQB__ZAP_VERSION, ZQB__ZAP_ID, ZQB__ZAP_DOMAIN, ZQB__ZAP_ADDRESS, ZQB__ZAP_IDENTITY,
       ZQB__ZAP_MECHANISM, ZQB__ZAP_CREDENTIALS, ZQB__ZAP_FRAMES = 16 };

typedef struct zqb__zap_t {
    zqb_auth_peer_t peer;
    char domain[256], address[256], mechanism[21], key[ZQB__KEY_TEXT + 1], entry[ZQB__ENTRY_ROOM];
    zmq_msg_t *credentials;
    size_t credential_count;
} zqb__zap_t;

/* A frame as a string; -1: it is too long, or has bytes that are no text. */
static int zqb__zap_text (zmq_msg_t *frame, char *text, size_t room)
{
    const unsigned char *bytes = (const unsigned char *) zmq_msg_data (frame);
    size_t size = zmq_msg_size (frame);
    if (size >= room)
        return -1;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] < 32 || bytes[i] > 126)
            return -1;
        text[i] = (char) bytes[i];
    }
    text[size] = 0;
    return 0;
}

/* Whether it can be told to whom an answer goes, and about what. */
static int zqb__zap_answerable (zmq_msg_t *frames, size_t count)
{
    return count > ZQB__ZAP_ID && zmq_msg_size (&frames[ZQB__ZAP_DELIMITER]) == 0
           && zmq_msg_size (&frames[ZQB__ZAP_ID]) >= 1 && zmq_msg_size (&frames[ZQB__ZAP_ID]) <= 255;
}

/* RFC 23: 1 to 20 of these. */
static int zqb__zap_mechanism_valid (const char *name)
{
    return name[0] && !name[strspn (name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+")];
}

/* Whether there are as many credentials as the mechanism has, of a size that they can have. Of others any. */
static int zqb__zap_read_credentials (zqb__zap_t *zap)
{
    zmq_msg_t *credentials = zap->credentials;
    size_t count = zap->credential_count;
    if (strcmp (zap->mechanism, "NULL") == 0)
        return count == 0 ? 0 : -1;
    if (strcmp (zap->mechanism, "PLAIN") == 0)
        return count == 2 && zmq_msg_size (&credentials[0]) <= 255 && zmq_msg_size (&credentials[1]) <= 255 ? 0 : -1;
    if (strcmp (zap->mechanism, "CURVE") != 0)
        return 0;
    if (count != 1 || zmq_msg_size (&credentials[0]) != ZQB__KEY)
        return -1;
    zmq_z85_encode (zap->key, (const uint8_t *) zmq_msg_data (&credentials[0]), ZQB__KEY);
    zap->peer.public_key = zap->key;
    return 0;
}

/* -1: it is malformed. */
static int zqb__zap_read (zqb__zap_t *zap, zmq_msg_t *frames, size_t count)
{
    memset (zap, 0, sizeof *zap);
    zap->peer.domain = zap->domain;
    zap->peer.address = zap->address;
    zap->peer.mechanism = zap->mechanism;
    strcpy (zap->entry, "host");
    if (count < ZQB__ZAP_CREDENTIALS || !zqb__zap_answerable (frames, count)
        || !zqb__frame_is (&frames[ZQB__ZAP_VERSION], "1.0") || zmq_msg_size (&frames[ZQB__ZAP_IDENTITY]) > 255
        || zqb__zap_text (&frames[ZQB__ZAP_DOMAIN], zap->domain, sizeof zap->domain) != 0
        || zqb__zap_text (&frames[ZQB__ZAP_ADDRESS], zap->address, sizeof zap->address) != 0
        || zqb__zap_text (&frames[ZQB__ZAP_MECHANISM], zap->mechanism, sizeof zap->mechanism) != 0)
        return -1;
    zap->credentials = frames + ZQB__ZAP_CREDENTIALS;
    zap->credential_count = count - ZQB__ZAP_CREDENTIALS;
    return zqb__zap_mechanism_valid (zap->mechanism) ? zqb__zap_read_credentials (zap) : -1;
}

/* ---- what becomes of a request */

/* In the order of the counters. */
enum { ZQB__LET_IN, ZQB__BAD_ADDRESS, ZQB__BAD_KEY, ZQB__BAD_PASSWORD, ZQB__BAD_MECHANISM, ZQB__BAD_HOST };

enum { ZQB__AUTH_CALLED, ZQB__AUTH_FILED, ZQB__AUTH_BOOKS };
enum { ZQB__AUTH_TURN = 100, ZQB__AUTH_LAST = 1000 };

struct zqb_auth_t {
    zqb_auth_options_t options;
    char *file;
    zqb__signal_t signal;
    zqb__thread_t *thread;
    void *socket; /* this, the inbox and what counts lines are the thread's, once it runs */
    zqb__inbox_t inbox;
    zqb__lines_t lines;
    void *ctx;
    zqb__flag_t version;
    zqb__mutex_t lock; /* of what follows */
    zqb__link_t watches;
    zqb__book_t books[ZQB__AUTH_BOOKS];
    uint64_t reloads_begun, filed; /* the latter is the one that the file's book is of */
    zqb_auth_stats_t stats;
};

static void zqb__auth_log (zqb_auth_t *auth, int level, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    zqb__log (auth->options.log, auth->options.log_arg, auth->options.log_level, level, format, args);
    va_end (args);
}

/* The caller has the lock, as in all that looks into books. */
static int zqb__auth_fits_address (zqb_auth_t *auth, const char *address)
{
    zqb__net_t peer = zqb__net_of_peer (address);
    size_t lists = 0, allows = 0, allowed = 0;
    for (int i = 0; i < ZQB__AUTH_BOOKS; i++) {
        const zqb__book_t *book = &auth->books[i];
        lists += book->net_count;
        allows += book->allows;
        for (size_t j = 0; j < book->net_count; j++) {
            int covers = zqb__net_covers (&book->nets[j], &peer);
            if (covers && !book->nets[j].allow)
                return 0;
            allowed += covers ? 1 : 0;
        }
    }
    return peer.family == ZQB__NET_UNKNOWN ? lists == 0 : allowed || !allows;
}

static zqb__table_t *zqb__book_table (zqb__book_t *book, int keys)
{
    return keys ? &book->keys : &book->users;
}

/* What is called goes before what is filed. */
static zqb__known_t *zqb__auth_find (zqb_auth_t *auth, int keys, const void *name, size_t size)
{
    zqb__known_t *known = NULL;
    for (int i = 0; i < ZQB__AUTH_BOOKS && !known; i++)
        known = zqb__book_find (&auth->books[i], zqb__book_table (&auth->books[i], keys), name, size);
    return known;
}

static zqb__known_t *zqb__auth_find_key (zqb_auth_t *auth, const void *key)
{
    zqb__known_t *known = zqb__auth_find (auth, 1, key, ZQB__KEY);
    return known ? known : zqb__auth_find (auth, 1, "*", 1);
}

/* The user of a key that is not listed is the key: the host may know it. */
static int zqb__auth_judge_key (zqb_auth_t *auth, zqb__zap_t *zap)
{
    zqb__known_t *known = zqb__auth_find_key (auth, zmq_msg_data (&zap->credentials[0]));
    if (!known) {
        memcpy (zap->peer.user, zap->key, ZQB__KEY_TEXT);
        return ZQB__BAD_KEY;
    }
    memcpy (zap->peer.user, known->value, known->value_size);
    snprintf (zap->entry, sizeof zap->entry, "key %s %s", zap->key, zap->peer.user);
    return ZQB__LET_IN;
}

static unsigned long long zqb__known_stamp (zqb_auth_t *auth, const zqb__known_t *known)
{
    return (unsigned long long) zqb__hash (auth->books[0].hash, known->value, known->value_size);
}

/* Whether it is the password of a user that is listed: 1, 0; -1: the user is not, which takes as long to tell. */
static int zqb__auth_compare (zqb_auth_t *auth, zqb__zap_t *zap, const unsigned char *password, size_t size)
{
    static const unsigned char nothing[ZQB__SECRET_ROOM] = {0};
    const char *user = zap->peer.user;
    const zqb__known_t *known = zqb__auth_find (auth, 0, user, strlen (user));
    int same = zqb__secret_same (known ? known->value : nothing, known ? known->value_size : 0, password, size);
    if (known && same)
        snprintf (zap->entry, sizeof zap->entry, "password %016llx %s", zqb__known_stamp (auth, known), user);
    return known ? same : -1;
}

/* Has the lock, and lets it go while the host looks. */
static int zqb__auth_judge_password (zqb_auth_t *auth, zqb__zap_t *zap)
{
    unsigned char password[ZQB__SECRET_ROOM] = {0};
    size_t user_size = zmq_msg_size (&zap->credentials[0]), size = zmq_msg_size (&zap->credentials[1]);
    const void *user = zmq_msg_data (&zap->credentials[0]);
    memcpy (password, zmq_msg_data (&zap->credentials[1]), size);
    memcpy (zap->peer.user, user, user_size);
    int right = 0;
    if (user_size && !memchr (user, 0, user_size) && !memchr (password, 0, size))
        right = zqb__auth_compare (auth, zap, password, size);
    if (right < 0 && auth->options.verify) {
        zqb__mutex_leave (&auth->lock);
        right = auth->options.verify (zap->peer.user, (const char *) password, auth->options.verify_arg);
        zqb__mutex_enter (&auth->lock);
    }
    zqb__wipe (password, sizeof password);
    return right == 1 ? ZQB__LET_IN : ZQB__BAD_PASSWORD;
}

static int zqb__auth_judge_lists (zqb_auth_t *auth, zqb__zap_t *zap)
{
    int verdict = ZQB__BAD_MECHANISM;
    zqb__mutex_enter (&auth->lock);
    if (!zqb__auth_fits_address (auth, zap->address))
        verdict = ZQB__BAD_ADDRESS;
    else if (strcmp (zap->mechanism, "NULL") == 0)
        verdict = ZQB__LET_IN;
    else if (strcmp (zap->mechanism, "PLAIN") == 0)
        verdict = zqb__auth_judge_password (auth, zap);
    else if (strcmp (zap->mechanism, "CURVE") == 0)
        verdict = zqb__auth_judge_key (auth, zap);
    zqb__mutex_leave (&auth->lock);
    return verdict;
}

static int zqb__auth_judge (zqb_auth_t *auth, zqb__zap_t *zap)
{
    int verdict = zqb__auth_judge_lists (auth, zap), opinion = -1;
    if (auth->options.decide && (verdict == ZQB__LET_IN || verdict == ZQB__BAD_KEY))
        opinion = auth->options.decide (&zap->peer, auth->options.decide_arg);
    zap->peer.user[sizeof zap->peer.user - 1] = 0;
    return opinion == 1 ? ZQB__LET_IN : opinion == 0 ? ZQB__BAD_HOST : verdict;
}

/* ---- answers */

/* The metadata of an answer: one property (RFC 23). -1: ENOMEM. */
static int zqb__zap_fill_metadata (zmq_msg_t *frame, const char *entry)
{
    unsigned char bytes[1 + sizeof zqb__zap_property - 1 + 4 + ZQB__ENTRY_ROOM];
    size_t name = strlen (zqb__zap_property), size = strlen (entry);
    bytes[0] = (unsigned char) name;
    memcpy (bytes + 1, zqb__zap_property, name);
    zqb__put_32 (bytes + 1 + name, (uint32_t) size);
    memcpy (bytes + 5 + name, entry, size);
    return zqb__frame_fill (frame, bytes, 5 + name + size);
}

/* Sends an answer to a request, with whom it lets in, if it does. 33 bytes of text take no memory of libzmq's, so a
   refusal can always be said; without memory for more the peer has to come again. Returns whether it was said. */
static int zqb__auth_answer (zqb_auth_t *auth, zmq_msg_t *frames, const char *status, const char *text,
                             const zqb__zap_t *in)
{
    zmq_msg_t said[8];
    int whole = 1, more = 1;
    for (int i = 0; i < 8; i++)
        zmq_msg_init (&said[i]);
    if (in)
        whole = zqb__zap_fill_metadata (&said[7], in->entry) == 0
                && zqb__frame_fill (&said[6], in->peer.user, strlen (in->peer.user)) == 0;
    if (!whole)
        zmq_msg_close (&said[7]), zmq_msg_init (&said[7]);
    zmq_msg_move (&said[0], &frames[0]);
    zqb__frame_fill (&said[2], "1.0", 3);
    zmq_msg_move (&said[3], &frames[ZQB__ZAP_ID]);
    zqb__frame_fill (&said[4], whole ? status : "300", 3);
    zqb__frame_fill (&said[5], whole ? text : "out of memory", strlen (whole ? text : "out of memory"));
    for (int i = 0; i < 8; i++) {
        while (more && zmq_msg_send (&said[i], auth->socket, (i < 7 ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT) < 0)
            more = errno == EINTR;
        zmq_msg_close (&said[i]);
    }
    return whole;
}

/* Whether there may be another line on those who are refused. */
static int zqb__auth_may_tell (zqb_auth_t *auth)
{
    int unsaid, may = zqb__lines_allow (&auth->lines, ZQB__WARNINGS, zqb__clock (), &unsaid);
    if (unsaid)
        zqb__auth_log (auth, ZQB_LOG_WARNING, "auth: %d more were refused", unsaid);
    return may;
}

static void zqb__auth_tell (zqb_auth_t *auth, const zqb__zap_t *zap, int verdict, const char *why)
{
    char user[ZQB__NAME_TEXT];
    int in = verdict == ZQB__LET_IN;
    if (!auth->options.log || auth->options.log_level < (in ? ZQB_LOG_INFO : ZQB_LOG_WARNING)
        || (!in && !zqb__auth_may_tell (auth)))
        return;
    zqb__name_text (zap->peer.user, strlen (zap->peer.user), user);
    zqb__auth_log (auth, in ? ZQB_LOG_INFO : ZQB_LOG_WARNING, "auth: %s: mechanism=%s address=%.255s user=%s",
                   in ? "let in" : why, zap->mechanism, zap->address, user);
}

static void zqb__auth_count (zqb_auth_t *auth, uint64_t *counter)
{
    zqb__mutex_enter (&auth->lock);
    ++*counter;
    zqb__mutex_leave (&auth->lock);
}

static void zqb__auth_serve_valid (zqb_auth_t *auth, zmq_msg_t *frames, zqb__zap_t *zap)
{
    zqb_auth_stats_t *stats = &auth->stats;
    uint64_t *counters[] = {&stats->accepted,         &stats->refused_address,   &stats->refused_key,
                            &stats->refused_password, &stats->refused_mechanism, &stats->refused_host};
    static const char *const texts[] = {"OK", "address refused", "unknown key", "wrong user or password",
                                        "unknown mechanism", "refused by the host"};
    int verdict = zqb__auth_judge (auth, zap), in = verdict == ZQB__LET_IN;
    zqb__auth_count (auth, counters[verdict]); /* before the answer: who was answered has been counted */
    zqb__auth_tell (auth, zap, verdict, texts[verdict]);
    if (!zqb__auth_answer (auth, frames, in ? "200" : "400", texts[verdict], in ? zap : NULL))
        zqb__auth_count (auth, &stats->no_memory);
}

/* Credentials do not stay behind in memory that is given back. What libzmq itself has copied stays. */
static void zqb__auth_wipe_inbox (zqb__inbox_t *inbox)
{
    for (size_t i = ZQB__ZAP_CREDENTIALS; i < inbox->count; i++)
        zqb__wipe (zmq_msg_data (&inbox->frames[i]), zmq_msg_size (&inbox->frames[i]));
    zqb__inbox_clear (inbox);
}

static void zqb__auth_serve_one (zqb_auth_t *auth)
{
    zqb__inbox_t *inbox = &auth->inbox;
    zqb__zap_t zap;
    if (!inbox->overflow && !inbox->starved && zqb__zap_read (&zap, inbox->frames, inbox->count) == 0)
        zqb__auth_serve_valid (auth, inbox->frames, &zap);
    else {
        zqb__auth_count (auth, &auth->stats.malformed);
        if (zqb__zap_answerable (inbox->frames, inbox->count))
            zqb__auth_answer (auth, inbox->frames, "500", "malformed request", NULL);
        else
            zqb__auth_count (auth, &auth->stats.dropped);
    }
    zqb__auth_wipe_inbox (inbox);
}

/* What is there, up to so many. 0: that was all; -1: the context has ended. */
static int zqb__auth_serve (zqb_auth_t *auth, int most)
{
    int got = 1;
    while (most-- > 0 && (got = zqb__inbox_receive (&auth->inbox, auth->socket, ZMQ_DONTWAIT)) == 1)
        zqb__auth_serve_one (auth);
    return got;
}

static const char *const zqb__zap_endpoint = "inproc://zeromq.zap.01";

/* The name is free at once; what libzmq asks from then on it answers itself. What it has asked is answered, as it would
   wait for that. */
static void zqb__auth_leave (zqb_auth_t *auth)
{
    zmq_unbind (auth->socket, zqb__zap_endpoint);
    zqb__auth_serve (auth, ZQB__AUTH_LAST);
    zmq_close (auth->socket);
    auth->socket = NULL;
}

static void zqb__auth_run (void *arg)
{
    zqb_auth_t *auth = (zqb_auth_t *) arg;
    zqb__poll_t items[2];
    items[0] = zqb__poll_item (auth->signal.ends[0]);
    items[1] = zqb__poll_item (zqb__socket_fd (auth->socket));
    for (int more = 1; more >= 0 && !zqb__signal_stopped (&auth->signal);) {
        more = zqb__auth_serve (auth, ZQB__AUTH_TURN);
        if (more == 0)
            zqb__wait (items, 2, UINT64_MAX);
    }
    zqb__auth_leave (auth);
}

/* ---- the face */

/* Somebody who wants to know when the lists have changed, and is woken then. */
typedef struct zqb__auth_watch_t {
    zqb__link_t link;
    zqb__signal_t *signal;
} zqb__auth_watch_t;

static void zqb__auth_watch (zqb_auth_t *auth, zqb__auth_watch_t *watch, zqb__signal_t *signal)
{
    watch->signal = signal;
    zqb__mutex_enter (&auth->lock);
    zqb__list_append (&auth->watches, &watch->link);
    zqb__mutex_leave (&auth->lock);
}

static void zqb__auth_unwatch (zqb_auth_t *auth, zqb__auth_watch_t *watch)
{
    zqb__mutex_enter (&auth->lock);
    zqb__list_remove (&watch->link);
    zqb__mutex_leave (&auth->lock);
}

/* Another number whenever the lists have changed. */
static int zqb__auth_version (zqb_auth_t *auth)
{
    return zqb__flag_look (&auth->version);
}

/* The caller has the lock. */
static void zqb__auth_tell_change (zqb_auth_t *auth)
{
    zqb__flag_add (&auth->version, 1);
    for (zqb__link_t *at = auth->watches.next; at != &auth->watches; at = at->next)
        zqb__signal_wake (ZQB__OF (zqb__auth_watch_t, link, at)->signal);
}

/* Whether what a peer was let in by would let it in again. */
static int zqb__auth_knows (zqb_auth_t *auth, const char *user, const char *entry)
{
    unsigned char key[ZQB__KEY];
    if (strncmp (entry, "key ", ZQB__ENTRY_KEY) == 0) {
        int is_key = zqb__key_decode (entry + ZQB__ENTRY_KEY, ' ', key) == 0;
        const zqb__known_t *known = is_key ? zqb__auth_find_key (auth, key) : NULL;
        return known && strcmp ((const char *) known->value, entry + ZQB__ENTRY_KEY + ZQB__KEY_TEXT + 1) == 0;
    }
    if (strncmp (entry, "password ", ZQB__ENTRY_STAMP) == 0) {
        char *name;
        unsigned long long stamp = strtoull (entry + ZQB__ENTRY_STAMP, &name, 16);
        const zqb__known_t *known = *name ? zqb__auth_find (auth, 0, name + 1, strlen (name + 1)) : NULL;
        return known && zqb__known_stamp (auth, known) == stamp;
    }
    return !*user || auth->options.decide || auth->options.verify;
}

/* Whether a peer that was let in as this user, from there and by that, would be let in now. */
static int zqb__auth_admits (zqb_auth_t *auth, const char *user, const char *address, const char *entry)
{
    zqb__mutex_enter (&auth->lock);
    int admits = zqb__auth_fits_address (auth, address) && zqb__auth_knows (auth, user, entry);
    zqb__mutex_leave (&auth->lock);
    return admits;
}

/* Puts a book in the place of the one of the file, and returns that; or the same, if a reload that began later was
   faster. The caller has the lock. */
static zqb__book_t zqb__auth_exchange (zqb_auth_t *auth, zqb__book_t book, uint64_t number)
{
    zqb__book_t before = auth->books[ZQB__AUTH_FILED];
    if (number < auth->filed)
        return book;
    auth->books[ZQB__AUTH_FILED] = book;
    auth->filed = number;
    zqb__auth_tell_change (auth);
    return before;
}

/* Puts what the file says in place of what it said. Whatever goes wrong is told to the log. */
static int zqb__auth_take_file (zqb_auth_t *auth, const zqb__file_t *file, uint64_t number)
{
    zqb__book_t book;
    const char *why = "";
    int line = 0;
    if (zqb__book_init (&book, auth->books[ZQB__AUTH_CALLED].hash, auth->books[ZQB__AUTH_CALLED].most) != 0)
        return -1;
    if (zqb__book_read (&book, file->text, file->size, auth->options.max_lines, file->is_shared, &line, &why) != 0) {
        int error = errno;
        zqb__book_close (&book);
        zqb__auth_log (auth, ZQB_LOG_ERROR, "auth: %.512s, line %d: %s", auth->file, line,
                       error == EINVAL || error == EPERM ? why : zqb_strerror (error));
        errno = error;
        return -1;
    }
    zqb__mutex_enter (&auth->lock);
    zqb__book_t unused = zqb__auth_exchange (auth, book, number);
    zqb__mutex_leave (&auth->lock);
    zqb__book_close (&unused);
    return 0;
}

/* The number of a reload, in the order in which they began. */
static uint64_t zqb__auth_begin_reload (zqb_auth_t *auth)
{
    zqb__mutex_enter (&auth->lock);
    uint64_t number = ++auth->reloads_begun;
    zqb__mutex_leave (&auth->lock);
    return number;
}

ZQB_API int zqb_auth_reload (zqb_auth_t *auth)
{
    zqb__file_t file;
    if (!auth || !auth->file)
        return zqb__invalid ();
    uint64_t number = zqb__auth_begin_reload (auth);
    if (zqb__file_read (&file, auth->file, ZQB__AUTH_FILE_MOST, 0) != 0) {
        int error = errno;
        zqb__auth_log (auth, ZQB_LOG_ERROR, "auth: %.512s: %s", auth->file, zqb_strerror (error));
        zqb__auth_count (auth, &auth->stats.reloads_failed);
        errno = error;
        return -1;
    }
    int failed = zqb__auth_take_file (auth, &file, number), error = errno;
    zqb__file_free (&file);
    zqb__auth_count (auth, failed ? &auth->stats.reloads_failed : &auth->stats.reloads);
    errno = error;
    return failed;
}

/* What was changed, or not; the caller has the lock. */
static int zqb__auth_changed (zqb_auth_t *auth, int failed)
{
    if (!failed)
        zqb__auth_tell_change (auth);
    zqb__mutex_leave (&auth->lock);
    return failed;
}

static int zqb__auth_add_net (zqb_auth_t *auth, const char *cidr, int allow)
{
    if (!auth)
        return zqb__invalid ();
    zqb__mutex_enter (&auth->lock);
    return zqb__auth_changed (auth, zqb__book_add_net (&auth->books[ZQB__AUTH_CALLED], cidr, allow));
}

ZQB_API int zqb_auth_allow (zqb_auth_t *auth, const char *cidr)
{
    return zqb__auth_add_net (auth, cidr, 1);
}

ZQB_API int zqb_auth_deny (zqb_auth_t *auth, const char *cidr)
{
    return zqb__auth_add_net (auth, cidr, 0);
}

/* Lists a key or a user, or, without a value, takes it out of both books. */
static int zqb__auth_list (zqb_auth_t *auth, int keys, const void *name, size_t size, const char *value)
{
    zqb__book_t *called = &auth->books[ZQB__AUTH_CALLED], *filed = &auth->books[ZQB__AUTH_FILED];
    int failed;
    zqb__mutex_enter (&auth->lock);
    if (value)
        failed = zqb__book_put (called, zqb__book_table (called, keys), name, size, value);
    else {
        failed = zqb__book_remove (called, zqb__book_table (called, keys), name, size);
        if (zqb__book_remove (filed, zqb__book_table (filed, keys), name, size) == 0)
            failed = 0;
    }
    return zqb__auth_changed (auth, failed);
}

ZQB_API int zqb_auth_curve (zqb_auth_t *auth, const char *public_key, const char *user)
{
    unsigned char key[ZQB__KEY];
    size_t size = zqb__auth_key (key, public_key);
    if (!auth || !size || (user && !zqb__auth_text_valid (user)))
        return zqb__invalid ();
    return zqb__auth_list (auth, 1, key, size, user);
}

ZQB_API int zqb_auth_plain (zqb_auth_t *auth, const char *user, const char *password)
{
    if (!auth || !zqb__auth_text_valid (user) || (password && !zqb__auth_text_valid (password)))
        return zqb__invalid ();
    return zqb__auth_list (auth, 0, user, strlen (user), password);
}

ZQB_API int zqb_auth_stats (zqb_auth_t *auth, zqb_auth_stats_t *stats)
{
    if (!auth || !stats)
        return zqb__invalid ();
    zqb__mutex_enter (&auth->lock);
    *stats = auth->stats;
    for (int i = 0; i < ZQB__AUTH_BOOKS; i++)
        stats->entries += zqb__book_count (&auth->books[i]);
    zqb__mutex_leave (&auth->lock);
    return 0;
}

/* The thread has ended, or never was. */
static void zqb__auth_free (zqb_auth_t *auth)
{
    if (auth->socket)
        zmq_close (auth->socket);
    zqb__inbox_close (&auth->inbox);
    for (int i = 0; i < ZQB__AUTH_BOOKS; i++)
        zqb__book_close (&auth->books[i]);
    zqb__signal_close (&auth->signal);
    zqb__mutex_close (&auth->lock);
    ZQB_FREE (auth->file);
    ZQB_FREE (auth);
}

ZQB_API void zqb_auth_stop (zqb_auth_t **auth)
{
    if (!auth || !*auth)
        return;
    zqb__signal_stop (&(*auth)->signal);
    zqb__thread_join (&(*auth)->thread);
    zqb__auth_free (*auth);
    *auth = NULL;
}

static int zqb__auth_options_valid (const zqb_auth_options_t *options)
{
    return options->max_entries >= -1 && options->max_lines >= -1 && options->log_level >= -1
           && options->log_level <= ZQB_LOG_DEBUG && (!options->file || options->file[0]);
}

static void zqb__auth_take_options (zqb_auth_t *auth, const zqb_auth_options_t *options)
{
    if (options)
        auth->options = *options;
    auth->options.log_level = auth->options.log_level ? auth->options.log_level : (int) ZQB_LOG_INFO;
    auth->options.max_entries = zqb__option (auth->options.max_entries, 100000);
    auth->options.max_lines = zqb__option (auth->options.max_lines, 100000);
}

/* Room for all that answering needs, so that it never lacks memory. -1: ENOMEM. */
static int zqb__auth_fill (zqb_auth_t *auth)
{
    zqb__key_t hash = {zqb__random (), zqb__random ()};
    const char *file = auth->options.file;
    auth->inbox.limit = ZQB__ZAP_FRAMES;
    auth->file = file ? zqb__copy_text (file, strlen (file)) : NULL;
    auth->options.file = NULL; /* the caller's */
    for (int i = 0; i < ZQB__AUTH_BOOKS; i++)
        if (zqb__book_init (&auth->books[i], hash, (size_t) auth->options.max_entries) != 0)
            return -1;
    if (file && !auth->file)
        return -1;
    return zqb__grow ((void **) &auth->inbox.frames, &auth->inbox.capacity, ZQB__ZAP_FRAMES, sizeof (zmq_msg_t));
}

/* -1: what zmq_socket and zmq_bind say. */
static int zqb__auth_bind (zqb_auth_t *auth)
{
    auth->socket = zmq_socket (auth->ctx, ZMQ_ROUTER);
    if (!auth->socket)
        return -1;
    zqb__set_int (auth->socket, ZMQ_LINGER, 0);
    zqb__set_int (auth->socket, ZMQ_SNDHWM, 0);
    zqb__set_int (auth->socket, ZMQ_RCVHWM, 0);
    return zmq_bind (auth->socket, zqb__zap_endpoint);
}

/* One that does not answer yet: the file is read before, so that nobody is refused who is in it. */
static zqb_auth_t *zqb__auth_new (void *ctx, const zqb_auth_options_t *options)
{
    zqb_auth_t *auth = (zqb_auth_t *) zqb__alloc (sizeof *auth);
    if (!auth)
        return NULL;
    auth->ctx = ctx;
    zqb__list_init (&auth->watches);
    zqb__auth_take_options (auth, options);
    if (zqb__mutex_init (&auth->lock) != 0) {
        ZQB_FREE (auth);
        errno = ENOMEM;
        return NULL;
    }
    if (zqb__signal_init (&auth->signal) != 0) {
        zqb__mutex_close (&auth->lock);
        ZQB_FREE (auth);
        return NULL;
    }
    if (zqb__auth_fill (auth) == 0 && (!auth->file || zqb_auth_reload (auth) == 0) && zqb__auth_bind (auth) == 0)
        return auth;
    int error = errno;
    zqb__auth_free (auth);
    errno = error;
    return NULL;
}

ZQB_API zqb_auth_t *zqb_auth_start (void *ctx, const zqb_auth_options_t *options)
{
    if (!ctx || (options && !zqb__auth_options_valid (options))) {
        errno = EINVAL;
        return NULL;
    }
    zqb_auth_t *auth = zqb__auth_new (ctx, options);
    if (!auth)
        return NULL;
    auth->thread = zqb__thread_start (zqb__auth_run, auth);
    if (auth->thread)
        return auth;
    int error = errno;
    zmq_unbind (auth->socket, zqb__zap_endpoint);
    zqb__auth_free (auth);
    errno = error;
    return NULL;
}

/* ================================================================================================================
   >>broker
   Owns:    the broker's sockets, its loop and its thread; requests as handlers see them; the mmi services
   Door:    zqb_broker_*, zqb_request_*
   Uses:    engine, wire, transport, security, platform
   Never:   decides who gets what
   ================================================================================================================ */

/* A request in the hands of the user: of a worker, or of a handler inside the broker. */
struct zqb_request_t {
    zqb__link_t link; /* the worker's */
    zqb_msg_t body;
    const char *service;
    size_t service_size;
    char *name; /* that of the service, if it is not the worker's own */
    const char *user;  /* NULL: the worker cannot know */
    char *user_copy;   /* of whom it is, or was before, or NULL */
    uint64_t token;
    zqb_msg_t address; /* MDP: the client's, as another broker gave it */
    uint64_t registration; /* the worker's, at the time */
    uint64_t deadline; /* 0 none */
    uint32_t parts; /* so many may be sent, until somebody has read some; ZQB__PARTS_ALL */
    int cancelled;  /* the broker said so */
    int is_long;    /* the user has told how far it is, or asked whether it goes on: nothing of it waits for company */
    int in_handler;
    void *owner;
    int (*send) (zqb_request_t *request, zqb__command_t *command); /* type, body, text ... are filled in */
    int (*unwanted) (zqb_request_t *request); /* NULL: it always is wanted */
    void (*release) (zqb_request_t *request);
};

#define ZQB__PARTS_ALL UINT32_MAX

ZQB_API zqb_msg_t *zqb_request_body (zqb_request_t *request)
{
    return request ? &request->body : NULL;
}

ZQB_API const char *zqb_request_service (zqb_request_t *request, size_t *size)
{
    if (size)
        *size = request ? request->service_size : 0;
    return request ? request->service : NULL;
}

ZQB_API const char *zqb_request_user (zqb_request_t *request)
{
    return request ? request->user : NULL;
}

ZQB_API int zqb_request_partial (zqb_request_t *request, zqb_msg_t *msg)
{
    if (!request || !msg)
        return zqb__invalid ();
    zqb__command_t command = zqb__command (ZQB__PARTIAL, request->token);
    command.msg = msg;
    return request->send (request, &command) == 0 ? zqb_msg_close (msg) : -1;
}

ZQB_API int zqb_request_progress (zqb_request_t *request, uint64_t done, uint64_t total, const char *text)
{
    zqb__rare_t rare;
    if (!request)
        return zqb__invalid ();
    zqb__command_t command = zqb__command (ZQB__PROGRESS, request->token);
    memset (&rare, 0, sizeof rare);
    rare.done = done;
    rare.total = total;
    rare.has_progress = 1;
    command.rare = &rare;
    command.text = text;
    command.text_size = text ? strlen (text) : 0;
    return request->send (request, &command);
}

ZQB_API int zqb_request_cancelled (zqb_request_t *request)
{
    if (!request)
        return zqb__invalid ();
    return request->unwanted && request->unwanted (request);
}

ZQB_API int zqb_request_left_ms (zqb_request_t *request)
{
    if (!request)
        return zqb__invalid ();
    uint64_t now = request->deadline ? zqb__clock () : 0;
    return request->deadline ? zqb__left_ms (request->deadline, now) : -1;
}

/* Ends a request. One that could not be answered because its broker is gone is released like one that was answered. */
static int zqb__request_finish (zqb_request_t *request, zqb__command_t *command)
{
    int failed = request->send (request, command);
    if (failed && errno != ENOTCONN)
        return -1;
    request->release (request);
    if (failed)
        errno = ENOTCONN;
    return failed;
}

static int zqb__request_fail (zqb_request_t *request, int code, const void *text, size_t size)
{
    zqb__rare_t rare;
    zqb__command_t command = zqb__command (ZQB__ERROR, request->token);
    memset (&rare, 0, sizeof rare);
    rare.code = (uint32_t) code;
    command.rare = &rare;
    command.text = (const char *) text;
    command.text_size = size;
    return zqb__request_finish (request, &command);
}

ZQB_API int zqb_request_reply (zqb_request_t *request, zqb_msg_t *msg)
{
    if (!request || !msg || request->in_handler)
        return zqb__invalid ();
    zqb__command_t command = zqb__command (ZQB__REPLY, request->token);
    command.msg = msg;
    return zqb__request_finish (request, &command) == 0 ? zqb_msg_close (msg) : -1;
}

ZQB_API int zqb_request_fail (zqb_request_t *request, int code, const char *text)
{
    if (!request || request->in_handler)
        return zqb__invalid ();
    return zqb__request_fail (request, code, text, text ? strlen (text) : 0);
}

ZQB_API int zqb_request_refuse (zqb_request_t *request)
{
    if (!request || request->in_handler)
        return zqb__invalid ();
    zqb__command_t command = zqb__command (ZQB__ERROR, request->token);
    command.status = ZQB_EREFUSED - ZQB_ERRNO;
    return zqb__request_finish (request, &command);
}

/* ---- ports: the sockets. The first is for Majordomo and ZQB/1, each LRU service adds two. */

typedef struct zqb__port_t {
    int place; /* ZQB__MAJORDOMO, ZQB__FRONTEND, ZQB__BACKEND */
    void *socket;
    void *monitor; /* tells of connections that are gone */
    zmq_fd_t fd, monitor_fd;
    int for_clients; /* and not for workers */
    int bound, local; /* to something; to inproc, and to nothing else */
    int waits; /* it is not read, as there is no room for what may come */
    int burst; /* how many messages to take in the next pass */
    int monitor_due; /* there is something to read from it */
    int *gone; /* connections of whose end we have read, but perhaps not yet what came over them before; ~number: one
                  with that number has begun meanwhile */
    size_t gone_count, gone_capacity;
    char *service; /* of an LRU port */
    size_t service_size;
} zqb__port_t;

enum { ZQB__SPARES = 64 };

struct zqb_broker_t {
    void *ctx;
    zqb_broker_options_t options;
    uint64_t life;
    zqb__engine_t engine;
    zqb__lock_t lock; /* of everything, except while a thread waits for input */
    zqb__signal_t signal;
    int running;
    zqb__thread_t *thread;
    zqb__port_t **ports;
    const zqb__port_t *source; /* of the message at hand */
    int listed;                /* lines of mmi that were listed for it */
    size_t port_count, port_capacity, first_waiting;
    unsigned passes, rounds;
    int behind; /* passes since all was read; in the last of ZQB__BEHIND_PASSES it is as if all were */
    uint64_t paused_until; /* after a standstill */
    char **endpoints;
    size_t endpoint_count, endpoint_capacity;
    zqb__poll_t *items; /* the running thread's: what it waits for */
    size_t item_capacity;
    zqb__link_t dirty; /* peers for whom something is packed */
    zqb__link_t unreachable; /* those for whom that could not be sent */
    zqb__inbox_t inbox, events;
    zqb_msg_t outbox;
    zqb__buffer_t spares[ZQB__SPARES];
    int spare_count;
    zqb__buffer_t address; /* of the message at hand */
    zqb__parcel_t packed;  /* its body */
    zqb__parcel_t served;  /* the reply of a handler */
    zqb__rare_t served_rare; /* why it failed */
    zqb__ledger_t *unsent; /* bytes that wait to be sent over tcp and ipc */
    int interrupted;       /* by a signal, in a receive */
    int busy;              /* a function of the host is at work: a handler, or one that writes a log */
    int epoll;             /* -1, or what zqb_broker_fd returned */
    zqb__keys_t *keys;     /* NULL: no security */
    zqb__auth_watch_t watch;  /* of options.auth */
    int lists, lists_version; /* how often they have changed, from 1, and what they are now */
    zqb__link_t unwelcome;    /* connections that are to be ended */
};

enum { ZQB__MONITOR_PASSES = 16 }; /* a broker that never has to wait looks at its monitors so often */
enum { ZQB__BEHIND_PASSES = 64 };
enum { ZQB__STANDSTILL_US = 50000 }; /* behind a standstill: in this time libzmq tells what has become of connections */
enum { ZQB__BURST = 256 }; /* so many messages at most are taken from one socket before the next has its turn */

static void zqb__broker_log (void *self, int level, const char *format, va_list args)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    broker->busy++;
    zqb__log (broker->options.log, broker->options.log_arg, broker->options.log_level, level, format, args);
    broker->busy--;
}

/* Leaves errno as it is: it says why a port is closed that has just been made. */
static void zqb__port_close (zqb__port_t *port)
{
    int error = errno;
    if (!port)
        return;
    zqb__monitor_close (port->socket, port->monitor);
    if (port->socket)
        zmq_close (port->socket);
    ZQB_FREE (port->gone);
    ZQB_FREE (port->service);
    ZQB_FREE (port);
    errno = error;
}

/* How long messages for peers that are slow may hold up the end of the context. */
enum { ZQB__LINGER_MS = 500 };

static int zqb__expiry_ms (int heartbeat_ms, int liveness)
{
    uint64_t expiry = zqb__times ((uint64_t) heartbeat_ms, (uint64_t) liveness);
    return expiry > INT_MAX ? INT_MAX : (int) expiry;
}

/* What the connections of a worker or a client have to prove, and prove to the broker, whatever is said over them: that
   both are there. */
static void zqb__set_heartbeats (void *socket, int heartbeat_ms, int liveness)
{
    int expiry = zqb__expiry_ms (heartbeat_ms, liveness);
    zqb__set_int (socket, ZMQ_LINGER, ZQB__LINGER_MS);
    if (heartbeat_ms == INT_MAX)
        return;
    zqb__set_int (socket, ZMQ_HEARTBEAT_IVL, heartbeat_ms);
    zqb__set_int (socket, ZMQ_HEARTBEAT_TIMEOUT, expiry);
    zqb__set_int (socket, ZMQ_HEARTBEAT_TTL, expiry > 6553500 ? 6553500 : expiry);
}

/* The broker does not ask its peers' connections in that way: libzmq (4.3.4) aborts if it asks over one that ended
   while its messages were not read. TCP asks instead. */
static void zqb__set_keepalive (void *socket, int heartbeat_ms, int liveness)
{
    int seconds = heartbeat_ms < 1000 ? 1 : heartbeat_ms / 1000;
    zqb__set_int (socket, ZMQ_LINGER, ZQB__LINGER_MS);
    if (heartbeat_ms == INT_MAX)
        return;
    zqb__set_int (socket, ZMQ_TCP_KEEPALIVE, 1);
    zqb__set_int (socket, ZMQ_TCP_KEEPALIVE_IDLE, seconds < 32767 ? seconds : 32767);
    zqb__set_int (socket, ZMQ_TCP_KEEPALIVE_INTVL, seconds < 32767 ? seconds : 32767);
    zqb__set_int (socket, ZMQ_TCP_KEEPALIVE_CNT, liveness < 127 ? liveness : 127);
    zqb__set_int (socket, ZMQ_TCP_MAXRT, zqb__expiry_ms (heartbeat_ms, liveness));
}

/* What is larger than a message may be is refused, and what is much larger ends the connection before it is read. Not
   by more: so much memory libzmq also gives to who has connected and proved nothing yet. */
static int64_t zqb__largest_frame (int64_t max_message)
{
    return max_message > INT64_MAX - 1048576 ? -1 : max_message + 1048576;
}

/* Whether what comes in waits when there is no room for it. */
static int zqb__port_may_wait (const zqb_broker_t *broker, const zqb__port_t *port)
{
    return broker->options.when_full == ZQB_FULL_WAIT && port->for_clients;
}

enum { ZQB__WAITING = 16 }; /* so many messages of a connection wait at a port that is not read */

/* Who connects and says nothing shall neither hold up others who connect, nor stay for long. */
enum { ZQB__BACKLOG = 1024, ZQB__HANDSHAKE_MS = 10000 };

static void zqb__port_configure (const zqb_broker_t *broker, const zqb__port_t *port)
{
    void *socket = port->socket;
    const zqb_broker_options_t *options = &broker->options;
    int64_t largest = zqb__largest_frame (options->max_message);
    zqb__set_int (socket, ZMQ_ROUTER_MANDATORY, 1);
    zqb__set_int (socket, ZMQ_RCVTIMEO, ZQB__BLOCK_MS);
    zqb__set_int (socket, ZMQ_BACKLOG, ZQB__BACKLOG);
    zqb__set_int (socket, ZMQ_HANDSHAKE_IVL, ZQB__HANDSHAKE_MS);
    zqb__set_int (socket, ZMQ_SNDHWM, options->send_hwm == INT_MAX ? 0 : options->send_hwm);
    if (zqb__port_may_wait (broker, port))
        zqb__set_int (socket, ZMQ_RCVHWM, ZQB__WAITING);
    zmq_setsockopt (socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    zqb__set_keepalive (socket, options->heartbeat_ms, options->liveness);
}

/* NULL: ENOMEM, and what zmq_socket says. */
static zqb__port_t *zqb__port_new (zqb_broker_t *broker, int place, int for_clients, const char *service)
{
    zqb__port_t *port = (zqb__port_t *) zqb__alloc (sizeof *port);
    if (!port)
        return NULL;
    port->place = place;
    port->for_clients = for_clients;
    port->burst = 1;
    port->service_size = service ? strlen (service) : 0;
    port->service = service ? zqb__copy_text (service, port->service_size) : NULL;
    if (!service || port->service)
        port->socket = zmq_socket (broker->ctx, ZMQ_ROUTER);
    if (port->socket)
        zqb__port_configure (broker, port);
    if (port->socket && zqb__keys_apply (broker->keys, port->socket) == 0)
        port->monitor = zqb__monitor_open (broker->ctx, port->socket, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED);
    if (!port->monitor) {
        zqb__port_close (port);
        return NULL;
    }
    port->fd = zqb__socket_fd (port->socket);
    port->monitor_fd = zqb__socket_fd (port->monitor);
    return port;
}

/* ---- making it */

static int zqb__broker_options_valid (const zqb_broker_options_t *o)
{
    int64_t numbers[] = {o->heartbeat_ms, o->liveness, o->credit_us, o->attempts, o->no_worker_ms, o->max_services,
                         o->max_workers, o->max_clients, o->max_requests, o->max_queue, o->max_no_worker,
                         o->max_outstanding, o->max_frames, o->max_message, o->max_bytes, o->max_unsent, o->send_hwm,
                         o->spin_us, o->log_level, o->ageing_ms, o->rest_failures, o->rest_ms, o->slow_ms};
    int64_t shares[] = {o->max_user_outstanding, o->max_user_requests, o->max_user_bytes, o->max_client_requests,
                        o->max_client_bytes, o->max_user_workers};
    return zqb__all_valid (numbers, sizeof numbers / sizeof numbers[0])
           && zqb__all_valid (shares, sizeof shares / sizeof shares[0])
           && (o->when_full == ZQB_FULL_DROP || o->when_full == ZQB_FULL_WAIT);
}

static zqb_broker_options_t zqb__broker_options (const zqb_broker_options_t *given)
{
    zqb_broker_options_t options = *given;
    options.heartbeat_ms = zqb__option (options.heartbeat_ms, 2500);
    options.liveness = zqb__option (options.liveness, 3);
    options.attempts = zqb__option (options.attempts, 3);
    options.max_services = zqb__option (options.max_services, 65536);
    options.max_workers = zqb__option (options.max_workers, 65536);
    options.max_clients = zqb__option (options.max_clients, 65536);
    options.max_requests = zqb__option (options.max_requests, 1000000);
    options.max_queue = zqb__option (options.max_queue, 1000000);
    options.max_no_worker = zqb__option (options.max_no_worker, 1000000);
    options.max_outstanding = zqb__option (options.max_outstanding, 100000);
    options.max_frames = zqb__option (options.max_frames, 1000);
    options.max_message = zqb__option64 (options.max_message, (int64_t) 64 << 20);
    options.max_bytes = zqb__option64 (options.max_bytes, (int64_t) 1 << 30);
    options.max_unsent = zqb__option64 (options.max_unsent, (int64_t) 1 << 30);
    options.send_hwm = zqb__option (options.send_hwm, 10000);
    options.log_level = options.log_level ? options.log_level : (int) ZQB_LOG_INFO;
    return options;
}

/* Of what is limited if that is asked for: 0 off. */
static uint64_t zqb__option_share (int64_t most)
{
    return most > 0 ? (uint64_t) most : 0;
}

static zqb__limits_t zqb__broker_limits (const zqb_broker_options_t *options)
{
    zqb__limits_t limits;
    uint64_t beat = (uint64_t) options->heartbeat_ms * 1000u;
    int never = options->heartbeat_ms == INT_MAX || options->liveness == INT_MAX;
    limits.heartbeat = options->heartbeat_ms == INT_MAX ? UINT64_MAX : beat;
    limits.expiry = never ? UINT64_MAX : zqb__times (beat, (uint64_t) options->liveness);
    limits.no_worker = zqb__option_us (options->no_worker_ms, 60000);
    limits.credit = options->credit_us < 0 ? 0 : (uint64_t) zqb__option (options->credit_us, 1000) * 1000u;
    limits.attempts = options->attempts;
    limits.services = options->max_services;
    limits.workers = options->max_workers;
    limits.clients = options->max_clients;
    limits.requests = options->max_requests;
    limits.queue = options->max_queue;
    limits.no_worker_queue = options->max_no_worker;
    limits.outstanding = options->max_outstanding;
    limits.frames = (uint64_t) options->max_frames;
    limits.message = (uint64_t) options->max_message;
    limits.bytes = (uint64_t) options->max_bytes;
    limits.ageing = options->ageing_ms > 0 ? zqb__timeout_us (options->ageing_ms) : UINT64_MAX;
    limits.rest = zqb__option_us (options->rest_ms, 5000);
    limits.slow = options->slow_ms > 0 ? zqb__timeout_us (options->slow_ms) : UINT64_MAX;
    limits.rest_failures = options->rest_failures > 0 ? options->rest_failures : INT_MAX;
    limits.user_outstanding = zqb__option_share (options->max_user_outstanding);
    limits.user_requests = zqb__option_share (options->max_user_requests);
    limits.user_bytes = zqb__option_share (options->max_user_bytes);
    limits.user_workers = zqb__option_share (options->max_user_workers);
    limits.client_requests = zqb__option_share (options->max_client_requests);
    limits.client_bytes = zqb__option_share (options->max_client_bytes);
    return limits;
}

static int zqb__broker_send (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command);
static void zqb__broker_serve (void *self, const zqb__service_t *service, const zqb__command_t *command,
                               zqb__command_t *reply);
static void zqb__broker_dead (void *self, const zqb__command_t *command);
static int zqb__broker_filter (void *self, zqb__command_t *command, zqb__rare_t *wishes, zqb__command_t *refusal);
static void zqb__broker_outcome (void *self, const zqb_outcome_t *outcome);
static size_t zqb__broker_choose (void *self, const zqb__service_t *service, const zqb_worker_info_t *workers,
                                  size_t count);
static void zqb__broker_tell_scale (void *self, zqb_scale_fn *fn, const zqb_scale_t *scale, void *arg);
static void zqb__broker_identify (void *self, zqb__identity_t *who);
static int zqb__broker_access (void *self, const zqb_access_t *access);
static int zqb__broker_welcome (void *self, const zqb__peer_t *peer);
static int zqb__mmi (zqb_request_t *request, zqb_msg_t *reply, void *arg);
static zqb_handler_fn *zqb__mmi_find (const void *name, size_t size);

static int zqb__broker_init_engine (zqb_broker_t *broker)
{
    zqb__limits_t limits = zqb__broker_limits (&broker->options);
    zqb__sink_t sink;
    sink.self = broker;
    sink.send = zqb__broker_send;
    sink.serve = zqb__broker_serve;
    sink.dead = zqb__broker_dead;
    sink.log = zqb__broker_log;
    sink.filter = broker->options.filter ? zqb__broker_filter : NULL;
    sink.outcome = broker->options.outcome ? zqb__broker_outcome : NULL;
    sink.choose = zqb__broker_choose;
    sink.scale = zqb__broker_tell_scale;
    sink.identify = zqb__broker_identify;
    sink.access = broker->options.access ? zqb__broker_access : NULL;
    sink.welcome = broker->options.auth ? zqb__broker_welcome : NULL;
    if (zqb__engine_init (&broker->engine, &limits, &sink, zqb__random (), zqb__clock ()) != 0)
        return -1;
    broker->engine.mmi.handler = zqb__mmi;
    broker->engine.mmi.handler_arg = broker;
    return 0;
}

static int zqb__broker_add_port (zqb_broker_t *broker, zqb__port_t *port)
{
    void **ports = (void **) &broker->ports;
    if (!port || zqb__grow (ports, &broker->port_capacity, broker->port_count + 1, sizeof *broker->ports) != 0)
        return -1;
    broker->ports[broker->port_count++] = port;
    return 0;
}

static void zqb__broker_free (zqb_broker_t *broker)
{
    for (size_t i = 0; i < broker->port_count; i++)
        zqb__port_close (broker->ports[i]);
    for (size_t i = 0; i < broker->endpoint_count; i++)
        ZQB_FREE (broker->endpoints[i]);
#ifdef __linux__
    if (broker->epoll >= 0)
        close (broker->epoll);
#endif
    ZQB_FREE (broker->ports);
    ZQB_FREE (broker->endpoints);
    ZQB_FREE (broker->items);
    zqb__inbox_close (&broker->inbox);
    zqb__inbox_close (&broker->events);
    zqb_msg_close (&broker->outbox);
    while (broker->spare_count)
        zqb__buffer_close (&broker->spares[--broker->spare_count]);
    zqb__buffer_close (&broker->address);
    zqb__keys_free (&broker->keys);
    if (broker->watch.signal)
        zqb__auth_unwatch (broker->options.auth, &broker->watch);
    zqb__parcel_close (&broker->packed);
    zqb__parcel_close (&broker->served);
    zqb__ledger_release (broker->unsent);
    zqb__signal_close (&broker->signal);
    zqb__lock_close (&broker->lock);
    ZQB_FREE (broker);
}

/* Room for the front of any message, so that it can always be told who has sent it. -1 and ENOMEM. */
static int zqb__broker_reserve (zqb_broker_t *broker)
{
    enum { ADDRESS_FRAMES = 1 + ZQB__ENVELOPE_MAX };
    zqb__inbox_t *inbox = &broker->inbox;
    size_t address = ADDRESS_FRAMES * (4 + (size_t) ZQB__ADDRESS_MAX);
    int failed = zqb__grow ((void **) &inbox->frames, &inbox->capacity, ADDRESS_FRAMES + 1, sizeof *inbox->frames);
    return failed || !zqb__buffer_room (&broker->address, address) ? -1 : 0;
}

/* The parts that can fail. The first has been made when this is called. */
static int zqb__broker_fill (zqb_broker_t *broker)
{
    int failed = zqb__keys_of_broker (&broker->keys, &broker->options);
    broker->options.server_secret = broker->options.zap_domain = NULL; /* the caller's */
    if (failed)
        return -1;
    zqb__port_t *port = zqb__port_new (broker, ZQB__MAJORDOMO, 0, NULL);
    if (zqb__broker_add_port (broker, port) != 0) {
        zqb__port_close (port);
        return -1;
    }
    broker->unsent = zqb__ledger_new ((uint64_t) broker->options.max_bytes, (uint64_t) broker->options.max_unsent);
    if (!broker->unsent || zqb__broker_reserve (broker) != 0 || zqb__broker_init_engine (broker) != 0)
        return -1;
    if (broker->options.auth)
        zqb__auth_watch (broker->options.auth, &broker->watch, &broker->signal);
    return 0;
}

/* How many frames a message may have: an envelope, what a header takes, what a full parcel has, and one body more. */
static size_t zqb__broker_frames (const zqb_broker_options_t *options)
{
    size_t rest = ZQB__ENVELOPE_MAX + 8 + ZQB__PARCEL_FRAMES;
    return options->max_frames == INT_MAX ? SIZE_MAX : (size_t) options->max_frames + rest;
}

ZQB_API zqb_broker_t *zqb_broker_new (void *ctx, const zqb_broker_options_t *options)
{
    zqb_broker_options_t standard;
    memset (&standard, 0, sizeof standard);
    if (!options)
        options = &standard;
    if (!ctx || !zqb__broker_options_valid (options) || (options->auth && options->auth->ctx != ctx)) {
        errno = EINVAL;
        return NULL;
    }
    zqb_broker_t *broker = (zqb_broker_t *) zqb__alloc (sizeof *broker);
    if (!broker)
        return NULL;
    broker->ctx = ctx;
    broker->options = zqb__broker_options (options);
    broker->life = zqb__random () | 1;
    broker->epoll = -1;
    broker->inbox.limit = zqb__broker_frames (&broker->options);
    broker->events.limit = SIZE_MAX;
    zqb_msg_init (&broker->outbox);
    zqb__list_init (&broker->dirty);
    zqb__list_init (&broker->unreachable);
    zqb__list_init (&broker->unwelcome);
    if (zqb__signal_init (&broker->signal) != 0) {
        ZQB_FREE (broker);
        return NULL;
    }
    if (zqb__lock_init (&broker->lock) != 0 || zqb__broker_fill (broker) != 0) {
        int error = errno;
        zqb__broker_free (broker);
        errno = error;
        return NULL;
    }
    return broker;
}

/* ---- sending: the engine's commands go out */

/* Buffers go from peer to peer, so that many peers who seldom get something do not each keep one. */
static void zqb__broker_take_buffer (zqb_broker_t *broker, zqb__buffer_t *buffer)
{
    if (!buffer->bytes && broker->spare_count)
        *buffer = broker->spares[--broker->spare_count];
}

static void zqb__broker_give_buffer (zqb_broker_t *broker, zqb__buffer_t *buffer)
{
    if (!buffer->bytes || broker->spare_count == ZQB__SPARES) {
        zqb__buffer_close (buffer);
        return;
    }
    broker->spares[broker->spare_count++] = *buffer;
    memset (buffer, 0, sizeof *buffer);
}

/* Sends what is in the outbox. Of a connection that is somebody else's than ours it is counted how much waits there.
   -1: EHOSTUNREACH, it is gone; EAGAIN, it does not read. */
static int zqb__broker_transmit (zqb_broker_t *broker, zqb__peer_t *peer)
{
    zqb__connection_t *connection = peer->connection;
    if (connection && !connection->account)
        connection->account = zqb__account_new (broker->unsent);
    if (connection && connection->account && zqb__outbox_count (&broker->outbox, connection->account) != 0)
        return -1;
    return zqb__outbox_send (&broker->outbox, broker->ports[peer->port]->socket, ZMQ_DONTWAIT);
}

/* Sends what is packed for a peer. -1: it cannot be sent, and is dropped. */
static int zqb__broker_flush_peer (zqb_broker_t *broker, zqb__peer_t *peer)
{
    zqb__list_remove (&peer->dirty);
    zqb__outbox_clear (&broker->outbox);
    int failed = zqb__outbox_add_address (&broker->outbox, peer->address, peer->address_size) != 0
                 || zqb__outbox_add_parcel (&broker->outbox, &peer->out) != 0
                 || zqb__broker_transmit (broker, peer) != 0;
    int error = errno;
    zqb__parcel_clear (&peer->out);
    zqb__broker_give_buffer (broker, &peer->out.bytes);
    zqb__outbox_clear (&broker->outbox);
    errno = error;
    if (failed)
        return -1;
    peer->replies = peer->requests_out = 0;
    broker->engine.stats.messages_out++;
    return 0;
}

/* ZQB/1: behind what is packed already; it leaves at the end of the pass. */
static int zqb__broker_pack (zqb_broker_t *broker, zqb__peer_t *peer, const zqb__command_t *command)
{
    if (zqb__wire_full (&peer->out) && zqb__broker_flush_peer (broker, peer) != 0)
        return -1;
    zqb__broker_take_buffer (broker, &peer->out.bytes);
    if (zqb__wire_pack (&peer->out, broker->life, command) != 0)
        return -1;
    peer->replies += command->type == ZQB__REPLY;
    peer->requests_out += command->type == ZQB__REQUEST;
    peer->only_beat = command->type == ZQB__HEARTBEAT;
    if (zqb__list_empty (&peer->dirty))
        zqb__list_append (&broker->dirty, &peer->dirty);
    return 0;
}

static int zqb__broker_send (void *self, zqb__peer_t *peer, int side, const zqb__command_t *command)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    if (peer->dialect[side] == ZQB__ZQB1 && command->type == ZQB__HEARTBEAT && peer->out.bytes.size)
        return 0; /* what is packed for it says the same */
    if (peer->dialect[side] == ZQB__ZQB1)
        return zqb__broker_pack (broker, peer, command);
    zqb__outbox_clear (&broker->outbox);
    int failed = zqb__outbox_add_address (&broker->outbox, peer->address, peer->address_size) != 0
                 || zqb__wire_frames (&broker->outbox, peer->dialect[side], side, command) != 0
                 || zqb__broker_transmit (broker, peer) != 0;
    int error = errno;
    zqb__outbox_clear (&broker->outbox);
    errno = error;
    if (failed)
        return -1;
    broker->engine.stats.messages_out++;
    return 0;
}

/* Everything that is packed leaves. A peer that cannot be reached is kept until all that it has sent is read: a
   worker may have said goodbye. */
static void zqb__broker_flush (zqb_broker_t *broker)
{
    while (!zqb__list_empty (&broker->dirty)) {
        zqb__peer_t *peer = ZQB__OF (zqb__peer_t, dirty, broker->dirty.next);
        int failed = zqb__broker_flush_peer (broker, peer);
        if (failed && !(errno == EAGAIN && peer->only_beat)) { /* it has not read those before: busy, not gone */
            zqb__engine_suspect (peer);
            zqb__list_append (&broker->unreachable, &peer->dirty);
        } else
            zqb__engine_release (&broker->engine, peer);
    }
}

/* Nothing is left to be read. */
static void zqb__broker_bury_unreachable (zqb_broker_t *broker)
{
    while (!zqb__list_empty (&broker->unreachable)) {
        zqb__peer_t *peer = ZQB__OF (zqb__peer_t, dirty, broker->unreachable.next);
        zqb__list_remove (&peer->dirty);
        zqb__engine_lost (&broker->engine, peer);
    }
}

/* ---- receiving: messages become the engine's commands */

static void zqb__broker_count_bad (zqb_stats_t *stats, int error)
{
    switch (error) {
        case ZQB__BAD_HEADER: stats->bad_header++; break;
        case ZQB__BAD_COMMAND: stats->bad_command++; break;
        case ZQB__BAD_NAME: stats->refused_name++; break;
        case ZQB__NO_MEMORY: stats->no_memory++; break;
        default: stats->bad_frames++; break;
    }
}

static void zqb__broker_warn (zqb_broker_t *broker, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    zqb__broker_log (broker, ZQB_LOG_WARNING, format, args);
    va_end (args);
}

/* Lays out the envelope of the message at hand as an address. */
static int zqb__broker_read_address (zqb_broker_t *broker, size_t frames)
{
    broker->address.size = 0;
    for (size_t i = 0; i < frames; i++) {
        size_t size = zmq_msg_size (&broker->inbox.frames[i]);
        unsigned char *at = size > ZQB__ADDRESS_MAX ? NULL : zqb__buffer_add (&broker->address, 4 + size);
        if (!at)
            return -1;
        zqb__put_32 (at, (uint32_t) size);
        memcpy (at + 4, zmq_msg_data (&broker->inbox.frames[i]), size);
    }
    return 0;
}

/* Reads which connections are gone. That is acted upon when all that came over them has been read, too, as a worker may
   have sent its last reply and gone. -1: ENOMEM, what is left is read later. */
static int zqb__port_read_monitor (zqb__port_t *port, zqb__inbox_t *events)
{
    void **gone = (void **) &port->gone;
    while (zqb__grow (gone, &port->gone_capacity, port->gone_count + 1, sizeof *port->gone) == 0) {
        int32_t connection;
        uint16_t event;
        if (!zqb__monitor_next (port->monitor, events, &event, &connection))
            return 0;
        port->gone[port->gone_count++] = event == ZMQ_EVENT_DISCONNECTED ? connection : ~connection;
    }
    return -1;
}

static void zqb__broker_bury_gone (zqb_broker_t *broker, int index)
{
    zqb__port_t *port = broker->ports[index];
    for (size_t i = 0; i < port->gone_count; i++)
        if (port->gone[i] >= 0)
            zqb__engine_disconnected (&broker->engine, index, port->gone[i]);
    port->gone_count = 0;
    zqb__engine_bury (&broker->engine);
}

/* The ends of the connections that had this number before, if we have read of them. Whether the last that had it has
   ended, too: that is still to be acted upon. */
static int zqb__broker_bury_one (zqb_broker_t *broker, int index, int connection)
{
    zqb__port_t *port = broker->ports[index];
    size_t kept = 0;
    int ended = 0;
    for (size_t i = 0; i < port->gone_count; i++)
        if (port->gone[i] == connection || port->gone[i] == ~connection) {
            ended = port->gone[i] == connection;
            if (ended)
                zqb__engine_disconnected (&broker->engine, index, connection);
        } else
            port->gone[kept++] = port->gone[i];
    port->gone_count = kept;
    zqb__engine_bury (&broker->engine);
    return ended;
}

/* Whether a peer has chosen its name itself, and may have it again over its next connection. Those that libzmq chooses
   start with a zero byte, which the others must not. */
static int zqb__peer_named_itself (const zqb__peer_t *peer)
{
    return peer->address_size > 4 && peer->address[4] != 0;
}

/* A property of the message at hand, which libzmq knows of its connection; NULL none. The frame behind the address
   always has them. */
static const char *zqb__broker_property (zqb_broker_t *broker, const char *name)
{
    zqb__inbox_t *inbox = &broker->inbox;
    return inbox->count ? zmq_msg_gets (&inbox->frames[inbox->count > 1], name) : NULL;
}

/* Who has sent the message at hand. Where a handler may be missing, a user id may be what the peer says of itself, as
   libzmq has both under one name; only an enforced one is always the handler's. And only the socket tells who is in our
   process: what comes over inproc has no properties, but neither has what came over a connection that was cut before
   libzmq knew its address. */
static void zqb__broker_identify (void *self, zqb__identity_t *who)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    int told = broker->keys && broker->keys->enforced;
    who->user = told ? zqb__broker_property (broker, "User-Id") : NULL;
    who->local = broker->source->local;
}

/* Keeps a property of the message at hand for as long as its connection. -1 and ENOMEM. */
static int zqb__broker_keep_property (zqb_broker_t *broker, const char *name, char **kept)
{
    const char *value = *kept ? NULL : zqb__broker_property (broker, name);
    if (!value)
        return 0;
    *kept = zqb__copy_text (value, strlen (value));
    return *kept ? 0 : -1;
}

/* The first that comes over a connection tells where its other end is, and what it was let in by. -1 and ENOMEM: it
   cannot be told whether it is welcome, and what it says is not to be heard. */
static int zqb__broker_note_place (zqb_broker_t *broker, zqb__peer_t *peer)
{
    zqb__connection_t *connection = peer->connection;
    int kept = connection && zqb__broker_keep_property (broker, "Peer-Address", &connection->address) == 0;
    if (!broker->options.auth)
        return 0;
    if (kept && zqb__broker_keep_property (broker, zqb__zap_property, &connection->entry) == 0)
        return 0;
    zqb__peer_leave_connection (&broker->engine, peer); /* so that its next message is looked at again */
    errno = ENOMEM;
    return -1;
}

/* Whether a peer would be let in now; found out once for each connection and state of the lists. Who has none just now,
   as it was lost, has to be let in anyway to come back. */
static int zqb__broker_welcome (void *self, const zqb__peer_t *peer)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    zqb__connection_t *connection = peer->connection;
    if (!connection || connection->judged == broker->lists)
        return !connection || connection->welcome;
    connection->judged = broker->lists;
    connection->welcome = connection->entry
                          && zqb__auth_admits (broker->options.auth, zqb__user_name (peer->user),
                                               zqb__peer_place (peer), connection->entry);
    if (!connection->welcome && !connection->cut && zqb__list_empty (&connection->unwelcome))
        zqb__list_append (&broker->unwelcome, &connection->unwelcome);
    return connection->welcome;
}

static int zqb__text_same (const char *one, const char *other)
{
    return strcmp (one ? one : "", other ? other : "") == 0;
}

/* Whether who has sent the message at hand is who the peer was, as far as the connection proves it: by a name that
   libzmq chose and the number of a connection alone it could be the next that has both. */
static int zqb__broker_still_is (zqb_broker_t *broker, const zqb__peer_t *peer)
{
    zqb__identity_t who;
    zqb__broker_identify (broker, &who);
    return zqb__text_same (who.user, zqb__user_name (peer->user))
           && (!broker->options.auth
               || zqb__text_same (zqb__broker_property (broker, zqb__zap_property), peer->connection->entry));
}

/* Remembers the connection that the message at hand came over. Its number may have been another's, of whose end we have
   not read yet: that is done first, so that it cannot be taken for the end of the new one, which may have ended as
   well, before it was heard. Over another connection somebody else may have a name that a peer chose before: who that
   is comes before all, as what others lose by the end of a connection may be for that peer. -1: ENOMEM, it is not known
   who that is. */
static int zqb__broker_note_connection (zqb_broker_t *broker, int index, zqb__peer_t *peer)
{
    int connection = zmq_msg_get (&broker->inbox.frames[0], ZMQ_SRCFD);
    if (!zqb__peer_is_at (peer, broker->address.bytes, broker->address.size))
        return 0; /* it came from where the peer was before */
    if (connection < 0)
        return peer->connection ? zqb__engine_recognise (&broker->engine, peer) : 0;
    if (zqb__peer_came_over (peer, connection) && !zqb__peer_named_itself (peer) && zqb__broker_still_is (broker, peer))
        return 0;
    if (zqb__engine_recognise (&broker->engine, peer) != 0)
        return -1;
    zqb__port_read_monitor (broker->ports[index], &broker->events);
    int ended = zqb__broker_bury_one (broker, index, connection);
    zqb__peer_set_connection (&broker->engine, peer, connection);
    if (ended) /* there is room: it was in there */
        broker->ports[index]->gone[broker->ports[index]->gone_count++] = connection;
    if (zqb__broker_note_place (broker, peer) != 0)
        return -1;
    if (broker->options.auth)
        zqb__broker_welcome (broker, peer);
    return 0;
}

/* Who sent the message at hand; NULL if that cannot be told or remembered, which is counted. */
static zqb__peer_t *zqb__broker_sender (zqb_broker_t *broker, const zqb__incoming_t *in, int port)
{
    zqb__buffer_t *address = &broker->address;
    if (zqb__broker_read_address (broker, in->envelope) != 0) {
        broker->engine.stats.bad_header++;
        return NULL;
    }
    zqb__peer_t *peer = zqb__engine_peer (&broker->engine, port, address->bytes, address->size, in->life);
    if (!peer) {
        broker->engine.stats.no_memory++;
        return NULL;
    }
    if (zqb__broker_note_connection (broker, port, peer) != 0) {
        broker->engine.stats.no_memory++;
        zqb__engine_release (&broker->engine, peer);
        return NULL;
    }
    if (in->dialect == ZQB__ZQB1)
        peer->dialect[ZQB__CLIENT] = peer->dialect[ZQB__WORKER] = ZQB__ZQB1;
    return peer;
}

/* A worker is answered in the dialect of its READY: words or numbers. */
static void zqb__broker_set_dialect (zqb__peer_t *peer, const zqb__incoming_t *in, const zqb__command_t *command)
{
    int known = in->side == ZQB__WORKER && peer->worker;
    if (in->dialect != ZQB__ZQB1 && (!known || command->type == ZQB__READY))
        peer->dialect[in->side] = in->dialect;
}

/* Room to pass a body on in a dialect in which each of its frames is one of its own: for lack of that the worker would
   be lost whose turn it is, and one of LRU could not be told. -1 and ENOMEM. */
static int zqb__broker_expect (zqb_broker_t *broker, const zqb__command_t *command)
{
    enum { FRONT = 1 + ZQB__ENVELOPE_MAX + 8 };
    if (command->body.frames > broker->engine.limits.frames)
        return 0; /* it will be refused */
    return zqb__msg_reserve (&broker->outbox, FRONT + command->body.frames);
}

/* Workers where there are clients only; and ZQB/1, which has a word for a refusal, where others wait for room. */
static int zqb__port_refuses (const zqb_broker_t *broker, const zqb__port_t *port, const zqb__incoming_t *in,
                              const zqb__command_t *command)
{
    return port->for_clients
           && (command->type == ZQB__READY
               || (command->type == ZQB__REQUEST && in->dialect == ZQB__ZQB1 && zqb__port_may_wait (broker, port)));
}

/* Takes the commands out of a message. 0, or what is wrong with it. */
static int zqb__broker_read (zqb_broker_t *broker, zqb__incoming_t *in, int index, zqb__peer_t *peer)
{
    zqb__port_t *port = broker->ports[index];
    zqb__command_t command;
    int more;
    while ((more = zqb__wire_next (in, &command)) == 1) {
        zqb__broker_set_dialect (peer, in, &command);
        if (port->service) {
            command.service = (const unsigned char *) port->service;
            command.service_size = port->service_size;
        }
        if (zqb__broker_expect (broker, &command) != 0)
            return ZQB__NO_MEMORY;
        if (zqb__port_refuses (broker, port, in, &command))
            zqb__engine_turn_away (&broker->engine, peer, &command);
        else if (zqb__engine_receive (&broker->engine, peer, &command) != 0)
            return ZQB__FINE;
    }
    if (more < 0)
        zqb__broker_set_dialect (peer, in, &command);
    return more < 0 ? in->error : ZQB__FINE;
}

/* The lists of who may connect may have changed: then it is looked who is still welcome, and who is not may do no more.
   Before each message, so that what is sent behind a change is not heard as before it. */
static void zqb__broker_look_at_lists (zqb_broker_t *broker)
{
    int version = zqb__auth_version (broker->options.auth);
    if (broker->lists && version == broker->lists_version)
        return;
    broker->lists++;
    broker->lists_version = version;
    zqb__engine_connections (&broker->engine, zqb__broker_welcome, broker);
    zqb__engine_access_changed (&broker->engine);
}

/* The message in the inbox, from one of the ports. */
static void zqb__broker_deliver (zqb_broker_t *broker, int index)
{
    zqb__engine_t *engine = &broker->engine;
    zqb__inbox_t *inbox = &broker->inbox;
    zqb__incoming_t in;
    zqb__peer_t *peer;
    int place = broker->ports[index]->place;
    broker->source = broker->ports[index];
    broker->listed = 0;
    if (broker->options.auth)
        zqb__broker_look_at_lists (broker);
    engine->stats.messages_in++;
    int error = zqb__wire_open (&in, place, inbox->frames, inbox->count, &broker->packed) == 0 ? ZQB__FINE : in.error;
    if (error) {
        zqb__broker_count_bad (&engine->stats, error);
        zqb__engine_tell (engine, ZQB_LOG_WARNING, "a message without a header that we know");
        return;
    }
    if ((peer = zqb__broker_sender (broker, &in, index)) == NULL)
        return;
    if (inbox->overflow)
        engine->stats.refused_frames++;
    else if ((error = inbox->starved ? ZQB__NO_MEMORY : zqb__broker_read (broker, &in, index, peer)) != ZQB__FINE)
        zqb__broker_count_bad (&engine->stats, error);
    if (error == ZQB__NO_MEMORY)
        zqb__engine_missed (engine, peer);
    else if (error || inbox->overflow) {
        zqb__engine_tell (engine, ZQB_LOG_WARNING, "a malformed message (%s)", zqb__dialects[in.dialect].name);
        peer->dialect[in.side] = in.dialect;
        zqb__engine_malformed (engine, peer, in.side);
    }
    zqb__engine_release (engine, peer);
}

/* ---- the loop */

/* Whether what comes in at a port is to wait for room. */
static int zqb__port_must_wait (zqb_broker_t *broker, const zqb__port_t *port)
{
    return zqb__port_may_wait (broker, port)
           && !zqb__engine_has_room (&broker->engine, port->service, port->service_size);
}

static void zqb__port_set_waits (const zqb_broker_t *broker, zqb__port_t *port, int waits);

/* After a standstill workers have to wait for what is to be done, until it is known who of them is there. */
static void zqb__broker_look_at_clock (zqb_broker_t *broker)
{
    broker->engine.now = zqb__clock ();
    if (broker->engine.paused || !zqb__engine_is_late (&broker->engine))
        return;
    zqb__engine_pause (&broker->engine);
    broker->paused_until = broker->engine.now + ZQB__STANDSTILL_US;
}

/* Takes at most so many messages from a port. How many; -1: ETERM. flags as for zqb__inbox_receive, for the first. */
static int zqb__broker_drain (zqb_broker_t *broker, int index, int most, int flags)
{
    for (int count = 0; count < most; count++, flags = ZMQ_DONTWAIT) {
        if (zqb__port_must_wait (broker, broker->ports[index])) {
            zqb__port_set_waits (broker, broker->ports[index], 1);
            return count;
        }
        int got = zqb__inbox_receive (&broker->inbox, broker->ports[index]->socket, flags);
        broker->interrupted |= got < 0 && errno == EINTR;
        if (got != 1)
            return got < 0 && errno != EINTR ? -1 : count;
        if (!flags)
            zqb__broker_look_at_clock (broker);
        zqb__broker_deliver (broker, index);
    }
    return most;
}

/* Takes what came in at a port. Few messages at first: a lone one is answered before we look whether it is alone, which
   is a system call; then more and more, so that what they cause leaves together. How many; -1: ETERM. all_read is
   cleared if there may be more. */
static int zqb__broker_serve_port (zqb_broker_t *broker, int index, int look, int flags, int *all_read)
{
    zqb__port_t *port = broker->ports[index];
    if (look || port->monitor_due)
        port->monitor_due = zqb__port_read_monitor (port, &broker->events) != 0;
    int count = zqb__broker_drain (broker, index, port->burst, flags);
    if (count < 0)
        return -1;
    int drained = count < port->burst;
    if (port->gone_count && (drained || broker->behind == ZQB__BEHIND_PASSES - 1))
        zqb__broker_bury_gone (broker, index);
    *all_read &= drained;
    port->burst = drained ? 1 : count < ZQB__BURST ? count * 4 : ZQB__BURST;
    return count;
}

/* All ports that may have to wait for room, or all others, which are first, as there is more room when they have been
   read. There may be room for one only: so the next time those come first that are behind the last that took some.
   How many messages; -1: ETERM. */
static int zqb__broker_serve_ports (zqb_broker_t *broker, int waiting, int look, int flags, int *all_read)
{
    int received = 0;
    size_t first = waiting ? broker->first_waiting : broker->rounds++;
    for (size_t i = 0; i < broker->port_count; i++) {
        size_t index = (first + i) % broker->port_count;
        if (zqb__port_may_wait (broker, broker->ports[index]) != waiting)
            continue;
        int count = zqb__broker_serve_port (broker, (int) index, look, flags, all_read);
        if (count < 0)
            return -1;
        if (waiting && count > 0)
            broker->first_waiting = index + 1;
        received += count;
    }
    return received;
}

/* Whether a port was held for which there is room now. */
static int zqb__broker_let_go (zqb_broker_t *broker)
{
    int some = 0;
    for (size_t i = 0; i < broker->port_count; i++)
        if (broker->ports[i]->waits && !zqb__port_must_wait (broker, broker->ports[i])) {
            zqb__port_set_waits (broker, broker->ports[i], 0);
            some = 1;
        }
    return some;
}

/* Whether a connection has ended by itself: then its number may be another's. libzmq tells of an end before it closes
   the descriptor, so what was held before this is asked is the connection's if it is not told. -1: ENOMEM. */
static int zqb__broker_has_ended (zqb_broker_t *broker, const zqb__connection_t *connection)
{
    zqb__port_t *port = broker->ports[connection->port];
    if (zqb__port_read_monitor (port, &broker->events) != 0)
        return -1;
    for (size_t i = 0; i < port->gone_count; i++)
        if (port->gone[i] == connection->number)
            return 1;
    return 0;
}

/* Ends one, when it was said to its peers what can be. One that cannot be ended stays, and may nothing. -1: ENOMEM,
   EMFILE, it is to be tried again. */
static int zqb__broker_end_one (zqb_broker_t *broker, zqb__connection_t *connection)
{
    int held = zqb__connection_hold (connection->number);
    if (held < 0 && errno == EMFILE)
        return -1;
    int ended = zqb__broker_has_ended (broker, connection);
    if (ended == 0 && zqb__connection_cut (held, broker->endpoints, broker->endpoint_count) == 0) {
        const zqb__peer_t *peer = ZQB__OF (zqb__peer_t, of_connection, connection->peers.next);
        const char *name = zqb__user_name (peer->user);
        char user[ZQB__NAME_TEXT];
        connection->cut = 1;
        broker->engine.stats.let_go++;
        zqb__broker_warn (broker, "let go: user '%s' at '%.64s' would not be let in any more",
                          zqb__name_text (name, strlen (name), user), zqb__peer_place (peer));
    }
    zqb__connection_let (held);
    return ended < 0 ? -1 : 0;
}

/* How many were looked at: then another pass is due, for the ends of others that were read. */
static int zqb__broker_end_unwelcome (zqb_broker_t *broker)
{
    int count = 0;
    while (!zqb__list_empty (&broker->unwelcome)) {
        zqb__connection_t *connection = ZQB__OF (zqb__connection_t, unwelcome, broker->unwelcome.next);
        if (zqb__broker_end_one (broker, connection) != 0)
            break;
        zqb__list_remove (&connection->unwelcome);
        count++;
    }
    return count;
}

/* One round: what came in, what is due, what goes out. How many messages that were; 0: nothing is left to do. -1:
   ETERM. flags as for zqb__inbox_receive. */
static int zqb__broker_pass (zqb_broker_t *broker, int flags)
{
    uint64_t sent = broker->engine.stats.messages_out;
    broker->listed = 0;
    int received = 0, all_read = 1, look = ++broker->passes % ZQB__MONITOR_PASSES == 0;
    if (flags)
        zqb__broker_look_at_clock (broker);
    if (broker->options.auth)
        zqb__broker_look_at_lists (broker);
    for (int waiting = 0; waiting <= 1; waiting++) {
        int count = zqb__broker_serve_ports (broker, waiting, look, flags, &all_read);
        if (count < 0)
            return -1;
        received += count;
    }
    broker->behind = all_read ? 0 : (broker->behind + 1) % ZQB__BEHIND_PASSES;
    broker->engine.caught_up = broker->behind == 0;
    if (broker->engine.caught_up)
        zqb__broker_bury_unreachable (broker);
    zqb__engine_tick (&broker->engine);
    if (broker->engine.paused && broker->engine.caught_up && broker->engine.now >= broker->paused_until)
        zqb__engine_go_on (&broker->engine);
    zqb__broker_flush (broker);
    return received + (broker->engine.stats.messages_out != sent) + !zqb__list_empty (&broker->unreachable)
           + zqb__broker_end_unwelcome (broker) + zqb__broker_let_go (broker);
}

/* What to wait for: of each port the socket and the monitor, and the signal. How many; 0: there is no memory for it. */
static int zqb__broker_items (zqb_broker_t *broker)
{
    size_t count = 0, wanted = 2 * broker->port_count + 1;
    if (zqb__grow ((void **) &broker->items, &broker->item_capacity, wanted, sizeof *broker->items) != 0)
        return 0;
    for (size_t i = 0; i < broker->port_count; i++) {
        broker->items[count++] = zqb__poll_item (broker->ports[i]->waits ? (zmq_fd_t) -1 : broker->ports[i]->fd);
        broker->items[count++] = zqb__poll_item (broker->ports[i]->monitor_fd);
    }
    broker->items[count++] = zqb__poll_item (broker->signal.ends[0]);
    return (int) count;
}

enum { ZQB__NO_ITEMS_US = 1000, ZQB__END_AGAIN_US = 10000 };

/* When there is something to be done, whatever comes: UINT64_MAX is never. */
static uint64_t zqb__broker_next (const zqb_broker_t *broker)
{
    uint64_t next = zqb__engine_next (&broker->engine), again = broker->engine.now + ZQB__END_AGAIN_US;
    if (!zqb__list_empty (&broker->unwelcome) && again < next)
        next = again;
    return broker->engine.paused && broker->paused_until < next ? broker->paused_until : next;
}

/* Waits, with the lock open, for input, a timer, a signal or the time-out; without memory only for a moment. -1:
   EINTR. */
static int zqb__broker_wait (zqb_broker_t *broker, uint64_t timeout)
{
    int count = zqb__broker_items (broker);
    uint64_t next = zqb__broker_next (broker), now = zqb__clock ();
    uint64_t until_next = next == UINT64_MAX ? UINT64_MAX : next > now ? next - now : 0;
    if (!count && timeout > ZQB__NO_ITEMS_US)
        timeout = ZQB__NO_ITEMS_US;
    zqb__lock_leave (&broker->lock);
    int got = zqb__wait (broker->items, count, until_next < timeout ? until_next : timeout);
    zqb__lock_enter (&broker->lock);
    broker->passes = 0;
    if (got <= 0)
        return got;
    if (broker->items[count - 1].revents)
        zqb__signal_drain (&broker->signal);
    for (int i = 1; i < count; i += 2)
        if (broker->items[i].revents)
            broker->ports[i / 2]->monitor_due = 1;
    return 0;
}

/* Whether the next pass may block for a moment: there is but one socket that anything may come from soon, and nothing
   is due. The lock stays closed meanwhile. */
static int zqb__broker_may_block (const zqb_broker_t *broker)
{
    return broker->port_count == 1 && broker->options.spin_us <= 0 && broker->passes
           && zqb__list_empty (&broker->unreachable) && zqb__broker_next (broker) > broker->engine.now + ZQB__BLOCK_US;
}

/* Passes until there was something to do, for as long as the options say, but no longer than that time, and lets others
   run in between. A look at ZMQ_EVENTS would do, but fetches a message from libzmq that then no longer tells its
   connection. */
static int zqb__broker_spin (zqb_broker_t *broker, uint64_t timeout)
{
    int did = 0;
    uint64_t spin = (uint64_t) broker->options.spin_us, end = zqb__clock () + (spin < timeout ? spin : timeout);
    while (did == 0 && broker->engine.now < end && !zqb__signal_stopped (&broker->signal)) {
        zqb__lock_yield (&broker->lock);
        zqb__give_way ();
        did = zqb__broker_pass (broker, ZMQ_DONTWAIT);
    }
    return did;
}

/* A pass, or, if there is nothing to do, a wait and a pass. As zqb__broker_pass. */
static int zqb__broker_turn (zqb_broker_t *broker, uint64_t timeout)
{
    broker->interrupted = 0;
    int may_block = timeout > ZQB__BLOCK_US && zqb__broker_may_block (broker);
    int did = zqb__broker_pass (broker, may_block ? 0 : ZMQ_DONTWAIT);
    if (did == 0 && timeout > ZQB__BLOCK_US && broker->options.spin_us > 0)
        did = zqb__broker_spin (broker, timeout);
    if (did != 0 || timeout == 0 || broker->interrupted || zqb__signal_stopped (&broker->signal))
        return did;
    if (zqb__broker_wait (broker, timeout) != 0 && errno != EINTR)
        return -1;
    return zqb__broker_pass (broker, ZMQ_DONTWAIT);
}

/* Claims the loop for the calling thread. -1: EALREADY, EBUSY. */
static int zqb__broker_enter (zqb_broker_t *broker)
{
    zqb__lock_enter (&broker->lock);
    if (!broker->running && !broker->busy) {
        broker->running = 1;
        return 0;
    }
    int error = broker->running ? EALREADY : EBUSY;
    zqb__lock_leave (&broker->lock);
    errno = error;
    return -1;
}

static void zqb__broker_leave (zqb_broker_t *broker)
{
    int error = errno;
    broker->running = 0;
    zqb__lock_leave (&broker->lock);
    errno = error;
}

/* The loop itself; the caller has claimed it. */
static int zqb__broker_loop (zqb_broker_t *broker)
{
    int did = 0;
    while (did >= 0 && !zqb__signal_stopped (&broker->signal)) {
        did = zqb__broker_turn (broker, UINT64_MAX);
        zqb__lock_yield (&broker->lock);
    }
    zqb__flag_clear (&broker->signal.stop);
    return did < 0 ? -1 : 0;
}

ZQB_API int zqb_broker_run (zqb_broker_t *broker)
{
    if (!broker)
        return zqb__invalid ();
    if (zqb__broker_enter (broker) != 0)
        return -1;
    int failed = zqb__broker_loop (broker);
    zqb__broker_leave (broker);
    return failed;
}

static void zqb__broker_thread (void *arg)
{
    zqb_broker_t *broker = (zqb_broker_t *) arg;
    zqb__lock_enter (&broker->lock);
    zqb__broker_loop (broker);
    zqb__broker_leave (broker);
}

ZQB_API int zqb_broker_start (zqb_broker_t *broker)
{
    if (!broker)
        return zqb__invalid ();
    if (zqb__broker_enter (broker) != 0)
        return -1;
    zqb__thread_join (&broker->thread); /* of a former start, that was stopped */
    zqb__flag_clear (&broker->signal.stop);
    broker->thread = zqb__thread_start (zqb__broker_thread, broker);
    if (!broker->thread) {
        zqb__broker_leave (broker);
        return -1;
    }
    zqb__lock_leave (&broker->lock);
    return 0;
}

/* Milliseconds until something is due, rounded up. */
static int zqb__broker_patience (const zqb_broker_t *broker)
{
    uint64_t next = zqb__broker_next (broker), now = zqb__clock ();
    uint64_t ms = next > now ? (next - now + 999) / 1000 : 0;
    return ms > INT_MAX ? INT_MAX : (int) ms;
}

ZQB_API int zqb_broker_step (zqb_broker_t *broker, int timeout_ms)
{
    if (!broker)
        return zqb__invalid ();
    if (zqb__broker_enter (broker) != 0)
        return -1;
    zqb__signal_drain (&broker->signal);
    broker->passes = ZQB__MONITOR_PASSES - 1; /* what woke the host may be a monitor */
    int did = zqb__broker_turn (broker, timeout_ms < 0 ? UINT64_MAX : (uint64_t) timeout_ms * 1000u);
    if (zqb__signal_stopped (&broker->signal))
        zqb__flag_clear (&broker->signal.stop);
    int wait = did != 0 ? 0 : zqb__broker_patience (broker);
    zqb__broker_leave (broker);
    return did < 0 ? -1 : wait;
}

ZQB_API void zqb_broker_stop (zqb_broker_t *broker)
{
    if (broker)
        zqb__signal_stop (&broker->signal);
}

ZQB_API void zqb_broker_destroy (zqb_broker_t **broker)
{
    if (!broker || !*broker)
        return;
    zqb_broker_stop (*broker);
    zqb__thread_join (&(*broker)->thread);
    zqb__engine_finish (&(*broker)->engine);
    zqb__broker_flush (*broker);
    zqb__engine_close (&(*broker)->engine);
    zqb__broker_free (*broker);
    *broker = NULL;
}

/* ---- what the host sets up, from any thread. The thread that waits must look again, as the sockets may have changed
   under it, and a change of ZMQ_FD may have been seen by us in its place. */

static int zqb__broker_unlock (zqb_broker_t *broker, int result)
{
    int error = errno;
    zqb__signal_wake (&broker->signal);
    zqb__lock_leave (&broker->lock);
    errno = error;
    return result;
}

/* Enters to change something. -1 and EBUSY: a function of the host is at work inside the broker. */
static int zqb__broker_lock (zqb_broker_t *broker)
{
    zqb__lock_enter (&broker->lock);
    if (!broker->busy)
        return 0;
    zqb__lock_leave (&broker->lock);
    errno = EBUSY;
    return -1;
}

static int zqb__endpoint_local (const char *endpoint)
{
    return strncmp (endpoint, "inproc://", 9) == 0;
}

/* Binds, and remembers the endpoint. */
static int zqb__broker_bind_port (zqb_broker_t *broker, zqb__port_t *port, const char *endpoint)
{
    char name[256];
    size_t size = sizeof name;
    if (zqb__grow ((void **) &broker->endpoints, &broker->endpoint_capacity, broker->endpoint_count + 1,
                   sizeof *broker->endpoints)
            != 0
        || zmq_bind (port->socket, endpoint) != 0)
        return -1;
    port->bound = 1; /* even if it is unbound again: something may have come */
    port->local = zqb__endpoint_local (endpoint);
    int told = zmq_getsockopt (port->socket, ZMQ_LAST_ENDPOINT, name, &size) == 0;
    const char *bound = told ? name : endpoint; /* one so long is of inproc, and as it was given */
    char *copy = zqb__copy_text (bound, strlen (bound));
    if (!copy) {
        zmq_unbind (port->socket, bound);
        errno = ENOMEM;
        return -1;
    }
    broker->endpoints[broker->endpoint_count++] = copy;
    return 0;
}

static int zqb__broker_watch (const zqb_broker_t *broker, const zqb__port_t *port);

/* The port of all endpoints of this kind. Those of inproc have their own. NULL: ENOMEM, and what zmq_socket and epoll
   say. */
static zqb__port_t *zqb__broker_port_for (zqb_broker_t *broker, int for_clients, const char *endpoint)
{
    int local = zqb__endpoint_local (endpoint);
    for (size_t i = 0; i < broker->port_count; i++) {
        zqb__port_t *port = broker->ports[i];
        int fits = port->place == ZQB__MAJORDOMO && port->for_clients == for_clients;
        if (fits && (!port->bound || port->local == local))
            return port;
    }
    zqb__port_t *port = zqb__port_new (broker, ZQB__MAJORDOMO, for_clients, NULL);
    if (port && zqb__broker_watch (broker, port) == 0 && zqb__broker_add_port (broker, port) == 0)
        return port;
    zqb__port_close (port);
    return NULL;
}

static int zqb__broker_add_endpoint (zqb_broker_t *broker, int for_clients, const char *endpoint)
{
    size_t before = broker->port_count;
    zqb__port_t *port = zqb__broker_port_for (broker, for_clients, endpoint);
    if (port && zqb__broker_bind_port (broker, port, endpoint) == 0)
        return 0;
    if (broker->port_count > before)
        zqb__port_close (broker->ports[--broker->port_count]);
    return -1;
}

static int zqb__broker_bind (zqb_broker_t *broker, int for_clients, const char *endpoint)
{
    if (!broker || !endpoint)
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    return zqb__broker_unlock (broker, zqb__broker_add_endpoint (broker, for_clients, endpoint));
}

ZQB_API int zqb_broker_bind (zqb_broker_t *broker, const char *endpoint)
{
    return zqb__broker_bind (broker, 0, endpoint);
}

ZQB_API int zqb_broker_bind_clients (zqb_broker_t *broker, const char *endpoint)
{
    return zqb__broker_bind (broker, 1, endpoint);
}

/* Both ports or none. */
static int zqb__broker_add_lru (zqb_broker_t *broker, const char *const endpoints[2], const char *service)
{
    zqb__port_t *ports[2];
    size_t before = broker->endpoint_count;
    ports[0] = zqb__port_new (broker, ZQB__FRONTEND, 1, service);
    ports[1] = ports[0] ? zqb__port_new (broker, ZQB__BACKEND, 0, service) : NULL;
    void **all = (void **) &broker->ports;
    if (ports[0] && ports[1]
        && zqb__grow (all, &broker->port_capacity, broker->port_count + 2, sizeof *broker->ports) == 0
        && zqb__broker_watch (broker, ports[0]) == 0 && zqb__broker_watch (broker, ports[1]) == 0
        && zqb__broker_bind_port (broker, ports[0], endpoints[0]) == 0
        && zqb__broker_bind_port (broker, ports[1], endpoints[1]) == 0) {
        zqb__broker_add_port (broker, ports[0]);
        zqb__broker_add_port (broker, ports[1]);
        return 0;
    }
    int error = errno;
    while (broker->endpoint_count > before) {
        zmq_unbind (ports[0]->socket, broker->endpoints[--broker->endpoint_count]); /* at once, unlike zmq_close */
        ZQB_FREE (broker->endpoints[broker->endpoint_count]);
    }
    zqb__port_close (ports[0]);
    zqb__port_close (ports[1]);
    errno = error;
    return -1;
}

ZQB_API int zqb_broker_bind_lru (zqb_broker_t *broker, const char *frontend, const char *backend, const char *service)
{
    const char *endpoints[2];
    endpoints[0] = frontend;
    endpoints[1] = backend;
    if (!broker || !frontend || !backend || !zqb__service_valid (service))
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    return zqb__broker_unlock (broker, zqb__broker_add_lru (broker, endpoints, service));
}

ZQB_API int zqb_broker_endpoint (zqb_broker_t *broker, int index, char *buffer, size_t size)
{
    if (!broker || !buffer)
        return zqb__invalid ();
    zqb__lock_enter (&broker->lock);
    int64_t at = index < 0 ? (int64_t) broker->endpoint_count + index : index;
    const char *name = at >= 0 && at < (int64_t) broker->endpoint_count ? broker->endpoints[at] : NULL;
    int fits = name && strlen (name) < size;
    if (fits)
        memcpy (buffer, name, strlen (name) + 1);
    zqb__lock_leave (&broker->lock);
    return fits ? 0 : zqb__invalid ();
}

ZQB_API int zqb_broker_handle (zqb_broker_t *broker, const char *service, zqb_handler_fn *handler, void *arg)
{
    if (!broker || !service || !zqb__name_valid (strlen (service)))
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    broker->engine.now = zqb__clock ();
    return zqb__broker_unlock (broker, zqb__engine_handle (&broker->engine, service, handler, arg));
}

ZQB_API int zqb_broker_time_limit (zqb_broker_t *broker, const char *service, int limit_ms)
{
    if (!broker || !zqb__service_valid (service) || limit_ms < -1)
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    broker->engine.now = zqb__clock ();
    uint64_t limit = limit_ms > 0 ? zqb__timeout_us (limit_ms) : UINT64_MAX;
    return zqb__broker_unlock (broker, zqb__engine_limit (&broker->engine, service, limit));
}

ZQB_API int zqb_broker_policy (zqb_broker_t *broker, const char *service, int policy, zqb_choose_fn *choose, void *arg)
{
    if (!broker || !zqb__service_valid (service) || policy < ZQB_POLICY_LRU || policy > ZQB_POLICY_CUSTOM
        || (policy == ZQB_POLICY_CUSTOM && !choose))
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    broker->engine.now = zqb__clock ();
    return zqb__broker_unlock (broker, zqb__engine_policy (&broker->engine, service, policy, choose, arg));
}

ZQB_API int zqb_broker_drain (zqb_broker_t *broker, const char *service, uint64_t id)
{
    if (!broker || !zqb__service_valid (service))
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    broker->engine.now = zqb__clock ();
    int failed = zqb__engine_drain (&broker->engine, service, id), error = errno;
    zqb__broker_flush (broker); /* now, whether or not anybody runs it */
    errno = error;
    return zqb__broker_unlock (broker, failed);
}

ZQB_API int zqb_broker_scale (zqb_broker_t *broker, const char *service, const zqb_scale_options_t *options,
                              zqb_scale_fn *on_scale, void *arg)
{
    if (!broker || !zqb__service_valid (service) || (options && (!on_scale || !zqb__scale_valid (options))))
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    int failed = 0;
    broker->engine.now = zqb__clock ();
    if (options)
        failed = zqb__engine_scale (&broker->engine, service, options, on_scale, arg);
    else
        zqb__engine_unscale (&broker->engine, service);
    return zqb__broker_unlock (broker, failed);
}

/* What is wrong with a rule, or with all rules of a file, as an errno. */
static int zqb__rules_errno (const char *wrong)
{
    errno = wrong == zqb__no_memory ? ENOMEM : wrong == zqb__rules_full ? ENOSPC : EINVAL;
    return -1;
}

/* Adds to the rules that are there. */
static int zqb__broker_add_rule (zqb_broker_t *broker, int allow, const char *who, int actions, const char *services)
{
    zqb__engine_t *engine = &broker->engine;
    zqb__rules_t *rules = engine->rules ? engine->rules : zqb__rules_new ();
    zqb__word_t words, whom;
    words.at = services;
    words.size = strlen (services);
    whom.at = who;
    whom.size = strlen (who);
    const char *wrong = rules ? zqb__rules_add (rules, allow != 0, &whom, actions, words) : zqb__no_memory;
    if (wrong) {
        if (!engine->rules)
            zqb__rules_free (rules);
        return zqb__rules_errno (wrong);
    }
    engine->rules = rules;
    zqb__engine_access_changed (engine);
    return 0;
}

ZQB_API int zqb_broker_rule (zqb_broker_t *broker, int allow, const char *who, int actions, const char *services)
{
    enum { ALL = ZQB_MAY_CALL | ZQB_MAY_SERVE | ZQB_MAY_MANAGE };
    if (!broker || !who || !services || !actions || actions & ~ALL)
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    broker->engine.now = zqb__clock ();
    int failed = zqb__broker_add_rule (broker, allow, who, actions, services), error = errno;
    zqb__broker_flush (broker); /* now, whether or not anybody runs it */
    errno = error;
    return zqb__broker_unlock (broker, failed);
}

/* The rules in a text; NULL: EINVAL, and the log says in which line; ENOMEM. */
static zqb__rules_t *zqb__broker_read_rules (zqb_broker_t *broker, const char *path, const char *text, size_t size)
{
    int line = 0;
    zqb__rules_t *rules = zqb__rules_new ();
    const char *wrong = rules ? zqb__rules_read (rules, text, size, &line) : zqb__no_memory;
    if (!wrong)
        return rules;
    zqb__rules_free (rules);
    zqb__engine_log (&broker->engine, ZQB_LOG_ERROR, "%.500s, line %d: %s; the rules are as before", path, line, wrong);
    if (zqb__rules_errno (wrong) != 0 && errno == ENOSPC)
        errno = EINVAL;
    return NULL;
}

static int zqb__broker_load_rules (zqb_broker_t *broker, const char *path)
{
    zqb__file_t file;
    if (zqb__file_read (&file, path, ZQB__RULES_BYTES, 0) != 0)
        return -1;
    zqb__rules_t *rules = zqb__broker_read_rules (broker, path, file.text, file.size);
    int error = errno;
    zqb__file_free (&file);
    errno = error;
    if (!rules)
        return -1;
    zqb__engine_rules (&broker->engine, rules);
    return 0;
}

ZQB_API int zqb_broker_rules (zqb_broker_t *broker, const char *path)
{
    int failed = 0;
    if (!broker)
        return zqb__invalid ();
    if (zqb__broker_lock (broker) != 0)
        return -1;
    broker->engine.now = zqb__clock ();
    if (path)
        failed = zqb__broker_load_rules (broker, path);
    else
        zqb__engine_rules (&broker->engine, NULL);
    int error = errno;
    zqb__broker_flush (broker);
    errno = error;
    return zqb__broker_unlock (broker, failed);
}

ZQB_API int zqb_broker_stats (zqb_broker_t *broker, zqb_stats_t *stats)
{
    if (!broker || !stats)
        return zqb__invalid ();
    zqb__lock_enter (&broker->lock);
    *stats = broker->engine.stats;
    zqb__lock_leave (&broker->lock);
    return 0;
}

#ifdef __linux__

static int zqb__epoll_add (int epoll, int fd)
{
    struct epoll_event event;
    memset (&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.fd = fd;
    return epoll_ctl (epoll, EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST ? 0 : -1;
}

/* Adds what there is of a port to the descriptor of all, if there is one. -1: ENOMEM, ENOSPC. */
static int zqb__broker_watch (const zqb_broker_t *broker, const zqb__port_t *port)
{
    if (broker->epoll < 0)
        return 0;
    if (!port->waits && zqb__epoll_add (broker->epoll, port->fd) != 0)
        return -1;
    return zqb__epoll_add (broker->epoll, port->monitor_fd);
}

/* One descriptor for all sockets and the signal. */
static int zqb__broker_epoll (zqb_broker_t *broker)
{
    if (broker->epoll < 0 && (broker->epoll = epoll_create1 (EPOLL_CLOEXEC)) < 0)
        return -1;
    for (size_t i = 0; i < broker->port_count; i++)
        if (zqb__broker_watch (broker, broker->ports[i]) != 0)
            return -1;
    return zqb__epoll_add (broker->epoll, broker->signal.ends[0]) == 0 ? broker->epoll : -1;
}

/* From now on a port is not read, or is again; nor does what comes there wake anybody meanwhile. */
static void zqb__port_set_waits (const zqb_broker_t *broker, zqb__port_t *port, int waits)
{
    if (broker->epoll >= 0 && waits && !port->waits)
        epoll_ctl (broker->epoll, EPOLL_CTL_DEL, port->fd, NULL);
    else if (broker->epoll >= 0 && !waits)
        zqb__epoll_add (broker->epoll, port->fd);
    port->waits = waits;
}

#else

static int zqb__broker_epoll (zqb_broker_t *broker)
{
    if (broker->port_count == 1)
        return (int) broker->ports[0]->fd;
    errno = ENOTSUP;
    return -1;
}

static int zqb__broker_watch (const zqb_broker_t *broker, const zqb__port_t *port)
{
    (void) broker, (void) port;
    return 0;
}

static void zqb__port_set_waits (const zqb_broker_t *broker, zqb__port_t *port, int waits)
{
    (void) broker;
    port->waits = waits;
}

#endif

ZQB_API int zqb_broker_fd (zqb_broker_t *broker)
{
    if (!broker)
        return zqb__invalid ();
    zqb__lock_enter (&broker->lock);
    int fd = zqb__broker_epoll (broker);
    zqb__lock_leave (&broker->lock);
    return fd;
}

/* ---- functions of the host that see requests in the broker's thread: handlers, and who gets dead letters */

/* A request as such a function sees it. -1: ENOMEM, and it has no body. */
static int zqb__broker_show (zqb_broker_t *broker, const zqb__command_t *command, zqb_request_t *request,
                             char name[256])
{
    memset (request, 0, sizeof *request);
    zqb_msg_init (&request->body);
    request->in_handler = 1;
    request->owner = broker;
    memcpy (name, command->service, command->service_size);
    name[command->service_size] = 0;
    request->service = name;
    request->service_size = command->service_size;
    request->user = zqb__user_name (broker->engine.asks);
    return zqb__body_to_msg (&command->body, &request->body);
}

/* What a handler says before it returns: a part of the reply, or how far it is, which nobody would hear in time. All
   parts leave together, when it has returned. */
static int zqb__served_send (zqb_request_t *request, zqb__command_t *command)
{
    zqb_broker_t *broker = (zqb_broker_t *) request->owner;
    return command->type == ZQB__PARTIAL ? zqb__parcel_add_msg (&broker->served, command->msg) : 0;
}

/* Why it failed: what the handler returned, and a text, which is the first frame of the reply, and lies in
   broker->served. */
static void zqb__served_failure (zqb_broker_t *broker, int failed, const zqb_msg_t *answer, zqb__command_t *reply)
{
    size_t size = zqb_msg_count (answer) ? zqb_msg_size (answer, 0) : 0;
    zqb__parcel_clear (&broker->served);
    unsigned char *text = size ? zqb__buffer_add (&broker->served.bytes, size) : NULL;
    if (text)
        memcpy (text, zqb_msg_data (answer, 0), size);
    reply->type = ZQB__ERROR;
    reply->text = (const char *) text;
    reply->text_size = text ? size : 0;
    broker->served_rare.code = (uint32_t) failed;
    reply->rare = &broker->served_rare;
}

static void zqb__broker_serve (void *self, const zqb__service_t *service, const zqb__command_t *command,
                               zqb__command_t *reply)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    zqb_request_t request;
    zqb_msg_t answer;
    char name[256];
    int failed = zqb__broker_show (broker, command, &request, name);
    zqb_msg_init (&answer);
    zqb__parcel_clear (&broker->served);
    request.send = zqb__served_send;
    broker->busy++;
    int served = !failed;
    failed = served ? service->handler (&request, &answer, service->handler_arg) : 0;
    if (served && !failed && zqb__parcel_add_msg (&broker->served, &answer) != 0) {
        served = 0;
        zqb_msg_close (&answer); /* it is not the text of a failure */
    }
    if (!served || failed)
        zqb__served_failure (broker, failed, &answer, reply);
    else {
        reply->type = ZQB__REPLY;
        reply->body = zqb__parcel_body (&broker->served);
    }
    broker->busy--;
    zqb_msg_close (&request.body);
    zqb_msg_close (&answer);
}

static int zqb__dead_send (zqb_request_t *request, zqb__command_t *command)
{
    (void) request, (void) command;
    errno = ENOTCONN;
    return -1;
}

static void zqb__broker_dead (void *self, const zqb__command_t *command)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    zqb_request_t request;
    char name[256];
    if (!broker->options.dead_letter)
        return;
    int failed = zqb__broker_show (broker, command, &request, name);
    request.send = zqb__dead_send;
    broker->busy++;
    if (!failed)
        broker->options.dead_letter (&request, broker->options.dead_letter_arg);
    broker->busy--;
    if (failed) {
        broker->engine.stats.no_memory++;
        zqb__broker_warn (broker, "no memory for a dead letter");
    }
    zqb_msg_close (&request.body);
}

/* What a request asks for, as its options are written. */
static const char *zqb__wish_key (const unsigned char *key, size_t size, char text[256])
{
    if (!size)
        return NULL;
    memcpy (text, key, size);
    text[size] = 0;
    return text;
}

static void zqb__wishes_to_options (const zqb__rare_t *wishes, const zqb__command_t *command,
                                    zqb_request_options_t *options, char keys[2][256])
{
    memset (options, 0, sizeof *options);
    options->unique = zqb__wish_key (wishes->unique, wishes->unique_size, keys[0]);
    options->affinity = zqb__wish_key (wishes->affinity, wishes->affinity_size, keys[1]);
    options->priority = wishes->priority > ZQB_PRIORITY_HIGHEST  ? ZQB_PRIORITY_HIGHEST
                        : wishes->priority < ZQB_PRIORITY_LOWEST ? ZQB_PRIORITY_LOWEST
                                                                 : wishes->priority;
    options->deadline_ms = wishes->deadline_ms > INT_MAX ? INT_MAX : (int) wishes->deadline_ms;
    options->delay_ms = wishes->delay_ms > INT_MAX ? INT_MAX : (int) wishes->delay_ms;
    options->attempts = wishes->attempts == ZQB__ATTEMPTS_ALL ? -1 : (int) wishes->attempts;
    options->backoff_ms = wishes->backoff_ms > INT_MAX ? INT_MAX : (int) wishes->backoff_ms;
    options->backoff_max_ms = wishes->backoff_max_ms > INT_MAX ? INT_MAX : (int) wishes->backoff_max_ms;
    options->one_way = (command->flags & ZQB__ONE_WAY) != 0;
    options->fail_fast = (command->flags & ZQB__FAIL_FAST) != 0;
    options->survey = (command->flags & ZQB__SURVEY) != 0;
}

static uint32_t zqb__wish_ms (int ms)
{
    return ms > 0 ? (uint32_t) ms : 0;
}

/* And back, but for what must not be changed; numbers out of range are none. */
static void zqb__options_to_wishes (const zqb_request_options_t *options, zqb__command_t *command, zqb__rare_t *wishes)
{
    wishes->priority = options->priority;
    wishes->deadline_ms = zqb__wish_ms (options->deadline_ms);
    wishes->delay_ms = zqb__wish_ms (options->delay_ms);
    wishes->attempts = options->attempts < 0 || options->attempts > ZQB__ATTEMPTS_ALL ? (uint32_t) ZQB__ATTEMPTS_ALL
                                                                                      : (uint32_t) options->attempts;
    wishes->backoff_ms = zqb__wish_ms (options->backoff_ms);
    wishes->backoff_max_ms = zqb__wish_ms (options->backoff_max_ms);
    command->flags = (command->flags & ~ZQB__FAIL_FAST) | (options->fail_fast ? (int) ZQB__FAIL_FAST : 0);
}

/* The text of a refusal lies in broker->served. */
static int zqb__broker_filter (void *self, zqb__command_t *command, zqb__rare_t *wishes, zqb__command_t *refusal)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    zqb_request_options_t options;
    zqb_request_t request;
    zqb_msg_t answer;
    char name[256], keys[2][256];
    int refused = zqb__broker_show (broker, command, &request, name) != 0;
    broker->engine.stats.no_memory += (uint64_t) refused;
    zqb_msg_init (&answer);
    request.send = zqb__dead_send;
    zqb__wishes_to_options (wishes, command, &options, keys);
    broker->busy++;
    refused = refused || broker->options.filter (&request, &options, &answer, broker->options.filter_arg) != 0;
    broker->busy--;
    if (refused) {
        int status = refusal->status;
        zqb__served_failure (broker, 0, &answer, refusal);
        refusal->status = status;
    } else
        zqb__options_to_wishes (&options, command, wishes);
    zqb_msg_close (&request.body);
    zqb_msg_close (&answer);
    return refused;
}

static void zqb__broker_outcome (void *self, const zqb_outcome_t *outcome)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    broker->busy++;
    broker->options.outcome (outcome, broker->options.outcome_arg);
    broker->busy--;
}

static size_t zqb__broker_choose (void *self, const zqb__service_t *service, const zqb_worker_info_t *workers,
                                  size_t count)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    broker->busy++;
    size_t chosen = service->choose (workers, count, service->choose_arg);
    broker->busy--;
    return chosen;
}

static void zqb__broker_tell_scale (void *self, zqb_scale_fn *fn, const zqb_scale_t *scale, void *arg)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    broker->busy++;
    fn (scale, arg);
    broker->busy--;
}

static int zqb__broker_access (void *self, const zqb_access_t *access)
{
    zqb_broker_t *broker = (zqb_broker_t *) self;
    broker->busy++;
    int says = broker->options.access (access, broker->options.access_arg);
    broker->busy--;
    return says < 0 ? -1 : says > 0;
}

/* ---- mmi: handlers of our own (RFC 8; manual, 6) */

enum { ZQB__MMI_LINES = 1000, ZQB__MMI_LINES_AT_ONCE = 2000 };

/* Whether a list has to end, as it is long enough, or those are together that one message asks for: 0; 1 with "..." at
   its end; -1 and ENOMEM. */
static int zqb__mmi_full (zqb_broker_t *broker, zqb_msg_t *reply)
{
    if (zqb_msg_count (reply) < ZQB__MMI_LINES && broker->listed < ZQB__MMI_LINES_AT_ONCE) {
        broker->listed++;
        return 0;
    }
    return zqb_msg_add_str (reply, "...") == 0 ? 1 : -1;
}

/* Adds a line of text. -1 and ENOMEM. */
static int zqb__mmi_line (zqb_msg_t *reply, const char *format, ...)
{
    char line[1400];
    va_list args;
    va_start (args, format);
    vsnprintf (line, sizeof line, format, args);
    va_end (args);
    return zqb_msg_add_str (reply, line);
}

/* A list of which a line is missing for lack of memory is none. */
static int zqb__mmi_end (zqb_msg_t *reply, int failed)
{
    if (!failed)
        return 0;
    zqb_msg_close (reply);
    zqb_msg_add_str (reply, "the broker is out of memory");
    return -1;
}

static int zqb__mmi_service (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_broker_t *broker = (zqb_broker_t *) arg;
    zqb_msg_t *body = zqb_request_body (request);
    if (zqb_msg_count (body) == 0)
        return zqb_msg_add_str (reply, "400");
    const void *name = zqb_msg_data (body, 0);
    size_t size = zqb_msg_size (body, 0);
    int served = zqb__service_serves (zqb__service_route (&broker->engine, name, size)) || zqb__mmi_find (name, size);
    return zqb_msg_add_str (reply, served ? "200" : "404");
}

static int zqb__mmi_a_service (zqb_msg_t *reply, const zqb__engine_t *engine, const zqb__service_t *service)
{
    char name[ZQB__NAME_TEXT];
    return zqb__mmi_line (reply, "%s queued=%d running=%d workers=%d handler=%d oldest_ms=%llu delayed=%d pinned=%d",
                          zqb__service_text (service, name), zqb__service_waiting (service), service->running,
                          service->worker_count, service->handler != NULL,
                          (unsigned long long) (zqb__service_oldest (engine, service) / 1000), service->delayed_count,
                          service->pinned);
}

/* All, or the one that the body names. */
static int zqb__mmi_services (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_broker_t *broker = (zqb_broker_t *) arg;
    zqb__engine_t *engine = &broker->engine;
    zqb__link_t *all = &engine->all_services;
    zqb_msg_t *body = zqb_request_body (request);
    int ended = 0;
    if (zqb_msg_size (body, 0)) {
        zqb__service_t *one = zqb__service_find (engine, zqb_msg_data (body, 0), zqb_msg_size (body, 0));
        return one ? zqb__mmi_end (reply, zqb__mmi_a_service (reply, engine, one) < 0) : 0;
    }
    for (zqb__link_t *at = all->next; !ended && at != all; at = at->next)
        if ((ended = zqb__mmi_full (broker, reply)) == 0)
            ended = zqb__mmi_a_service (reply, engine, ZQB__OF (zqb__service_t, all, at));
    return zqb__mmi_end (reply, ended < 0);
}

static int zqb__mmi_worker (zqb_msg_t *reply, const zqb__worker_t *worker, uint64_t now)
{
    char name[ZQB__NAME_TEXT];
    return zqb__mmi_line (
        reply,
        "%s dialect=%s load=%u credit=%u served=%llu silent_ms=%llu id=%llu failed=%llu slow=%llu resting=%d "
        "draining=%d",
        zqb__service_text (worker->service, name), zqb__peer_dialect (worker->peer, ZQB__WORKER),
        (unsigned) worker->load, (unsigned) worker->credit, (unsigned long long) worker->served,
        (unsigned long long) ((now - worker->heard) / 1000), (unsigned long long) worker->number,
        (unsigned long long) worker->failed, (unsigned long long) worker->slow, worker->resting, worker->draining);
}

static int zqb__mmi_workers (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_broker_t *broker = (zqb_broker_t *) arg;
    zqb__link_t *all = &broker->engine.all_services;
    int ended = 0;
    (void) request;
    for (zqb__link_t *at = all->next; at != all; at = at->next) {
        zqb__link_t *workers = &ZQB__OF (zqb__service_t, all, at)->workers;
        for (zqb__link_t *of = workers->next; !ended && of != workers; of = of->next)
            if ((ended = zqb__mmi_full (broker, reply)) == 0)
                ended = zqb__mmi_worker (reply, ZQB__OF (zqb__worker_t, of_service, of), broker->engine.now);
    }
    return zqb__mmi_end (reply, ended < 0);
}

static int zqb__mmi_stats (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    const zqb_stats_t *stats = &((zqb_broker_t *) arg)->engine.stats;
    int failed = 0;
    (void) request;
#define ZQB__X(name, text) failed |= zqb__mmi_line (reply, #name "=%llu", (unsigned long long) stats->name);
    ZQB_STATS (ZQB__X)
#undef ZQB__X
    return zqb__mmi_end (reply, failed);
}

static const struct {
    const char *name;
    zqb_handler_fn *handler;
} zqb__mmi_handlers[] = {{"mmi.service", zqb__mmi_service},
                         {"mmi.services", zqb__mmi_services},
                         {"mmi.workers", zqb__mmi_workers},
                         {"mmi.stats", zqb__mmi_stats}};

/* The handler of an mmi service, or NULL. */
static zqb_handler_fn *zqb__mmi_find (const void *name, size_t size)
{
    for (size_t i = 0; i < sizeof zqb__mmi_handlers / sizeof zqb__mmi_handlers[0]; i++)
        if (strlen (zqb__mmi_handlers[i].name) == size && memcmp (zqb__mmi_handlers[i].name, name, size) == 0)
            return zqb__mmi_handlers[i].handler;
    return NULL;
}

/* All services whose names start with "mmi.", but for those that the host serves. */
static int zqb__mmi (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb_handler_fn *handler = zqb__mmi_find (request->service, request->service_size);
    return handler ? handler (request, reply, arg) : zqb_msg_add_str (reply, "501");
}

/* ================================================================================================================
   >>line
   Owns:    the connection of a worker or a client to its broker: socket, endpoints, what is packed, what is read, and
            what wakes who waits for it
   Door:    zqb__line_*
   Uses:    transport, wire, platform
   Never:   knows what a command means
   ================================================================================================================ */

enum { ZQB__BATCH_US = 50 }; /* what is packed may wait so long while there is more to pack */
enum { ZQB__GLANCES = 15, ZQB__GLANCE_US = 10 };

typedef struct zqb__line_t {
    void *ctx, *socket;
    void *monitor; /* tells when it is connected (again); NULL over inproc, where nobody tells */
    zmq_fd_t fd, monitor_fd;
    int connected;   /* the broker is there */
    int lost;        /* it was, and is not any more: what was sent may be lost, and what is being sent may arrive */
    int ended;       /* the context has: nothing goes any more */
    int answered;    /* something came over this connection */
    int starved;     /* a message came for which there was no memory: set here, cleared by the owner */
    char *endpoints; /* one behind the other, each with a NUL */
    size_t endpoint_count, current;
    int dialect, side;
    int heartbeat_ms, liveness; /* of the connection; 0 none */
    int send_hwm, send_timeout_ms;
    int spin_us; /* how long to look again and again before sleeping; <= 0 not at all */
    zqb__signal_t *own;    /* its owner's, which wakes it; NULL: nothing does */
    zqb__signal_t *signal; /* whose stop it heeds: the same, or one for several lines */
    uint64_t life, broker_life;
    int restarted; /* the broker is another than before: set here, cleared by the owner */
    uint64_t now;  /* as of the last look at the clock */
    int glances, skipped; /* how many looks at the clock may be left out, and were: zqb__line_glance */
    uint64_t opened, heard, told, flushed;
    uint64_t packed_at; /* when the first command of out was packed, or a little before */
    zqb__parcel_t out;    /* ZQB/1: what waits to be sent */
    zqb__parcel_t packed; /* scratch for a body */
    zqb__inbox_t inbox, events;
    zqb__incoming_t in; /* the message in the inbox, while it is read */
    int reading;
    zqb_msg_t outbox;
    zqb__keys_t *keys;    /* its own; NULL: no security */
    int refused;          /* lost is set, too: the broker does not let us in: EACCES; EPROTO: it wants something else */
    size_t refusals;      /* in a row */
    int failed, excused;  /* handshakes that failed without a word, and how many of these have ended */
} zqb__line_t;

/* Splits "a,b,c". -1: EINVAL (an empty one), ENOMEM. */
static int zqb__line_split (zqb__line_t *line, const char *endpoints)
{
    size_t size = strlen (endpoints);
    line->endpoints = zqb__copy_text (endpoints, size);
    if (!line->endpoints)
        return -1;
    line->endpoint_count = 1;
    for (size_t i = 0; i < size; i++)
        if (endpoints[i] == ',') {
            line->endpoints[i] = 0;
            line->endpoint_count++;
            if (endpoints[i + 1] == ',' || endpoints[i + 1] == 0)
                return zqb__invalid ();
        }
    return endpoints[0] == ',' || endpoints[0] == 0 ? zqb__invalid () : 0;
}

static const char *zqb__line_endpoint (const zqb__line_t *line)
{
    const char *endpoint = line->endpoints;
    for (size_t i = 0; i < line->current; i++)
        endpoint += strlen (endpoint) + 1;
    return endpoint;
}

/* What was packed or half read belongs to the old connection. */
static void zqb__line_disconnect (zqb__line_t *line)
{
    zqb__monitor_close (line->socket, line->monitor);
    if (line->socket)
        zmq_close (line->socket);
    line->socket = line->monitor = NULL;
    line->connected = line->lost = line->answered = line->refused = 0;
    line->failed = line->excused = 0;
    line->reading = 0;
    zqb__parcel_clear (&line->out);
    zqb__inbox_clear (&line->inbox);
}

/* A broker is there when it has answered in the protocol of libzmq: something that accepts connections and ends them,
   in front of a broker that is away, is not. */
#ifdef ZMQ_EVENT_HANDSHAKE_SUCCEEDED
#define ZQB__EVENT_THERE ZMQ_EVENT_HANDSHAKE_SUCCEEDED
#define ZQB__EVENT_FAILED ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
#define ZQB__EVENT_DENIED ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
#else
#define ZQB__EVENT_THERE ZMQ_EVENT_CONNECTED
#define ZQB__EVENT_FAILED 0
#define ZQB__EVENT_DENIED 0
#endif

/* Ends a connection that is given up. What it has not delivered is of no use any more: a worker that registers again
   starts anew, and a client sends again what has no answer. */
static void zqb__line_drop (zqb__line_t *line)
{
    if (line->socket)
        zqb__set_int (line->socket, ZMQ_LINGER, 0);
    zqb__line_disconnect (line);
}

static int zqb__line_is_inproc (const zqb__line_t *line)
{
    return strncmp (zqb__line_endpoint (line), "inproc:", 7) == 0;
}

static int zqb__line_watch (zqb__line_t *line)
{
    if (zqb__line_is_inproc (line))
        return 0;
    int events = ZQB__EVENT_THERE | ZQB__EVENT_FAILED | ZQB__EVENT_DENIED | ZMQ_EVENT_DISCONNECTED;
    line->monitor = zqb__monitor_open (line->ctx, line->socket, events);
    if (!line->monitor)
        return -1;
    line->monitor_fd = zqb__socket_fd (line->monitor);
    return 0;
}

/* The broker does not let us in, and libzmq does not try again. */
static void zqb__line_refuse (zqb__line_t *line, int error)
{
    line->refusals += !line->refused;
    line->refused = line->refused ? line->refused : error;
    line->lost = 1;
}

/* A connection ends. If that was before it began, and not for want of an answer, mechanisms did not fit. */
static void zqb__line_on_disconnected (zqb__line_t *line)
{
    if (line->connected)
        line->lost = 1;
    else if (ZQB__EVENT_FAILED && line->failed == line->excused)
        zqb__line_refuse (line, EPROTO);
    line->excused = line->failed;
    line->connected = 0;
}

static void zqb__line_on_event (zqb__line_t *line, uint16_t event)
{
    if (event == ZMQ_EVENT_DISCONNECTED)
        zqb__line_on_disconnected (line);
    else if (event == ZQB__EVENT_THERE) {
        line->connected = 1;
        line->refusals = 0;
        line->failed = line->excused = 0;
    } else if (event == ZQB__EVENT_DENIED)
        zqb__line_refuse (line, EACCES);
    else
        line->failed++;
}

/* Looks what became of the connection meanwhile. */
static void zqb__line_look_at_monitor (zqb__line_t *line)
{
    uint16_t event;
    int32_t value;
    while (line->monitor && zqb__monitor_next (line->monitor, &line->events, &event, &value))
        zqb__line_on_event (line, event);
}

/* Why a connection is lost, or, if it is not, why nobody may be heard, for people. */
static const char *zqb__line_why (const zqb__line_t *line)
{
    if (line->refused == EACCES)
        return "the broker refuses our key or password";
    if (line->refused)
        return "the broker wants another security mechanism, or is none";
    if (line->lost)
        return "the connection was lost";
    return line->failed && line->keys ? "handshakes fail: is the broker's key another, or its ZAP handler missing?"
                                      : "the broker is silent";
}

/* Connects anew to the current endpoint. -1: what zmq_socket and zmq_connect say, and there is no socket. */
static int zqb__line_connect (zqb__line_t *line)
{
    zqb__line_drop (line);
    line->opened = line->now;
    line->socket = zmq_socket (line->ctx, ZMQ_DEALER);
    line->ended |= !line->socket && errno == ETERM;
    if (!line->socket)
        return -1;
    zqb__set_heartbeats (line->socket, line->heartbeat_ms, line->liveness);
    zqb__set_int (line->socket, ZMQ_SNDHWM, line->send_hwm);
    zqb__set_int (line->socket, ZMQ_RCVHWM, 0);
    zqb__set_int (line->socket, ZMQ_SNDTIMEO, line->send_timeout_ms);
    zqb__set_int (line->socket, ZMQ_RCVTIMEO, ZQB__BLOCK_MS);
    line->fd = zqb__socket_fd (line->socket);
    line->heard = line->told = line->now;
    if (zqb__keys_apply (line->keys, line->socket) == 0 && zqb__line_watch (line) == 0
        && zmq_connect (line->socket, zqb__line_endpoint (line)) == 0)
        return 0;
    int error = errno;
    zqb__line_disconnect (line);
    line->ended |= error == ETERM;
    errno = error;
    return -1;
}

/* Whether nobody has bound the endpoint yet, as far as we know, and there is no other. libzmq keeps the socket of
   such a connection until somebody does, even if it was closed, so that one is enough. */
static int zqb__line_is_early (const zqb__line_t *line)
{
    return line->socket && !line->answered && line->endpoint_count == 1 && zqb__line_is_inproc (line);
}

/* To the next endpoint, or the same one if there is no other. */
static int zqb__line_connect_next (zqb__line_t *line)
{
    line->current = (line->current + 1) % line->endpoint_count;
    return zqb__line_connect (line);
}

static void zqb__line_close (zqb__line_t *line)
{
    zqb__line_disconnect (line);
    ZQB_FREE (line->endpoints);
    line->endpoints = NULL;
    zqb__keys_free (&line->keys);
    zqb__parcel_close (&line->out);
    zqb__parcel_close (&line->packed);
    zqb__inbox_close (&line->inbox);
    zqb__inbox_close (&line->events);
    zqb_msg_close (&line->outbox);
}

/* Connects to the first endpoint, after trying whether all are well-formed. The caller has set what the connection is
   to be like. -1: EINVAL, ENOMEM, what zmq_connect says; everything is closed then. */
static int zqb__line_open (zqb__line_t *line, const char *endpoints)
{
    line->life = zqb__random () | 1;
    line->now = zqb__clock ();
    line->inbox.limit = line->events.limit = SIZE_MAX;
    zqb_msg_init (&line->outbox);
    int failed = zqb__line_split (line, endpoints);
    for (size_t i = line->endpoint_count; !failed && i-- > 0;) {
        line->current = i;
        failed = zqb__line_connect (line);
    }
    if (!failed)
        return 0;
    int error = errno;
    zqb__line_close (line);
    errno = error;
    return -1;
}

static uint64_t zqb__line_look_at_clock (zqb__line_t *line)
{
    line->skipped = 0;
    return line->now = zqb__clock ();
}

/* The time, perhaps as of one of the last looks: as long as little time passes from call to call, most need not look. A
   look costs as much as all else that is done for a request. */
static uint64_t zqb__line_glance (zqb__line_t *line)
{
    uint64_t before = line->now;
    if (line->skipped++ < line->glances)
        return before;
    uint64_t passed = zqb__line_look_at_clock (line) - before;
    int more = 2 * line->glances + 1;
    line->glances = passed > ZQB__GLANCE_US ? 0 : more < ZQB__GLANCES ? more : (int) ZQB__GLANCES;
    return line->now;
}

/* Whether so much time has passed since then that what is packed need not wait for more. */
static int zqb__line_is_due (const zqb__line_t *line, uint64_t since)
{
    return line->now - since > ZQB__BATCH_US;
}

static int zqb__line_send_outbox (zqb__line_t *line, int flags)
{
    int failed = zqb__outbox_send (&line->outbox, line->socket, flags);
    int error = errno;
    zqb__outbox_clear (&line->outbox);
    line->told = line->now;
    line->ended |= failed && error == ETERM;
    errno = error;
    return failed;
}

/* Sends what is packed: 1; 0: there was nothing; -1: ENOMEM, and it stays; EAGAIN, ETERM ..., and it is dropped. flags:
   ZMQ_DONTWAIT does not wait for a broker that does not read, 0 does for as long as the socket says. */
static int zqb__line_flush (zqb__line_t *line, int flags)
{
    if (!line->out.bytes.size)
        return 0;
    zqb__outbox_clear (&line->outbox);
    if (zqb__outbox_add_parcel (&line->outbox, &line->out) != 0)
        return -1;
    zqb__parcel_clear (&line->out);
    line->flushed = line->now;
    return zqb__line_send_outbox (line, flags) == 0 ? 1 : -1;
}

static int zqb__line_send_frames (zqb__line_t *line, const zqb__command_t *command, int flags)
{
    zqb__outbox_clear (&line->outbox);
    if ((line->dialect == ZQB__MDP01 && zqb_msg_add (&line->outbox, NULL, 0) != 0)
        || zqb__wire_frames (&line->outbox, line->dialect, line->side, command) != 0)
        return -1;
    return zqb__line_send_outbox (line, flags);
}

/* Packs a command, or, in MDP, sends it. -1: ENOMEM, EMSGSIZE (nothing changed), or as zqb__line_flush. */
static int zqb__line_send (zqb__line_t *line, const zqb__command_t *command, int flags)
{
    if (line->dialect != ZQB__ZQB1)
        return zqb__line_send_frames (line, command, flags);
    if (zqb__wire_full (&line->out) && zqb__line_flush (line, flags) < 0)
        return -1;
    if (!line->out.bytes.size)
        line->packed_at = line->now;
    return zqb__wire_pack (&line->out, line->life, command);
}

/* A body of this message, until the next one is made or read. -1: ENOMEM, EMSGSIZE. */
static int zqb__line_pack_body (zqb__line_t *line, const zqb_msg_t *msg, zqb__body_t *body)
{
    zqb__parcel_clear (&line->packed);
    if (zqb__parcel_add_msg (&line->packed, msg) != 0)
        return -1;
    *body = zqb__parcel_view (&line->packed, msg->count_);
    return 0;
}

/* Begins to read the message that has just come. What is not of our dialect is passed over. */
static void zqb__line_begin (zqb__line_t *line)
{
    zqb__line_look_at_clock (line);
    zqb__inbox_t *inbox = &line->inbox;
    line->starved |= inbox->starved;
    if (inbox->starved || zqb__wire_open (&line->in, ZQB__FROM_BROKER, inbox->frames, inbox->count, &line->packed) != 0
        || line->in.dialect != line->dialect)
        return;
    line->reading = line->answered = 1;
    line->heard = line->now;
    if (line->in.life != line->broker_life) {
        line->restarted = line->broker_life != 0;
        line->broker_life = line->in.life;
    }
}

/* The next command from the broker: 1; 0: none for now; -1: ETERM, EINTR. What is malformed is passed over, and what
   there is no memory for, which starved tells. flags as for zqb__inbox_receive. */
static int zqb__line_next (zqb__line_t *line, zqb__command_t *command, int flags)
{
    for (;;) {
        int more = line->reading ? zqb__wire_next (&line->in, command) : 0;
        line->reading = more == 1 && !zqb__wire_is_read (&line->in);
        if (more == 1)
            return 1;
        line->starved |= more < 0 && line->in.error == ZQB__NO_MEMORY;
        if (!line->socket && line->ended)
            errno = ETERM;
        if (!line->socket)
            return line->ended ? -1 : 0;
        int got = zqb__inbox_receive (&line->inbox, line->socket, flags);
        if (got < 0)
            zqb__line_look_at_clock (line); /* who is always interrupted must still see that time passes */
        line->ended |= got < 0 && errno == ETERM;
        if (got != 1)
            return got;
        zqb__line_begin (line);
    }
}

/* Whether somebody has said stop. */
static int zqb__line_is_stopped (const zqb__line_t *line)
{
    return line->signal && zqb__signal_stopped (line->signal);
}

/* Looks for a message again and again, for as long as the options say, but not past that time or a stop, and lets
   others run in between. */
static int zqb__line_spin (zqb__line_t *line, uint64_t until)
{
    uint64_t end = zqb__line_look_at_clock (line) + (uint64_t) line->spin_us;
    if (end > until)
        end = until;
    while (line->socket && line->now < end && !zqb__line_is_stopped (line)) {
        if (zqb__socket_readable (line->socket))
            return 1;
        zqb__give_way ();
        zqb__line_look_at_clock (line);
    }
    return 0;
}

/* Waits until there is something to read, a signal (if there is one), or the time comes. -1: EINTR; ETERM, as nothing
   would ever come. */
static int zqb__line_wait (zqb__line_t *line, uint64_t until)
{
    zqb__poll_t items[4];
    int count = 0;
    if (!line->socket && line->ended) {
        errno = ETERM;
        return -1;
    }
    if (line->spin_us > 0 && zqb__line_spin (line, until))
        return 0;
    uint64_t now = zqb__line_look_at_clock (line);
    if (line->monitor)
        items[count++] = zqb__poll_item (line->monitor_fd);
    if (line->socket)
        items[count++] = zqb__poll_item (line->fd);
    if (line->signal != line->own)
        items[count++] = zqb__poll_item (line->signal->ends[0]);
    if (line->own)
        items[count++] = zqb__poll_item (line->own->ends[0]);
    int got = zqb__wait (items, count, until == UINT64_MAX ? UINT64_MAX : until > now ? until - now : 0);
    if (got > 0 && line->monitor && items[0].revents)
        zqb__line_look_at_monitor (line);
    if (got > 0 && line->own && items[count - 1].revents)
        zqb__signal_drain (line->own); /* what it was raised for is told by flags */
    return got < 0 ? -1 : 0;
}

/* ================================================================================================================
   >>worker
   Owns:    a worker's registration, its heartbeats, the requests in its hand, and how it leaves
   Door:    zqb_worker_*, zqb__worker_make (with a signal that several share)
   Uses:    line
   Never:   starts threads
   ================================================================================================================ */

/* Whether it is to leave, and how far that is. */
enum {
    ZQB__STAYS,
    ZQB__LEAVING, /* DRAIN was sent: what the broker sends until it answers is still ours to do */
    ZQB__DRAINED, /* nothing more comes: when all that is here is answered, it may go */
    ZQB__LEFT     /* it has said goodbye */
};

struct zqb_worker_t {
    zqb__line_t line;
    char *service;
    size_t service_size;
    uint32_t credit;
    uint64_t heartbeat, expiry, pause_first, pause_most; /* microseconds */
    zqb_log_fn *log;
    void *log_arg;
    zqb_cancelled_fn *cancelled;
    void *cancelled_arg;
    zqb__signal_t own;
    zqb__flag_t drain;     /* somebody wants it to leave */
    int leaving;           /* ZQB__STAYS ... */
    uint64_t leaves_at;    /* ZQB__LEAVING: when it leaves though the broker has not answered */
    zqb__link_t waiting;   /* requests that came and were not asked for yet */
    zqb__link_t held;      /* those that the user has */
    zqb__link_t spare;
    uint64_t registration; /* counts; a request of an earlier one is no longer ours */
    int registered;
    int refused;           /* the broker said why it does not want us */
    uint64_t register_at;  /* when to try (again) */
    uint64_t pause;        /* the last one; 0: all was well since */
    uint64_t dice;
};

static void zqb__worker_log (zqb_worker_t *worker, int level, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    zqb__log (worker->log, worker->log_arg, ZQB_LOG_DEBUG, level, format, args);
    va_end (args);
}

/* ---- requests */

/* Nothing of what came with it is needed any more. */
static void zqb__worker_empty (zqb_request_t *request)
{
    zqb_msg_close (&request->body);
    zqb_msg_close (&request->address);
    if (request->name)
        ZQB_FREE (request->name);
    request->name = NULL;
}

static void zqb__worker_release (zqb_request_t *request)
{
    zqb_worker_t *worker = (zqb_worker_t *) request->owner;
    zqb__list_remove (&request->link);
    zqb__worker_empty (request);
    zqb__list_append (&worker->spare, &request->link);
}

static void zqb__worker_free_requests (zqb__link_t *list)
{
    while (!zqb__list_empty (list)) {
        zqb_request_t *request = ZQB__OF (zqb_request_t, link, list->next);
        zqb__list_remove (&request->link);
        zqb__worker_empty (request);
        ZQB_FREE (request->user_copy);
        ZQB_FREE (request);
    }
}

/* What came and was not begun is the broker's again. */
static void zqb__worker_drop_waiting (zqb_worker_t *worker)
{
    while (!zqb__list_empty (&worker->waiting))
        zqb__worker_release (ZQB__OF (zqb_request_t, link, worker->waiting.next));
}

/* The registration is over: what came and was not begun is the broker's again, and what the user has cannot be
   answered. The next attempt is at once if all was well, and then after longer and longer pauses. */
static void zqb__worker_unregister (zqb_worker_t *worker, const char *why)
{
    worker->registered = 0;
    worker->registration++;
    if (worker->leaving == ZQB__LEAVING)
        worker->leaving = ZQB__DRAINED;
    worker->line.reading = 0;
    zqb__parcel_clear (&worker->line.out);
    zqb__worker_drop_waiting (worker);
    worker->dice = worker->dice * 6364136223846793005u + 1442695040888963407u;
    uint64_t jitter = worker->pause ? (worker->dice >> 33) % (worker->pause + 1) : 0;
    worker->register_at = zqb__after (worker->line.now, worker->pause / 2 + jitter);
    uint64_t longer = worker->pause ? worker->pause * 2 : worker->pause_first;
    worker->pause = longer < worker->pause_most ? longer : worker->pause_most;
    char name[ZQB__NAME_TEXT];
    zqb__worker_log (worker, ZQB_LOG_WARNING, "worker '%s' is not registered: %s",
                     zqb__name_text (worker->service, worker->service_size, name), why);
}

/* The connection is given up: another is made when it is time to register again. */
static void zqb__worker_hang_up (zqb_worker_t *worker, const char *why)
{
    if (!zqb__line_is_early (&worker->line))
        zqb__line_drop (&worker->line);
    zqb__worker_unregister (worker, why);
}

/* Says something to a broker that may be gone. -1: ENOTCONN, ENOMEM, EMSGSIZE. */
static int zqb__worker_tell (zqb_worker_t *worker, const zqb__command_t *command)
{
    if (zqb__line_send (&worker->line, command, 0) == 0)
        return 0;
    if (errno == ENOMEM || errno == EMSGSIZE)
        return -1;
    zqb__worker_hang_up (worker, zqb_strerror (errno));
    errno = ENOTCONN;
    return -1;
}

static int zqb__worker_flush (zqb_worker_t *worker)
{
    int sent = zqb__line_flush (&worker->line, 0);
    if (sent < 0)
        zqb__worker_hang_up (worker, zqb_strerror (errno));
    return sent;
}

/* Sends a READY or a heartbeat, at once: a broker that does not read is a lost one, and nobody waits for it. */
static void zqb__worker_report (zqb_worker_t *worker, const zqb__command_t *command)
{
    if (zqb__line_send (&worker->line, command, ZMQ_DONTWAIT) != 0 || zqb__line_flush (&worker->line, ZMQ_DONTWAIT) < 0)
        zqb__worker_hang_up (worker, zqb_strerror (errno));
}

/* Why nobody wants anything of a request any more, as far as we have heard: 0, ENOTCONN, ZQB_ECANCELLED. */
static int zqb__worker_unwanted (const zqb_worker_t *worker, const zqb_request_t *request)
{
    int over = request->deadline && worker->line.now >= request->deadline;
    if (request->registration != worker->registration || worker->line.ended)
        return ENOTCONN;
    return request->cancelled || over ? ZQB_ECANCELLED : 0;
}

static void zqb__worker_look_up (zqb_worker_t *worker);
static uint64_t zqb__worker_next (const zqb_worker_t *worker);

/* Waits until another part may be sent, as the client has read enough of those before; a worker that is to stop does
   not wait. -1: ENOTCONN, ZQB_ECANCELLED. */
static int zqb__worker_await_more (zqb_worker_t *worker, zqb_request_t *request)
{
    int why = zqb__worker_unwanted (worker, request);
    while (!why && !request->parts && !zqb__line_is_stopped (&worker->line)) {
        zqb__worker_look_up (worker);
        why = zqb__worker_unwanted (worker, request);
        if (why || request->parts)
            break;
        uint64_t next = zqb__worker_next (worker), deadline = request->deadline ? request->deadline : UINT64_MAX;
        zqb__line_wait (&worker->line, next < deadline ? next : deadline);
    }
    errno = why;
    return why ? -1 : 0;
}

/* Whether it can be said, and anybody would hear it: what is more than a reply over ZQB/1. MDP cannot speak of a
   failure: there it becomes an empty reply. -1: ENOTSUP, ENOTCONN, ZQB_ECANCELLED. */
static int zqb__worker_may_say (zqb_worker_t *worker, zqb_request_t *request, zqb__command_t *command)
{
    int fails = command->type == ZQB__ERROR && !command->status;
    if (!zqb__wire_says (worker->line.dialect, ZQB__WORKER, command->type)) {
        errno = ENOTSUP;
        command->type = ZQB__REPLY;
        return fails ? 0 : -1;
    }
    errno = 0;
    if (command->type != ZQB__PARTIAL && command->type != ZQB__PROGRESS)
        return 0;
    zqb__worker_look_up (worker);
    if (command->type == ZQB__PARTIAL)
        return zqb__worker_await_more (worker, request);
    errno = zqb__worker_unwanted (worker, request);
    return errno ? -1 : 0;
}

/* What the user says of a request that goes on: his time for it is long, and nothing of it waits for company. */
static void zqb__worker_said_more (zqb_request_t *request, int type)
{
    request->is_long = 1;
    if (type == ZQB__PARTIAL && request->parts && request->parts != ZQB__PARTS_ALL)
        request->parts--;
}

/* What the user answers. It leaves at once unless more requests are waiting, whose answers may go with it. */
static int zqb__worker_send (zqb_request_t *request, zqb__command_t *command)
{
    zqb_worker_t *worker = (zqb_worker_t *) request->owner;
    int ends = command->type == ZQB__REPLY || command->type == ZQB__ERROR;
    if (request->registration != worker->registration) {
        errno = ENOTCONN;
        return -1;
    }
    if ((!ends || worker->line.dialect != ZQB__ZQB1) && zqb__worker_may_say (worker, request, command) != 0)
        return -1;
    command->address = zqb_msg_frame (&request->address, 0);
    command->address_count = zqb_msg_count (&request->address);
    if (zqb__worker_tell (worker, command) != 0)
        return -1;
    if (!ends)
        zqb__worker_said_more (request, command->type);
    if (request->is_long || (zqb__list_empty (&worker->waiting) && !worker->line.reading))
        zqb__worker_flush (worker);
    return 0;
}

/* What the user wants to know in long work. It is told what was heard meanwhile, and the broker that it lives. */
static int zqb__worker_ask (zqb_request_t *request)
{
    zqb_worker_t *worker = (zqb_worker_t *) request->owner;
    request->is_long = 1;
    zqb__worker_look_up (worker);
    return zqb__worker_unwanted (worker, request) != 0;
}

static zqb_request_t *zqb__worker_new_request (zqb_worker_t *worker)
{
    zqb_request_t *request;
    if (zqb__list_empty (&worker->spare)) {
        request = (zqb_request_t *) zqb__alloc (sizeof *request);
        if (!request)
            return NULL;
        zqb__list_init (&request->link);
        zqb_msg_init (&request->body);
        zqb_msg_init (&request->address);
        request->owner = worker;
        request->send = zqb__worker_send;
        request->unwanted = zqb__worker_ask;
        request->release = zqb__worker_release;
    } else {
        request = ZQB__OF (zqb_request_t, link, worker->spare.next);
        zqb__list_remove (&request->link);
    }
    request->service = worker->service;
    request->service_size = worker->service_size;
    request->user = worker->line.dialect == ZQB__ZQB1 ? "" : NULL; /* MDP does not tell */
    request->registration = worker->registration;
    return request;
}

/* ---- what the broker says */

static int zqb__worker_take_address (zqb_request_t *request, const zqb__command_t *command)
{
    for (size_t i = 0; i < command->address_count; i++) {
        zmq_msg_t *frame = &command->address[i];
        if (zqb_msg_add (&request->address, zmq_msg_data (frame), zmq_msg_size (frame)) != 0)
            return -1;
    }
    return 0;
}

/* A worker for a pattern is told the name. -1 and ENOMEM. */
static int zqb__worker_take_name (zqb_request_t *request, const zqb__command_t *command)
{
    size_t size = command->service_size;
    if (size == request->service_size && memcmp (command->service, request->service, size) == 0)
        return 0;
    request->name = zqb__copy_text (command->service, size);
    request->service = request->name;
    request->service_size = size;
    return request->name ? 0 : -1;
}

/* Whose it is: often whose the last was that was here. -1 and ENOMEM. */
static int zqb__worker_take_user (zqb_request_t *request, const void *user, size_t size)
{
    char *known = request->user_copy;
    if (!known || strlen (known) != size || memcmp (known, user, size) != 0) {
        ZQB_FREE (known);
        request->user_copy = zqb__copy_text (user, size);
    }
    request->user = request->user_copy;
    return request->user ? 0 : -1;
}

/* How long there is a use for it, and whose it is. -1 and ENOMEM. */
static ZQB__SELDOM int zqb__worker_take_rare (const zqb_worker_t *worker, zqb_request_t *request,
                                              const zqb__rare_t *rare)
{
    if (rare->deadline_ms)
        request->deadline = worker->line.now + (uint64_t) rare->deadline_ms * 1000u;
    return rare->user_size ? zqb__worker_take_user (request, rare->user, rare->user_size) : 0;
}

/* -1 and ENOMEM */
static int zqb__worker_fill (const zqb_worker_t *worker, zqb_request_t *request, const zqb__command_t *command)
{
    request->token = command->id;
    request->parts = ZQB__PARTS_ALL;
    request->deadline = 0;
    request->cancelled = request->is_long = 0;
    if (command->flags & ZQB__WINDOW)
        request->parts = ZQB__WINDOW_PARTS;
    if (command->rare && zqb__worker_take_rare (worker, request, command->rare) != 0)
        return -1;
    if (command->service_size && zqb__worker_take_name (request, command) != 0)
        return -1;
    return zqb__body_to_msg (&command->body, &request->body) == 0 ? zqb__worker_take_address (request, command) : -1;
}

static void zqb__worker_on_request (zqb_worker_t *worker, const zqb__command_t *command)
{
    static const char text[] = "the worker is out of memory";
    zqb_request_t *request = zqb__worker_new_request (worker);
    zqb__command_t sorry = zqb__command (ZQB__ERROR, command->id);
    worker->pause = 0;
    if (request) {
        zqb__list_append (&worker->waiting, &request->link);
        if (zqb__worker_fill (worker, request, command) == 0)
            return;
        zqb__worker_release (request);
    }
    sorry.text = text;
    sorry.text_size = sizeof text - 1;
    if (worker->line.dialect != ZQB__ZQB1 || zqb__worker_tell (worker, &sorry) != 0)
        zqb__worker_hang_up (worker, "out of memory"); /* the request goes to another */
}

/* A request of these with that token, of this registration, or NULL. They are as many as the credit at most, and this
   is for what comes seldom. */
static zqb_request_t *zqb__worker_find (const zqb_worker_t *worker, const zqb__link_t *list, uint64_t token)
{
    for (const zqb__link_t *at = list->next; at != list; at = at->next) {
        zqb_request_t *request = ZQB__OF (zqb_request_t, link, at);
        if (request->token == token && request->registration == worker->registration)
            return request;
    }
    return NULL;
}

/* What is not begun is not done at all, and makes room for another; who has begun is told. */
static void zqb__worker_on_cancel (zqb_worker_t *worker, uint64_t token)
{
    zqb_request_t *waits = zqb__worker_find (worker, &worker->waiting, token);
    zqb_request_t *held = zqb__worker_find (worker, &worker->held, token);
    zqb__command_t dropped = zqb__command (ZQB__ERROR, token);
    dropped.status = ZQB_ECANCELLED - ZQB_ERRNO;
    if (waits) {
        zqb__worker_release (waits);
        if (zqb__worker_tell (worker, &dropped) != 0 && errno != ENOTCONN)
            zqb__worker_hang_up (worker, "out of memory"); /* or its place would never be free again */
    } else if (held && !held->cancelled) {
        held->cancelled = 1;
        if (worker->cancelled)
            worker->cancelled (held, worker->cancelled_arg);
    }
}

enum { ZQB__PARTS_MOST = 1000000 }; /* whatever is granted */

static void zqb__worker_on_more (zqb_worker_t *worker, const zqb__command_t *command)
{
    zqb_request_t *request = zqb__worker_find (worker, &worker->held, command->id);
    if (!request)
        request = zqb__worker_find (worker, &worker->waiting, command->id);
    if (!request || request->parts == ZQB__PARTS_ALL)
        return;
    uint32_t parts = request->parts + command->credit;
    request->parts = parts < ZQB__PARTS_MOST ? parts : (uint32_t) ZQB__PARTS_MOST;
    if (command->credit == ZQB__CREDIT_ALL)
        request->parts = ZQB__PARTS_ALL; /* nobody counts them any more */
}

/* The broker may say why it does not want us. */
static void zqb__worker_on_disconnect (zqb_worker_t *worker, int status)
{
    int refused = status == ZQB_EREFUSED - ZQB_ERRNO || status == ZQB_EDENIED - ZQB_ERRNO;
    worker->refused = refused && !worker->leaving ? ZQB_ERRNO + status : 0;
    zqb__worker_unregister (worker, "the broker said so");
}

static inline void zqb__worker_on (zqb_worker_t *worker, const zqb__command_t *command)
{
    switch (command->type) {
        case ZQB__REQUEST: zqb__worker_on_request (worker, command); break;
        case ZQB__HEARTBEAT: worker->pause = 0; break;
        case ZQB__DISCONNECT: zqb__worker_on_disconnect (worker, command->status); break;
        case ZQB__CANCEL: zqb__worker_on_cancel (worker, command->id); break;
        case ZQB__MORE: zqb__worker_on_more (worker, command); break;
        case ZQB__DRAIN: worker->leaving = ZQB__DRAINED; break;
        default: break;
    }
}

/* Reads one command, if one came: 1; 0: none; -1: ETERM, EINTR. flags as for zqb__inbox_receive. */
static int zqb__worker_read_one (zqb_worker_t *worker, int flags)
{
    zqb__command_t command;
    int more = zqb__line_next (&worker->line, &command, flags);
    if (more != 1)
        return more;
    if (worker->line.restarted) {
        worker->line.restarted = 0;
        zqb__worker_unregister (worker, "the broker was restarted");
    }
    if (worker->registered)
        zqb__worker_on (worker, &command);
    return 1;
}

/* There was no memory for something that came: it goes to others. */
static void zqb__worker_starve (zqb_worker_t *worker)
{
    if (worker->line.starved)
        zqb__worker_hang_up (worker, "out of memory");
    worker->line.starved = 0;
}

/* Reads what came, until there is something to do. -1: ETERM, EINTR. flags as for zqb__inbox_receive. */
static int zqb__worker_read (zqb_worker_t *worker, int flags)
{
    int more = 1;
    while (zqb__list_empty (&worker->waiting) && (more = zqb__worker_read_one (worker, flags)) == 1) {
    }
    zqb__worker_starve (worker);
    return more;
}

/* ---- what the clock says */

static void zqb__worker_register (zqb_worker_t *worker)
{
    zqb__command_t ready = zqb__command (ZQB__READY, 0);
    ready.service = (const unsigned char *) worker->service;
    ready.service_size = worker->service_size;
    ready.credit = worker->credit;
    ready.heartbeat_ms = worker->heartbeat == UINT64_MAX ? 0 : (uint32_t) (worker->heartbeat / 1000);
    if (!worker->line.socket && zqb__line_connect_next (&worker->line) != 0) {
        zqb__worker_unregister (worker, zqb_strerror (errno));
        return;
    }
    worker->line.restarted = 0;
    worker->line.broker_life = 0; /* whichever broker answers is the one that we register with */
    worker->registered = 1;
    worker->line.heard = worker->line.now; /* from now on the broker has its time to answer */
    zqb__worker_report (worker, &ready);
}

enum { ZQB__LEAVE_LEAST_US = 1000000, ZQB__LEAVE_MOST_US = 10000000 };

/* How long a broker has to answer that nothing more comes: as long as it may be silent, within bounds, for to leave
   without the answer loses nothing. */
static uint64_t zqb__worker_patience (const zqb_worker_t *worker)
{
    uint64_t least = worker->expiry > ZQB__LEAVE_LEAST_US ? worker->expiry : (uint64_t) ZQB__LEAVE_LEAST_US;
    return least < ZQB__LEAVE_MOST_US ? least : (uint64_t) ZQB__LEAVE_MOST_US;
}

/* Tells the broker, who answers that nothing more comes. Who does not know the word, or is not there, sends nothing. */
static void zqb__worker_begin_to_leave (zqb_worker_t *worker)
{
    zqb__command_t drain = zqb__command (ZQB__DRAIN, 0);
    zqb__line_look_at_monitor (&worker->line);
    int is_away = worker->line.monitor && !worker->line.connected;
    worker->leaving = ZQB__DRAINED;
    if (!worker->registered || is_away || worker->line.dialect != ZQB__ZQB1)
        return;
    worker->leaving = ZQB__LEAVING;
    worker->leaves_at = zqb__after (worker->line.now, zqb__worker_patience (worker));
    zqb__worker_report (worker, &drain);
}

/* Registers, sends a heartbeat or gives a silent broker up, when it is time; what came has been read before. */
static void zqb__worker_keep (zqb_worker_t *worker)
{
    zqb__command_t beat = zqb__command (ZQB__HEARTBEAT, 0);
    uint64_t now = worker->line.now;
    if (!worker->leaving && zqb__flag_get (&worker->drain))
        zqb__worker_begin_to_leave (worker);
    if (!worker->registered) {
        if (!worker->leaving && now >= worker->register_at)
            zqb__worker_register (worker);
    } else if (now >= zqb__after (worker->line.heard, worker->expiry))
        zqb__worker_hang_up (worker, zqb__line_why (&worker->line));
    else if (now >= zqb__after (worker->line.told, worker->heartbeat))
        zqb__worker_report (worker, &beat);
}

/* When it leaves without an answer: not as long as the user has something. UINT64_MAX never. */
static uint64_t zqb__worker_leaves_at (const zqb_worker_t *worker)
{
    return worker->leaving == ZQB__LEAVING && zqb__list_empty (&worker->held) ? worker->leaves_at : UINT64_MAX;
}

/* When it will be time. */
static uint64_t zqb__worker_next (const zqb_worker_t *worker)
{
    uint64_t beat = zqb__after (worker->line.told, worker->heartbeat);
    uint64_t silent = zqb__after (worker->line.heard, worker->expiry);
    uint64_t leaves = zqb__worker_leaves_at (worker), first = beat < silent ? beat : silent;
    if (!worker->registered)
        return worker->leaving ? UINT64_MAX : worker->register_at;
    return first < leaves ? first : leaves;
}

/* Says goodbye to a broker, who need not be told if it is gone. */
static void zqb__worker_say_goodbye (zqb_worker_t *worker)
{
    zqb__command_t goodbye = zqb__command (ZQB__DISCONNECT, 0);
    goodbye.flags = zqb__list_empty (&worker->held) ? ZQB__UNBEGUN : 0;
    if (worker->registered && zqb__line_send (&worker->line, &goodbye, ZMQ_DONTWAIT) == 0)
        zqb__line_flush (&worker->line, ZMQ_DONTWAIT);
    worker->registered = 0;
    zqb__worker_drop_waiting (worker);
}

/* Leaves, if it is to, and nothing is left to be done; from a broker that does not answer, when nothing is begun: what
   it has sent meanwhile goes to others. */
static void zqb__worker_try_to_leave (zqb_worker_t *worker)
{
    int idle = zqb__list_empty (&worker->waiting) && zqb__list_empty (&worker->held) && !worker->line.reading;
    int done = worker->leaving == ZQB__DRAINED && idle;
    if (!done && worker->line.now < zqb__worker_leaves_at (worker))
        return;
    zqb__worker_say_goodbye (worker);
    worker->leaving = ZQB__LEFT;
}

/* Looks at everything while the user is at work: reads all that came, and sends what is due. But a worker that has lost
   its broker registers when it has time for requests. */
static void zqb__worker_look_up (zqb_worker_t *worker)
{
    while (zqb__worker_read_one (worker, ZMQ_DONTWAIT) == 1) {
    }
    zqb__worker_starve (worker);
    zqb__line_look_at_monitor (&worker->line);
    if (worker->line.lost)
        zqb__worker_hang_up (worker, zqb__line_why (&worker->line));
    zqb__line_look_at_clock (&worker->line);
    if (worker->registered)
        zqb__worker_keep (worker);
    zqb__worker_flush (worker);
}

/* ---- the face */

static void zqb__worker_options (zqb_worker_t *worker, const zqb_worker_options_t *options)
{
    int beat = zqb__option (options->heartbeat_ms, 2500), liveness = zqb__option (options->liveness, 3);
    worker->credit = (uint32_t) options->credit;
    worker->heartbeat = zqb__option_us (options->heartbeat_ms, 2500);
    int never = options->heartbeat_ms < 0 || options->liveness < 0;
    worker->expiry = never ? UINT64_MAX : zqb__times (worker->heartbeat, (uint64_t) liveness);
    worker->pause_first = (uint64_t) zqb__option (options->reconnect_ms, 100) * 1000u;
    worker->pause_most = (uint64_t) zqb__option (options->reconnect_max_ms, 10000) * 1000u;
    worker->line.spin_us = options->spin_us;
    worker->log = options->log;
    worker->log_arg = options->log_arg;
    worker->cancelled = options->cancelled;
    worker->cancelled_arg = options->cancelled_arg;
    worker->line.dialect = options->dialect;
    worker->line.side = ZQB__WORKER;
    worker->line.heartbeat_ms = beat;
    worker->line.liveness = liveness;
    worker->line.send_hwm = 1000;
    worker->line.send_timeout_ms = beat < 2500 ? beat : 2500; /* after that a broker that does not read is lost */
}

static int zqb__worker_options_valid (const zqb_worker_options_t *options)
{
    int mdp = options->dialect == ZQB_DIALECT_MDP01 || options->dialect == ZQB_DIALECT_MDP02;
    int64_t numbers[] = {options->heartbeat_ms, options->liveness, options->spin_us};
    return zqb__all_valid (numbers, sizeof numbers / sizeof numbers[0])
           && (mdp || options->dialect == ZQB_DIALECT_ZQB1) && options->credit >= 0 && options->credit <= 65535
           && !(mdp && options->credit > 1) && options->reconnect_ms >= 0 && options->reconnect_max_ms >= 0;
}

static void zqb__worker_free (zqb_worker_t *worker)
{
    zqb__worker_free_requests (&worker->waiting);
    zqb__worker_free_requests (&worker->held);
    zqb__worker_free_requests (&worker->spare);
    zqb__line_close (&worker->line);
    zqb__signal_close (&worker->own);
    ZQB_FREE (worker->service);
    ZQB_FREE (worker);
}

/* As zqb_worker_new, with valid arguments; keys are copied; shared is NULL, or whose stop ends it, and others. */
static zqb_worker_t *zqb__worker_make (void *ctx, const char *endpoints, const char *service,
                                       const zqb_worker_options_t *options, const zqb__keys_t *keys,
                                       zqb__signal_t *shared)
{
    zqb_worker_t *worker = (zqb_worker_t *) zqb__alloc (sizeof *worker);
    if (!worker)
        return NULL;
    zqb__list_init (&worker->waiting);
    zqb__list_init (&worker->held);
    zqb__list_init (&worker->spare);
    zqb__worker_options (worker, options);
    worker->line.ctx = ctx;
    worker->line.own = &worker->own;
    worker->line.signal = shared ? shared : &worker->own;
    worker->service_size = strlen (service);
    worker->service = zqb__copy_text (service, worker->service_size);
    if (!worker->service || zqb__signal_init (&worker->own) != 0) {
        ZQB_FREE (worker->service);
        ZQB_FREE (worker);
        return NULL;
    }
    worker->line.keys = zqb__keys_copy (keys);
    if ((keys && !worker->line.keys) || zqb__line_open (&worker->line, endpoints) != 0) {
        int error = errno;
        zqb__worker_free (worker);
        errno = error;
        return NULL;
    }
    worker->dice = worker->line.life;
    zqb__worker_register (worker);
    return worker;
}

static int zqb__worker_keys (zqb__keys_t **keys, const zqb_worker_options_t *o)
{
    return zqb__keys_of_peer (keys, o->server_public, o->public_key, o->secret_key, o->user, o->password);
}

ZQB_API zqb_worker_t *zqb_worker_new (
    void *ctx, const char *endpoints, const char *service, const zqb_worker_options_t *options)
{
    zqb_worker_options_t standard;
    memset (&standard, 0, sizeof standard);
    if (!options)
        options = &standard;
    if (!ctx || !endpoints || !zqb__service_valid (service) || !zqb__worker_options_valid (options)) {
        errno = EINVAL;
        return NULL;
    }
    zqb__keys_t *keys;
    if (zqb__worker_keys (&keys, options) != 0)
        return NULL;
    zqb_worker_t *worker = zqb__worker_make (ctx, endpoints, service, options, keys, NULL);
    int error = errno;
    zqb__keys_free (&keys);
    errno = error;
    return worker;
}

/* The next request that waits, now the user's; NULL: there is none. */
static zqb_request_t *zqb__worker_hand_out (zqb_worker_t *worker)
{
    if (zqb__list_empty (&worker->waiting))
        return NULL;
    zqb_request_t *request = ZQB__OF (zqb_request_t, link, worker->waiting.next);
    zqb__list_remove (&request->link);
    zqb__list_append (&worker->held, &request->link);
    return request;
}

/* Replies that have waited for company go before the user sets to work again. */
static void zqb__worker_flush_old (zqb_worker_t *worker)
{
    if (!worker->line.out.bytes.size)
        return;
    zqb__line_glance (&worker->line);
    if (zqb__line_is_due (&worker->line, worker->line.packed_at))
        zqb__worker_flush (worker);
}

/* Whether it is well to block for a moment: nothing else is to be done meanwhile. */
static int zqb__worker_may_block (const zqb_worker_t *worker)
{
    return worker->registered && worker->line.spin_us <= 0 && !worker->line.lost && !worker->line.out.bytes.size
           && zqb__worker_next (worker) > worker->line.now + ZQB__BLOCK_US;
}

/* One look at everything: 1 if there may be more to see, 0 if it is time to wait, -1: ETERM, EINTR, refused. */
static int zqb__worker_turn (zqb_worker_t *worker, int flags)
{
    if (zqb__worker_read (worker, flags) < 0)
        return -1;
    if (worker->line.lost)
        zqb__worker_hang_up (worker, zqb__line_why (&worker->line));
    if (worker->refused) {
        errno = worker->refused;
        worker->refused = 0;
        return -1;
    }
    uint64_t told = worker->line.told, registration = worker->registration;
    zqb__line_look_at_clock (&worker->line);
    zqb__worker_keep (worker);
    zqb__worker_flush (worker);
    zqb__worker_try_to_leave (worker);
    return told != worker->line.told || registration != worker->registration || worker->leaving == ZQB__LEFT
           || !zqb__list_empty (&worker->waiting);
}

/* Looks for a request, first in the message that is being read. As zqb__worker_turn. */
static int zqb__worker_look (zqb_worker_t *worker, int may_block)
{
    int more = worker->line.reading ? zqb__worker_read (worker, ZMQ_DONTWAIT) : 0;
    if (more != 0)
        return more;
    return zqb__worker_turn (worker, may_block && zqb__worker_may_block (worker) ? 0 : ZMQ_DONTWAIT);
}

/* Waits until there may be something to see. until is 0 at first, and then when the time is over. -1: EAGAIN it is
   over, EINTR. */
static int zqb__worker_wait (zqb_worker_t *worker, uint64_t timeout, uint64_t *until)
{
    if (!*until)
        *until = zqb__after (worker->line.now, timeout);
    if (worker->line.now >= *until) {
        zqb__line_look_at_monitor (&worker->line);
        errno = EAGAIN;
        return -1;
    }
    uint64_t next = zqb__worker_next (worker);
    return zqb__line_wait (&worker->line, next < *until ? next : *until);
}

ZQB_API zqb_request_t *zqb_worker_recv (zqb_worker_t *worker, int timeout_ms)
{
    uint64_t timeout = zqb__timeout_us (timeout_ms), until = 0;
    errno = EINVAL;
    if (!worker)
        return NULL;
    zqb__worker_flush_old (worker);
    for (int may_block = timeout > ZQB__BLOCK_US;; may_block = 0) {
        errno = ECANCELED;
        if (worker->leaving == ZQB__LEFT || zqb__line_is_stopped (&worker->line))
            return NULL;
        zqb_request_t *request = zqb__worker_hand_out (worker);
        if (request)
            return request;
        int more = zqb__worker_look (worker, may_block);
        if (more < 0 || (more == 0 && zqb__worker_wait (worker, timeout, &until) != 0))
            return NULL;
    }
}

/* Ends a request as its handler said. Errors as for zqb_request_reply. */
static int zqb__worker_end (zqb_request_t *request, int failed, zqb_msg_t *reply)
{
    if (failed == ZQB_EREFUSED)
        return zqb_request_refuse (request);
    if (!failed)
        return zqb_request_reply (request, reply);
    int has_text = zqb_msg_count (reply) > 0;
    return zqb__request_fail (request, failed, has_text ? zqb_msg_data (reply, 0) : NULL,
                              has_text ? zqb_msg_size (reply, 0) : 0);
}

/* Has the handler do a request and answers it. If it cannot be answered, because the reply is too large or memory is
   short, it is a failure; if even that cannot be said, the worker registers anew, and the request goes to another. */
static void zqb__worker_do (zqb_worker_t *worker, zqb_request_t *request, zqb_handler_fn *handler, void *arg)
{
    zqb_msg_t reply;
    zqb_msg_init (&reply);
    request->in_handler = 1;
    int failed = handler (request, &reply, arg);
    request->in_handler = 0;
    if (zqb__worker_end (request, failed, &reply) != 0 && errno != ENOTCONN
        && zqb_request_fail (request, failed, zqb_strerror (errno)) != 0 && errno != ENOTCONN) {
        zqb__worker_release (request);
        zqb__worker_hang_up (worker, "a reply could not be sent");
    }
    zqb_msg_close (&reply);
}

ZQB_API int zqb_worker_run (zqb_worker_t *worker, zqb_handler_fn *handler, void *arg)
{
    if (!worker || !handler)
        return zqb__invalid ();
    for (;;) {
        zqb_request_t *request = zqb_worker_recv (worker, -1);
        if (request)
            zqb__worker_do (worker, request, handler, arg);
        else if (errno == ECANCELED)
            return 0;
        else if (errno != EINTR)
            return -1;
    }
}

ZQB_API void zqb_worker_stop (zqb_worker_t *worker)
{
    if (worker)
        zqb__signal_stop (worker->line.signal);
}

ZQB_API void zqb_worker_drain (zqb_worker_t *worker)
{
    if (!worker)
        return;
    zqb__flag_set (&worker->drain);
    zqb__signal_wake (&worker->own);
}

ZQB_API int zqb_worker_fd (zqb_worker_t *worker)
{
    if (!worker)
        return zqb__invalid ();
    if (worker->line.socket)
        return (int) worker->line.fd;
    errno = ENOTCONN;
    return -1;
}

ZQB_API void zqb_worker_destroy (zqb_worker_t **worker)
{
    if (!worker || !*worker)
        return;
    zqb__worker_say_goodbye (*worker);
    zqb__worker_free (*worker);
    *worker = NULL;
}

/* ================================================================================================================
   >>client
   Owns:    requests that wait for their replies, their time-outs and retries
   Door:    zqb_client_*
   Uses:    line
   Never:   gives a reply to another request than the one that it answers
   ================================================================================================================ */

/* The name of a service; requests in a row for the same one share it. */
typedef struct zqb__name_t {
    size_t uses, size;
    char *text;
} zqb__name_t;

/* What a request asks for, if it is no ordinary one: an allocation that others do not have. The keys lie behind it. */
typedef struct zqb__wish_t {
    zqb__timer_t timer; /* in client->timers, instead of client->timed */
    struct zqb__pending_t *pending;
    uint64_t begins;    /* when the delay is over */
    uint64_t deadline;  /* UINT64_MAX none */
    uint64_t ends;      /* when nothing is to be expected any more */
    int has_times;
    int flags;          /* ZQB__ONE_WAY ... */
    zqb__rare_t rare;   /* as it was sent last */
} zqb__wish_t;

typedef struct zqb__pending_t {
    zqb__slot_t slot; /* its token is the id */
    zqb__link_t link;  /* in client->pending or client->ended */
    zqb__link_t timed; /* in client->timed or client->untimed */
    uint64_t times_out;
    zqb__name_t *service;
    zqb__stored_t body;
    int tries_left;
    int error; /* once it has ended without a reply */
    unsigned parts; /* that were read, since the broker was told so */
    zqb__wish_t *wish; /* or NULL */
} zqb__pending_t;

/* A reply that came while a call waited for another. */
typedef struct zqb__arrived_t {
    zqb__link_t link;
    zqb_reply_t reply;
} zqb__arrived_t;

struct zqb_client_t {
    zqb__line_t line;
    uint64_t timeout;
    int retries, most;
    zqb__slab_t slots;
    zqb__link_t untimed; /* packed, and not sent yet: their time runs from then */
    zqb__link_t timed;   /* all have the same time-out, so the first to be started is the first to be over */
    zqb__heap_t timers;  /* of those with times of their own */
    size_t timers_most;  /* so many there are */
    uint64_t unheard;    /* when one of those first waited for a broker who has said nothing since */
    zqb__link_t pending; /* in the order in which they were submitted; with MDP only the first has been sent */
    zqb__link_t ended;   /* without a reply, and not told yet */
    zqb__link_t arrived;
    zqb__arrived_t *spare; /* for the next to be put there */
    int count;           /* pending and ended */
    int submitted;       /* since the user looked for replies */
    int in_bursts;       /* he had submitted several before he did, and may do so again */
    zqb__name_t *name;   /* the last one */
    int turned_away;     /* there is no connection, as the broker did not let us in: nothing was ever sent */
};

static int zqb__client_is_mdp (const zqb_client_t *client)
{
    return client->line.dialect != ZQB__ZQB1;
}

/* ---- names */

static void zqb__name_release (zqb__name_t *name)
{
    if (!name || --name->uses)
        return;
    ZQB_FREE (name->text);
    ZQB_FREE (name);
}

/* One more use of this name. NULL and ENOMEM. */
static zqb__name_t *zqb__client_name (zqb_client_t *client, const char *service, size_t size)
{
    zqb__name_t *name = client->name;
    if (!name || name->size != size || memcmp (name->text, service, size) != 0) {
        name = (zqb__name_t *) zqb__alloc (sizeof *name);
        if (!name || !(name->text = zqb__copy_text (service, size))) {
            ZQB_FREE (name);
            return NULL;
        }
        name->size = size;
        name->uses = 1; /* the client's own */
        zqb__name_release (client->name);
        client->name = name;
    }
    name->uses++;
    return name;
}

/* ---- requests on their way */

/* Whether a command could not be sent because there is no connection at the moment. That is no error: it is sent when
   there is one, or its time-out comes. */
static int zqb__client_is_cut_off (void)
{
    return errno == EAGAIN || errno == ENOTSOCK;
}

/* Adds to a command what its request asks for, as it is now: of the times what is left. */
static void zqb__wish_add (zqb__wish_t *wish, uint64_t now, zqb__command_t *command)
{
    int left = wish->deadline == UINT64_MAX ? 0 : zqb__left_ms (wish->deadline, now);
    wish->rare.deadline_ms = wish->deadline == UINT64_MAX ? 0 : left > 0 ? (uint32_t) left : 1; /* 0 is none */
    wish->rare.delay_ms = (uint32_t) zqb__left_ms (wish->begins, now);
    command->flags |= wish->flags;
    command->rare = &wish->rare;
}

/* flags: 0 or ZQB__AGAIN. */
static int zqb__client_transmit (zqb_client_t *client, zqb__pending_t *pending, int flags)
{
    zqb__command_t command = zqb__command (ZQB__REQUEST, zqb__slot_token (&pending->slot));
    command.service = (const unsigned char *) pending->service->text;
    command.service_size = pending->service->size;
    command.flags = flags;
    command.body = zqb__stored_body (&pending->body);
    if (pending->wish)
        zqb__wish_add (pending->wish, client->line.now, &command);
    int failed = zqb__line_send (&client->line, &command, ZMQ_DONTWAIT);
    return failed && zqb__client_is_cut_off () ? 0 : failed;
}

static int zqb__pending_is_survey (const zqb__pending_t *pending)
{
    return pending->wish && (pending->wish->flags & ZQB__SURVEY);
}

/* Says that so many parts more may come; but not of a survey, whose parts are of many workers, one of each. -1 and
   ENOMEM: it is not said. */
static int zqb__client_grant (zqb_client_t *client, const zqb__pending_t *pending, uint32_t parts)
{
    zqb__command_t more = zqb__command (ZQB__MORE, zqb__slot_token (&pending->slot));
    more.credit = parts;
    if (zqb__client_is_mdp (client) || zqb__pending_is_survey (pending))
        return 0;
    return zqb__line_send (&client->line, &more, ZMQ_DONTWAIT);
}

/* Whether the end of a request is a matter of time alone, and not of how often it was tried. */
static int zqb__pending_has_deadline (const zqb__pending_t *pending)
{
    return pending->wish && pending->wish->deadline != UINT64_MAX;
}

/* Those with times of their own: a try begins when the delay is over, and the end is the end. */
static void zqb__wish_start_timer (zqb_client_t *client, zqb__wish_t *wish)
{
    uint64_t now = client->line.now, from = wish->begins > now ? wish->begins : now;
    uint64_t at = zqb__after (from, client->timeout);
    int waits = wish->deadline != UINT64_MAX && client->retries == 0; /* which is to be tried once */
    if (client->unheard <= client->line.heard)
        client->unheard = now;
    zqb__heap_set (&client->timers, &wish->timer, waits || at > wish->ends ? wish->ends : at);
}

static void zqb__client_start_usual (zqb_client_t *client, zqb__pending_t *pending)
{
    zqb__list_remove (&pending->timed);
    pending->times_out = zqb__after (client->line.now, client->timeout);
    if (pending->times_out != UINT64_MAX)
        zqb__list_append (&client->timed, &pending->timed);
}

static void zqb__client_start_timer (zqb_client_t *client, zqb__pending_t *pending)
{
    if (pending->wish && pending->wish->has_times)
        zqb__wish_start_timer (client, pending->wish);
    else
        zqb__client_start_usual (client, pending);
}

static void zqb__client_stop_timer (zqb_client_t *client, zqb__pending_t *pending)
{
    zqb__list_remove (&pending->timed);
    if (pending->wish)
        zqb__heap_remove (&client->timers, &pending->wish->timer);
}

/* Sends what is packed, as zqb__line_flush; the time of what is sent runs from now. */
static int zqb__client_flush (zqb_client_t *client)
{
    zqb__link_t *untimed = &client->untimed;
    if (client->line.out.bytes.size)
        zqb__line_look_at_clock (&client->line);
    while (!zqb__list_empty (untimed))
        zqb__client_start_usual (client, ZQB__OF (zqb__pending_t, timed, untimed->next));
    return zqb__line_flush (&client->line, ZMQ_DONTWAIT);
}

/* When the next time-out is: UINT64_MAX never. */
static uint64_t zqb__client_next (const zqb_client_t *client)
{
    const zqb__link_t *timed = &client->timed;
    uint64_t first = zqb__list_empty (timed) ? UINT64_MAX : ZQB__OF (zqb__pending_t, timed, timed->next)->times_out;
    uint64_t other = zqb__heap_next_at (&client->timers);
    return first < other ? first : other;
}

enum { ZQB__SOCKET_AGAIN_US = 100000 }; /* when there was no socket to be had, it is tried again */

/* When there is something to be done, whatever comes. */
static uint64_t zqb__client_wakes (const zqb_client_t *client)
{
    uint64_t next = zqb__client_next (client), again = client->line.opened + ZQB__SOCKET_AGAIN_US;
    return client->line.socket || next < again ? next : again;
}

static zqb__pending_t *zqb__client_first (const zqb_client_t *client)
{
    return zqb__list_empty (&client->pending) ? NULL : ZQB__OF (zqb__pending_t, link, client->pending.next);
}

/* MDP: the next request has its turn. What cannot be sent for lack of memory is sent when its time-out comes. */
static void zqb__client_send_first (zqb_client_t *client)
{
    zqb__pending_t *first = zqb__client_first (client);
    if (!first)
        return;
    zqb__client_start_timer (client, first);
    zqb__client_transmit (client, first, 0); /* MDP has no word for again */
}

/* ---- what they ask for */

static int zqb__within (int64_t number, int64_t least, int64_t most)
{
    return number >= least && number <= most;
}

static int zqb__wish_is_valid (const zqb_request_options_t *o)
{
    return zqb__within (o->priority, ZQB_PRIORITY_LOWEST, ZQB_PRIORITY_HIGHEST)
           && zqb__within (o->attempts, -1, ZQB__ATTEMPTS_ALL - 1) && o->deadline_ms >= 0 && o->delay_ms >= 0
           && o->backoff_ms >= 0 && o->backoff_max_ms >= 0 && (!o->unique || zqb__name_valid (strlen (o->unique)))
           && (!o->affinity || zqb__name_valid (strlen (o->affinity))) && zqb__within (o->one_way, 0, 1)
           && zqb__within (o->fail_fast, 0, 1) && zqb__within (o->survey, 0, 1) && !(o->survey && o->one_way);
}

static int zqb__wish_is_none (const zqb_request_options_t *o)
{
    return !o->priority && !o->deadline_ms && !o->delay_ms && !o->attempts && !o->backoff_ms && !o->backoff_max_ms
           && !o->unique && !o->affinity && !o->one_way && !o->fail_fast && !o->survey;
}

/* Adds to a command what its request asks for. The keys stay the caller's. */
static void zqb__wish_ask (const zqb_request_options_t *options, zqb__command_t *command, zqb__rare_t *rare)
{
    memset (rare, 0, sizeof *rare);
    zqb__options_to_wishes (options, command, rare);
    rare->unique = (const unsigned char *) options->unique;
    rare->unique_size = options->unique ? strlen (options->unique) : 0;
    rare->affinity = (const unsigned char *) options->affinity;
    rare->affinity_size = options->affinity ? strlen (options->affinity) : 0;
    command->flags |= (options->one_way ? (int) ZQB__ONE_WAY : 0) | (options->survey ? (int) ZQB__SURVEY : 0);
    command->rare = rare;
}

/* The times of a wish, from now on. How a survey ends is what the broker says at the deadline: who ended it by himself
   just then would miss that. */
static void zqb__wish_set_times (const zqb_client_t *client, zqb__wish_t *wish)
{
    uint64_t now = client->line.now, deadline_ms = wish->rare.deadline_ms;
    wish->begins = now + (uint64_t) wish->rare.delay_ms * 1000u;
    wish->deadline = deadline_ms ? now + deadline_ms * 1000u : UINT64_MAX;
    wish->ends = zqb__after (wish->deadline, wish->flags & ZQB__SURVEY ? client->timeout : 0);
    wish->has_times = deadline_ms || wish->rare.delay_ms;
}

static const unsigned char *zqb__wish_keep_key (unsigned char *at, const unsigned char *key, size_t size)
{
    if (size)
        memcpy (at, key, size);
    return at;
}

/* NULL and ENOMEM. Its timer can always be set. */
static zqb__wish_t *zqb__wish_new (zqb_client_t *client, zqb__pending_t *pending, const zqb_request_options_t *options)
{
    zqb__rare_t rare;
    zqb__command_t command = zqb__command (ZQB__REQUEST, 0);
    zqb__wish_t *wish = NULL;
    zqb__wish_ask (options, &command, &rare);
    if (zqb__heap_reserve (&client->timers, client->timers_most + 1) == 0)
        wish = (zqb__wish_t *) zqb__alloc (sizeof *wish + rare.unique_size + rare.affinity_size);
    if (!wish)
        return NULL;
    unsigned char *keys = (unsigned char *) (wish + 1);
    wish->pending = pending;
    wish->flags = command.flags;
    wish->rare = rare;
    wish->rare.unique = zqb__wish_keep_key (keys, rare.unique, rare.unique_size);
    wish->rare.affinity = zqb__wish_keep_key (keys + rare.unique_size, rare.affinity, rare.affinity_size);
    zqb__wish_set_times (client, wish);
    client->timers_most++;
    return wish;
}

static void zqb__wish_free (zqb_client_t *client, zqb__wish_t *wish)
{
    client->timers_most--;
    ZQB_FREE (wish);
}

static void zqb__pending_free (zqb_client_t *client, zqb__pending_t *pending)
{
    int was_first = zqb__client_first (client) == pending;
    zqb__list_remove (&pending->link);
    zqb__client_stop_timer (client, pending);
    if (pending->wish)
        zqb__wish_free (client, pending->wish);
    zqb__stored_close (&pending->body);
    zqb__name_release (pending->service);
    zqb__slab_free (&client->slots, &pending->slot);
    client->count--;
    if (was_first && zqb__client_is_mdp (client))
        zqb__client_send_first (client);
}

/* It ends without a reply: the user will hear of it. */
static void zqb__pending_end (zqb_client_t *client, zqb__pending_t *pending, int error)
{
    int was_first = zqb__client_first (client) == pending;
    zqb__client_stop_timer (client, pending);
    zqb__list_remove (&pending->link);
    zqb__list_append (&client->ended, &pending->link);
    pending->error = error;
    if (was_first && zqb__client_is_mdp (client))
        zqb__client_send_first (client);
}

/* options: NULL, or what it asks for. NULL: ENOMEM, EMSGSIZE. */
static zqb__pending_t *zqb__pending_new (zqb_client_t *client, const char *service, size_t service_size,
                                         const zqb_request_options_t *options, const zqb_msg_t *request)
{
    zqb__body_t body;
    if (zqb__line_pack_body (&client->line, request, &body) != 0)
        return NULL;
    zqb__pending_t *pending = (zqb__pending_t *) zqb__slab_new (&client->slots);
    if (!pending)
        return NULL;
    zqb__list_init (&pending->link);
    zqb__list_init (&pending->timed);
    pending->service = zqb__client_name (client, service, service_size);
    pending->tries_left = client->retries;
    client->count++;
    if (pending->service && zqb__stored_keep (&pending->body, &body) == 0
        && (!options || (pending->wish = zqb__wish_new (client, pending, options)) != NULL))
        return pending;
    zqb__pending_free (client, pending);
    errno = ENOMEM;
    return NULL;
}

/* ---- what becomes of them */

/* Everything is sent again: the broker is another, or the same one with no memory, or over a new connection. But not by
   a client that is not to try again: what it has sent may have been executed. Parts that were lost with a connection
   will never be read, and so as many are granted anew. */
static void zqb__client_transmit_anyway (zqb_client_t *client)
{
    zqb__link_t *all = &client->pending;
    for (zqb__link_t *at = all->next; at != all; at = at->next) {
        zqb__pending_t *pending = ZQB__OF (zqb__pending_t, link, at);
        zqb__client_transmit (client, pending, ZQB__AGAIN);
        zqb__client_grant (client, pending, ZQB__WINDOW_PARTS);
    }
}

static void zqb__client_transmit_all (zqb_client_t *client)
{
    if (client->retries > 0)
        zqb__client_transmit_anyway (client);
}

/* What was sent ends without a reply: everything, or, in MDP, the first. */
static void zqb__client_end_sent (zqb_client_t *client, int error)
{
    for (zqb__pending_t *first; (first = zqb__client_first (client)) != NULL;) {
        zqb__pending_end (client, first, error);
        if (zqb__client_is_mdp (client))
            break;
    }
}

/* ZQB/1: whether the broker has said nothing at all for as long as a try takes. */
static int zqb__client_hears_nothing (const zqb_client_t *client)
{
    const zqb__line_t *line = &client->line;
    uint64_t since = line->heard > line->opened ? line->heard : line->opened;
    return line->now >= zqb__after (since, client->timeout);
}

/* A try took too long. The request is sent again; if the broker is mute altogether, all are, on a new connection. */
static void zqb__client_time_out_zqb1 (zqb_client_t *client, zqb__pending_t *pending)
{
    zqb__command_t cancel = zqb__command (ZQB__CANCEL, zqb__slot_token (&pending->slot));
    int last = !zqb__pending_has_deadline (pending) && pending->tries_left-- == 0;
    if (last)
        zqb__pending_end (client, pending, ETIMEDOUT);
    else
        zqb__client_start_timer (client, pending);
    if (zqb__client_hears_nothing (client) && !zqb__line_is_early (&client->line)
        && zqb__line_connect_next (&client->line) == 0)
        zqb__client_transmit_all (client);
    else if (!last)
        zqb__client_transmit (client, pending, ZQB__AGAIN);
    if (last)
        zqb__line_send (&client->line, &cancel, ZMQ_DONTWAIT);
}

/* Nobody wants an answer any more. The broker knows that by itself; but one that has been mute for as long as a try
   takes is given up, as above: who gives requests less time than that would never notice otherwise. */
static void zqb__client_expire (zqb_client_t *client, zqb__pending_t *pending)
{
    const zqb__line_t *line = &client->line;
    uint64_t since = client->unheard > line->opened ? client->unheard : line->opened;
    zqb__pending_end (client, pending, ZQB_EEXPIRED);
    if (client->unheard > line->heard && line->now >= zqb__after (since, client->timeout) && !zqb__line_is_early (line)
        && zqb__line_connect_next (&client->line) == 0)
        zqb__client_transmit_all (client);
}

/* Over MDP a late answer could be taken for that to the next request: only a new connection, which the broker takes for
   another client, makes sure that it is not. */
static void zqb__client_time_out_mdp (zqb_client_t *client, zqb__pending_t *pending)
{
    if (pending->tries_left > 0 && zqb__line_is_early (&client->line)) {
        pending->tries_left--;
        zqb__client_start_timer (client, pending); /* it waits there for a broker, once is enough */
        return;
    }
    zqb__line_connect_next (&client->line); /* if there is none to be had, it is tried again soon */
    if (pending->tries_left-- == 0)
        zqb__pending_end (client, pending, ETIMEDOUT);
    else
        zqb__client_send_first (client);
}

/* Sends what waits over a new connection, as nothing of it was ever sent over another. */
static void zqb__client_send_all (zqb_client_t *client)
{
    if (zqb__client_is_mdp (client))
        zqb__client_send_first (client);
    else
        zqb__client_transmit_anyway (client);
}

/* The broker does not let us in. If there are others, perhaps they do; if all have refused, it has no sense to wait. A
   new connection, and a new refusal, is for what is submitted from now on. */
static void zqb__client_turn_away (zqb_client_t *client, int error)
{
    zqb__line_t *line = &client->line;
    if (line->refusals < line->endpoint_count && zqb__line_connect_next (line) == 0) {
        zqb__client_send_all (client);
        return;
    }
    zqb__line_drop (line);
    line->refusals = 0;
    client->turned_away = 1;
    zqb__client_end_sent (client, error);
}

/* The connection was lost: all that has no answer is sent again, once, over a new one, where it waits for the broker;
   or ends, if it is not to be tried again.
   What may still have waited in the old one is dropped with it, or it would arrive twice. */
static void zqb__client_catch_up (zqb_client_t *client)
{
    zqb__line_t *line = &client->line;
    if (line->socket ? !line->lost : line->now < line->opened + ZQB__SOCKET_AGAIN_US)
        return;
    if (line->refused) {
        zqb__client_turn_away (client, line->refused);
        return;
    }
    int was_turned_away = client->turned_away;
    if (zqb__line_connect (line) != 0)
        return;
    client->turned_away = 0;
    client->line.broker_life = 0; /* whichever broker answers is the one that was asked (again) */
    if (client->retries == 0 && !was_turned_away)
        zqb__client_end_sent (client, ETIMEDOUT);
    else
        zqb__client_send_all (client);
}

static void zqb__client_tick_timed (zqb_client_t *client)
{
    zqb__link_t *timed = &client->timed;
    while (!zqb__list_empty (timed) && ZQB__OF (zqb__pending_t, timed, timed->next)->times_out <= client->line.now) {
        zqb__pending_t *pending = ZQB__OF (zqb__pending_t, timed, timed->next);
        zqb__list_remove (&pending->timed);
        if (zqb__client_is_mdp (client))
            zqb__client_time_out_mdp (client, pending);
        else
            zqb__client_time_out_zqb1 (client, pending);
    }
}

static void zqb__client_tick (zqb_client_t *client)
{
    zqb__line_look_at_clock (&client->line);
    zqb__client_tick_timed (client);
    for (zqb__timer_t *timer; (timer = zqb__heap_due (&client->timers, client->line.now)) != NULL;) {
        zqb__wish_t *wish = ZQB__OF (zqb__wish_t, timer, timer);
        if (client->line.now >= wish->ends)
            zqb__client_expire (client, wish->pending);
        else
            zqb__client_time_out_zqb1 (client, wish->pending);
    }
}

/* The request that an answer is about, or NULL: it is late, or was never ours. */
static zqb__pending_t *zqb__client_find (zqb_client_t *client, const zqb__command_t *command)
{
    zqb__pending_t *pending = zqb__client_first (client);
    if (!zqb__client_is_mdp (client)) {
        pending = (zqb__pending_t *) zqb__slab_find (&client->slots, command->id);
        return pending && !pending->error ? pending : NULL;
    }
    if (pending && pending->service->size == command->service_size
        && memcmp (pending->service->text, command->service, command->service_size) == 0)
        return pending;
    return NULL;
}

/* errno of a status on the wire. */
static int zqb__client_error (int status)
{
    return status > 0 && status < ZQB_ERRNO_END_ - ZQB_ERRNO ? ZQB_ERRNO + status : ZQB_EFAILED;
}

/* A reply of which nothing is known yet but whose it is, and what it is. */
static void zqb__reply_begin (zqb_reply_t *reply, const zqb__pending_t *pending, int kind, int error)
{
    zqb_msg_close (&reply->body);
    reply->id = zqb__slot_token (&pending->slot);
    reply->kind = kind;
    reply->error = error;
    reply->code = 0;
    reply->done = reply->total = 0;
}

/* Moves a reply to another, whose body is released. */
static void zqb__reply_move (zqb_reply_t *to, zqb_reply_t *from)
{
    to->id = from->id;
    to->kind = from->kind;
    to->error = from->error;
    to->code = from->code;
    to->done = from->done;
    to->total = from->total;
    zqb_msg_move (&to->body, &from->body);
}

/* What only some answers say: how far the work is, or how many of those that were asked have answered, or why it
   failed. */
static void zqb__client_fill_rare (const zqb__pending_t *pending, const zqb__rare_t *rare, zqb_reply_t *reply)
{
    if (reply->error == ZQB_EFAILED)
        reply->code = (int) rare->code;
    if (reply->kind == ZQB_REPLY_PROGRESS || (reply->kind == ZQB_REPLY_FINAL && zqb__pending_is_survey (pending))) {
        reply->done = rare->done;
        reply->total = rare->total;
    }
}

/* Fills a reply from an answer to a request. -1 and ENOMEM. */
static int zqb__client_fill (const zqb__pending_t *pending, const zqb__command_t *command, zqb_reply_t *reply)
{
    int kind = command->type == ZQB__REPLY      ? ZQB_REPLY_FINAL
               : command->type == ZQB__PARTIAL  ? ZQB_REPLY_PARTIAL
               : command->type == ZQB__PROGRESS ? ZQB_REPLY_PROGRESS
                                                : ZQB_REPLY_ERROR;
    zqb__reply_begin (reply, pending, kind, kind == ZQB_REPLY_ERROR ? zqb__client_error (command->status) : 0);
    if (command->rare)
        zqb__client_fill_rare (pending, command->rare, reply);
    if (kind == ZQB_REPLY_FINAL || kind == ZQB_REPLY_PARTIAL)
        return zqb__body_to_msg (&command->body, &reply->body);
    return command->text_size ? zqb_msg_add (&reply->body, command->text, command->text_size) : 0;
}

enum { ZQB__PARTS_READ = 16 }; /* whenever so many were read, as many more may come */

/* Something came of a request that goes on: it is being worked on. */
static void zqb__client_go_on (zqb_client_t *client, zqb__pending_t *pending, int type)
{
    zqb__client_start_timer (client, pending);
    pending->parts += type == ZQB__PARTIAL;
    if (pending->parts >= ZQB__PARTS_READ && zqb__client_grant (client, pending, ZQB__PARTS_READ) == 0)
        pending->parts -= ZQB__PARTS_READ; /* or it is said with the next part */
}

/* An answer came: 1 if reply is filled. */
static int zqb__client_on (zqb_client_t *client, const zqb__command_t *command, zqb_reply_t *reply)
{
    int ends = command->type == ZQB__REPLY || command->type == ZQB__ERROR;
    int answers = ends || command->type == ZQB__PARTIAL || command->type == ZQB__PROGRESS;
    zqb__pending_t *pending = answers ? zqb__client_find (client, command) : NULL;
    if (!pending)
        return 0;
    if (zqb__client_fill (pending, command, reply) != 0) {
        if (zqb__client_is_mdp (client))
            zqb__line_connect (&client->line); /* what else comes of it must not be taken for the next one's */
        zqb__pending_end (client, pending, ENOMEM);
        return 0;
    }
    if (ends)
        zqb__pending_free (client, pending);
    else
        zqb__client_go_on (client, pending, command->type);
    return 1;
}

/* A message was lost for lack of memory, and with it a reply, or a part of one that must not be missing in the whole.
   Whose it was cannot be told: all that may be meant end. 1 if so; with MDP, what came behind it is lost, too. */
static int zqb__client_starve (zqb_client_t *client)
{
    int mdp = zqb__client_is_mdp (client);
    if (!client->line.starved)
        return 0;
    client->line.starved = 0;
    if (mdp)
        zqb__line_connect (&client->line); /* as above */
    zqb__client_end_sent (client, ENOMEM);
    return mdp;
}

/* A request that ended without a reply: 1 if there was one. */
static int zqb__client_take_ended (zqb_client_t *client, zqb_reply_t *reply)
{
    if (zqb__list_empty (&client->ended))
        return 0;
    zqb__pending_t *pending = ZQB__OF (zqb__pending_t, link, client->ended.next);
    zqb__reply_begin (reply, pending, ZQB_REPLY_ERROR, pending->error);
    zqb__pending_free (client, pending);
    return 1;
}

static void zqb__arrived_take (zqb__arrived_t *arrived, zqb_reply_t *reply)
{
    zqb__list_remove (&arrived->link);
    zqb__reply_move (reply, &arrived->reply);
    ZQB_FREE (arrived);
}

static int zqb__client_take_arrived (zqb_client_t *client, zqb_reply_t *reply)
{
    if (zqb__list_empty (&client->arrived))
        return 0;
    zqb__arrived_take (ZQB__OF (zqb__arrived_t, link, client->arrived.next), reply);
    return 1;
}

/* The same of one request: a function of the user's that hears of it may have called another meanwhile. */
static int zqb__client_take_arrived_of (zqb_client_t *client, uint64_t id, zqb_reply_t *reply)
{
    zqb__link_t *all = &client->arrived, *at = all->next;
    while (at != all && ZQB__OF (zqb__arrived_t, link, at)->reply.id != id)
        at = at->next;
    if (at == all)
        return 0;
    zqb__arrived_take (ZQB__OF (zqb__arrived_t, link, at), reply);
    return 1;
}

/* The next thing that came from the broker for the user: 1; 0: nothing; -1: ETERM, EINTR. flags as for
   zqb__inbox_receive. */
static int zqb__client_read (zqb_client_t *client, zqb_reply_t *reply, int flags)
{
    zqb__command_t command;
    int more;
    while ((more = zqb__line_next (&client->line, &command, flags)) == 1) {
        int answered = zqb__client_starve (client) ? 0 : zqb__client_on (client, &command, reply);
        if (client->line.restarted) {
            client->line.restarted = 0;
            zqb__client_transmit_all (client);
        }
        if (answered)
            return 1;
    }
    zqb__client_starve (client);
    return more;
}

/* What was submitted leaves. */
static void zqb__client_end_burst (zqb_client_t *client)
{
    if (client->submitted)
        client->in_bursts = client->submitted > 1;
    client->submitted = 0;
    zqb__client_flush (client);
}

/* Whether it is well to block for a moment: something is to come, and nothing else is to be done meanwhile. */
static int zqb__client_may_block (const zqb_client_t *client)
{
    return client->count && client->line.spin_us <= 0 && zqb__client_next (client) > client->line.now + ZQB__BLOCK_US;
}

/* Waits for the next thing that came from the broker, or ended here. */
static int zqb__client_await (zqb_client_t *client, zqb_reply_t *reply, uint64_t timeout)
{
    uint64_t until = 0;
    for (int may_block = timeout > ZQB__BLOCK_US;; may_block = 0) {
        int got = zqb__client_take_ended (client, reply);
        if (!got && !client->line.reading)
            zqb__client_end_burst (client); /* before we look for what came: looking first would be one look more */
        int flags = may_block && zqb__client_may_block (client) ? 0 : ZMQ_DONTWAIT;
        if (got || (got = zqb__client_read (client, reply, flags)) != 0)
            return got > 0 ? 0 : -1;
        zqb__client_tick (client);
        zqb__client_catch_up (client);
        if (zqb__client_flush (client) > 0 || !zqb__list_empty (&client->ended))
            continue;
        if (!client->count) {
            errno = ENOENT;
            return -1;
        }
        if (!until)
            until = zqb__after (client->line.now, timeout);
        if (client->line.now >= until) {
            zqb__line_look_at_monitor (&client->line);
            errno = EAGAIN;
            return -1;
        }
        uint64_t next = zqb__client_wakes (client);
        if (zqb__line_wait (&client->line, next < until ? next : until) != 0)
            return -1;
    }
}

/* ---- the face */

static void zqb__client_free (zqb_client_t *client)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    while (zqb__client_take_arrived (client, &reply))
        zqb_msg_close (&reply.body);
    client->line.dialect = ZQB__ZQB1; /* nothing more is sent when one is freed */
    while (zqb__client_first (client))
        zqb__pending_free (client, zqb__client_first (client));
    while (zqb__client_take_ended (client, &reply)) {
    }
    zqb__name_release (client->name);
    ZQB_FREE (client->spare);
    zqb__heap_close (&client->timers);
    zqb__slab_close (&client->slots);
    ZQB_FREE (client);
}

static int zqb__client_options_valid (const zqb_client_options_t *options)
{
    int64_t numbers[] = {options->timeout_ms, options->retries, options->max_pending, options->spin_us};
    return zqb__all_valid (numbers, sizeof numbers / sizeof numbers[0]) && options->dialect >= ZQB_DIALECT_ZQB1
           && options->dialect <= ZQB_DIALECT_MDP02;
}

static void zqb__client_options (zqb_client_t *client, const zqb_client_options_t *options)
{
    client->timeout = zqb__option_us (options->timeout_ms, 2500);
    client->retries = options->retries < 0 ? 0 : zqb__option (options->retries, 2);
    client->most = zqb__option (options->max_pending, 100000);
    client->line.spin_us = options->spin_us;
    client->line.dialect = options->dialect;
    client->line.side = ZQB__CLIENT;
    client->line.heartbeat_ms = 2500; /* of the connection: it goes when the broker's machine is gone */
    client->line.liveness = 3;
    client->line.send_timeout_ms = 0; /* what cannot be sent is sent when the time-out comes */
}

/* As zqb_client_new, with valid arguments; keys are copied. */
static zqb_client_t *zqb__client_make (void *ctx, const char *endpoints, const zqb_client_options_t *options,
                                       const zqb__keys_t *keys)
{
    zqb_client_t *client = (zqb_client_t *) zqb__alloc (sizeof *client);
    if (!client)
        return NULL;
    zqb__list_init (&client->pending);
    zqb__list_init (&client->ended);
    zqb__list_init (&client->arrived);
    zqb__list_init (&client->timed);
    zqb__list_init (&client->untimed);
    zqb__client_options (client, options);
    client->line.ctx = ctx;
    client->line.keys = zqb__keys_copy (keys);
    if ((keys && !client->line.keys) || zqb__line_open (&client->line, endpoints) != 0) {
        ZQB_FREE (client);
        return NULL;
    }
    zqb__slab_init (&client->slots, sizeof (zqb__pending_t), (uint32_t) (client->line.life >> 32));
    return client;
}

ZQB_API zqb_client_t *zqb_client_new (void *ctx, const char *endpoints, const zqb_client_options_t *options)
{
    zqb_client_options_t standard;
    zqb__keys_t *keys;
    memset (&standard, 0, sizeof standard);
    if (!options)
        options = &standard;
    if (!ctx || !endpoints || !zqb__client_options_valid (options)) {
        errno = EINVAL;
        return NULL;
    }
    if (zqb__keys_of_peer (&keys, options->server_public, options->public_key, options->secret_key, options->user,
                           options->password) != 0)
        return NULL;
    zqb_client_t *client = zqb__client_make (ctx, endpoints, options, keys);
    int error = errno;
    zqb__keys_free (&keys);
    errno = error;
    return client;
}

/* Checks what is asked for; none is made of what asks for nothing. -1: EINVAL, ENOTSUP. */
static int zqb__client_check_wish (const zqb_client_t *client, const zqb_request_options_t **options)
{
    if (zqb__wish_is_none (*options)) {
        *options = NULL;
        return 0;
    }
    if (!zqb__wish_is_valid (*options))
        return zqb__invalid ();
    errno = ENOTSUP;
    return zqb__client_is_mdp (client) ? -1 : 0;
}

/* Packs a request of which nothing is kept. -1: ENOMEM, EMSGSIZE; EAGAIN: there is no socket for it. */
static int zqb__client_send_one_way (zqb_client_t *client, const char *service, size_t service_size,
                                     const zqb_request_options_t *options, const zqb_msg_t *request)
{
    zqb__rare_t rare;
    zqb__command_t command = zqb__command (ZQB__REQUEST, 0);
    command.service = (const unsigned char *) service;
    command.service_size = service_size;
    command.msg = request;
    zqb__wish_ask (options, &command, &rare);
    if (client->line.socket)
        return zqb__line_send (&client->line, &command, ZMQ_DONTWAIT);
    errno = EAGAIN;
    return -1;
}

/* Keeps a request until its reply comes, and packs it. As zqb_client_submit. */
static int zqb__client_send_and_keep (zqb_client_t *client, const char *service, size_t service_size,
                                      const zqb_request_options_t *options, const zqb_msg_t *request, uint64_t *id)
{
    if (client->count >= client->most) {
        errno = EAGAIN;
        return -1;
    }
    zqb__pending_t *pending = zqb__pending_new (client, service, service_size, options, request);
    if (!pending)
        return -1;
    int turn = !zqb__client_is_mdp (client) || !zqb__client_first (client);
    zqb__list_append (&client->pending, &pending->link);
    if (turn && zqb__client_transmit (client, pending, 0) != 0) {
        int error = errno;
        zqb__pending_free (client, pending);
        errno = error;
        return -1;
    }
    if (options && pending->wish->has_times)
        zqb__client_start_timer (client, pending);
    else if (turn)
        zqb__list_append (&client->untimed, &pending->timed);
    *id = zqb__slot_token (&pending->slot);
    client->submitted++;
    return 0;
}

/* Sends what is packed, and says whether it is on its way: what there is no memory for at the moment is, too. -1:
   ETERM, EAGAIN (there is no connection for it). */
static int zqb__client_send_now (zqb_client_t *client)
{
    return zqb__client_flush (client) < 0 && errno != ENOMEM ? -1 : 0;
}

ZQB_API int zqb_client_submit_with (zqb_client_t *client, const char *service, const zqb_request_options_t *options,
                                    zqb_msg_t *request, uint64_t *id)
{
    size_t service_size = service ? strlen (service) : 0;
    uint64_t number = 0;
    if (!client || !request || !zqb__name_valid (service_size))
        return zqb__invalid ();
    if (options && zqb__client_check_wish (client, &options) != 0)
        return -1;
    if (client->line.ended) {
        errno = ETERM;
        return -1;
    }
    if (client->line.out.bytes.size)
        zqb__line_glance (&client->line);
    else
        zqb__line_look_at_clock (&client->line);
    int failed = options && options->one_way
                   ? zqb__client_send_one_way (client, service, service_size, options, request)
                   : zqb__client_send_and_keep (client, service, service_size, options, request, &number);
    if (failed)
        return -1;
    if (id)
        *id = number;
    uint64_t since = client->in_bursts ? client->line.packed_at : client->line.flushed;
    int due = zqb__line_is_due (&client->line, since) || zqb__client_is_mdp (client);
    if (due && zqb__client_send_now (client) != 0 && !number)
        return -1; /* and nobody would send it again */
    return zqb_msg_close (request);
}

ZQB_API int zqb_client_submit (zqb_client_t *client, const char *service, zqb_msg_t *request, uint64_t *id)
{
    return zqb_client_submit_with (client, service, NULL, request, id);
}

ZQB_API int zqb_client_flush (zqb_client_t *client)
{
    if (!client)
        return zqb__invalid ();
    int failed = zqb__client_flush (client) < 0 && !zqb__client_is_cut_off ();
    if (client->line.ended)
        errno = ETERM;
    return failed || client->line.ended ? -1 : 0;
}

ZQB_API int zqb_client_recv (zqb_client_t *client, zqb_reply_t *reply, int timeout_ms)
{
    if (!client || !reply)
        return zqb__invalid ();
    if (!zqb__list_empty (&client->arrived))
        return zqb__client_take_arrived (client, reply) ? 0 : -1;
    return zqb__client_await (client, reply, zqb__timeout_us (timeout_ms));
}

/* Drops what came of a request while a call waited for another. */
static void zqb__client_drop_arrived (zqb_client_t *client, uint64_t id)
{
    zqb__link_t *all = &client->arrived;
    for (zqb__link_t *at = all->next, *next; at != all; at = next) {
        zqb__arrived_t *arrived = ZQB__OF (zqb__arrived_t, link, at);
        next = at->next;
        if (arrived->reply.id != id)
            continue;
        zqb__list_remove (at);
        zqb_msg_close (&arrived->reply.body);
        ZQB_FREE (arrived);
    }
}

ZQB_API int zqb_client_cancel (zqb_client_t *client, uint64_t id)
{
    if (!client)
        return zqb__invalid ();
    zqb__pending_t *pending = (zqb__pending_t *) zqb__slab_find (&client->slots, id);
    zqb__command_t cancel = zqb__command (ZQB__CANCEL, id);
    if (!pending || pending->error) {
        errno = ENOENT;
        return -1;
    }
    if (!zqb__client_is_mdp (client)) {
        zqb__line_look_at_clock (&client->line);
        zqb__line_send (&client->line, &cancel, ZMQ_DONTWAIT);
        zqb__client_flush (client);
    } else if (pending == zqb__client_first (client))
        zqb__line_connect_next (&client->line); /* its answer must not be taken for that of the next */
    zqb__client_drop_arrived (client, id);
    zqb__pending_free (client, pending);
    return 0;
}

/* Makes sure that the next reply can be kept. -1 and ENOMEM. */
static int zqb__client_have_spare (zqb_client_t *client)
{
    if (!client->spare)
        client->spare = (zqb__arrived_t *) zqb__alloc (sizeof *client->spare);
    return client->spare ? 0 : -1;
}

/* Nothing will be told of a request any more. */
static void zqb__client_forget (zqb_client_t *client, uint64_t id)
{
    zqb__pending_t *pending = (zqb__pending_t *) zqb__slab_find (&client->slots, id);
    if (pending && pending->error)
        zqb__pending_free (client, pending);
    else
        zqb_client_cancel (client, id);
}

/* Keeps a reply to another request for zqb_client_recv. */
static void zqb__client_set_aside (zqb_client_t *client, zqb_reply_t *reply)
{
    zqb__arrived_t *arrived = client->spare;
    client->spare = NULL;
    zqb_msg_init (&arrived->reply.body);
    zqb__reply_move (&arrived->reply, reply);
    zqb__list_append (&client->arrived, &arrived->link);
}

/* Moves the frames of a part behind those that are there. -1 and ENOMEM. */
static int zqb__msg_append (zqb_msg_t *msg, zqb_msg_t *part)
{
    for (size_t i = 0; i < part->count_; i++)
        if (zqb_msg_add_frame (msg, &zqb__msg_frames (part)[i]) != 0)
            return -1;
    return zqb_msg_close (part);
}

/* Waits for the next that comes of one request; what comes of others is kept for zqb_client_recv. -1: ENOMEM, EINTR,
   ETERM, and nothing more will come of it. */
static int zqb__client_await_of (zqb_client_t *client, uint64_t id, zqb_reply_t *reply)
{
    while (zqb__client_have_spare (client) == 0 && zqb__client_await (client, reply, UINT64_MAX) == 0) {
        if (reply->id == id)
            return 0;
        zqb__client_set_aside (client, reply);
    }
    int error = errno;
    zqb__client_forget (client, id);
    errno = error;
    return -1;
}

/* Waits for the reply to one request, whose parts are gathered. */
static int zqb__client_wait_for (zqb_client_t *client, uint64_t id, zqb_msg_t *whole)
{
    zqb_reply_t reply;
    zqb_msg_init (&reply.body);
    while (zqb__client_await_of (client, id, &reply) == 0) {
        if (reply.kind == ZQB_REPLY_ERROR) {
            zqb_msg_move (whole, &reply.body);
            errno = reply.error;
            return -1;
        }
        if (reply.kind != ZQB_REPLY_PROGRESS && zqb__msg_append (whole, &reply.body) != 0) {
            zqb__client_forget (client, id);
            errno = ENOMEM;
            break;
        }
        if (reply.kind == ZQB_REPLY_FINAL)
            return 0;
    }
    int error = errno;
    zqb_msg_close (&reply.body);
    errno = error;
    return -1;
}

/* Submits a copy of a request, which the caller keeps until it is known how it ends. */
static int zqb__client_submit_copy (zqb_client_t *client, const char *service, const zqb_request_options_t *options,
                                    const zqb_msg_t *request, uint64_t *id)
{
    zqb_msg_t copy;
    zqb_msg_init (&copy);
    if (zqb_msg_copy (&copy, request) != 0)
        return -1;
    int failed = zqb_client_submit_with (client, service, options, &copy, id), error = errno;
    zqb_msg_close (&copy);
    errno = error;
    return failed;
}

ZQB_API int zqb_client_call_with (zqb_client_t *client, const char *service, const zqb_request_options_t *options,
                                  zqb_msg_t *request, zqb_msg_t *reply)
{
    uint64_t id;
    if (!client || !request || !reply || request == reply)
        return zqb__invalid ();
    if (zqb__client_submit_copy (client, service, options, request, &id) != 0)
        return -1;
    zqb_msg_t whole;
    zqb_msg_init (&whole);
    int failed = id ? zqb__client_wait_for (client, id, &whole) : zqb__client_send_now (client), error = errno;
    zqb_msg_move (reply, &whole);
    if (!failed)
        zqb_msg_close (request);
    errno = error;
    return failed;
}

ZQB_API int zqb_client_call (zqb_client_t *client, const char *service, zqb_msg_t *request, zqb_msg_t *reply)
{
    return zqb_client_call_with (client, service, NULL, request, reply);
}

/* Waits for the end of a survey; how many answers came. -1: as for zqb_client_survey. */
static int zqb__client_collect (zqb_client_t *client, uint64_t id, zqb_survey_fn *each, void *arg, zqb_reply_t *reply)
{
    int answers = 0;
    while (zqb__client_take_arrived_of (client, id, reply) || zqb__client_await_of (client, id, reply) == 0) {
        if (reply->kind == ZQB_REPLY_FINAL)
            return answers;
        if (reply->kind == ZQB_REPLY_PARTIAL) {
            each (&reply->body, arg);
            answers++;
        }
        errno = reply->error;
        if (reply->kind == ZQB_REPLY_ERROR)
            break;
    }
    return -1;
}

ZQB_API int zqb_client_survey (zqb_client_t *client, const char *service, zqb_msg_t *request, int deadline_ms,
                               zqb_survey_fn *each, void *arg, int *asked)
{
    zqb_request_options_t options;
    zqb_reply_t reply;
    uint64_t id;
    if (!client || !request || !each || deadline_ms < -1 || deadline_ms == 0)
        return zqb__invalid ();
    memset (&options, 0, sizeof options);
    options.survey = 1;
    options.deadline_ms = deadline_ms < 0 ? 0 : deadline_ms;
    if (zqb__client_submit_copy (client, service, &options, request, &id) != 0)
        return -1;
    zqb_msg_init (&reply.body);
    int answers = zqb__client_collect (client, id, each, arg, &reply), error = errno;
    zqb_msg_close (&reply.body);
    if (answers >= 0)
        zqb_msg_close (request);
    if (answers >= 0 && asked)
        *asked = reply.total > INT_MAX ? INT_MAX : (int) reply.total;
    errno = error;
    return answers;
}

ZQB_API int zqb_client_fd (zqb_client_t *client)
{
    if (!client)
        return zqb__invalid ();
    if (client->line.socket)
        return (int) client->line.fd;
    errno = ENOTCONN;
    return -1;
}

/* What is packed still leaves: there may be requests among it whose end nobody waits for. */
ZQB_API void zqb_client_destroy (zqb_client_t **client)
{
    if (!client || !*client)
        return;
    zqb__line_flush (&(*client)->line, ZMQ_DONTWAIT);
    zqb__line_close (&(*client)->line);
    zqb__client_free (*client);
    *client = NULL;
}

/* ================================================================================================================
   >>pool
   Owns:    threads, each with a worker, and how many there are
   Door:    zqb_pool_*
   Uses:    worker, scale, client (to ask the broker how long the queue is), platform
   Never:   touches a worker while its thread runs, but to drain it
   Where to look: a pool that was started with a fixed number of threads has them, and nothing more. One that is
            elastic, or was resized, has a manager: a thread that starts the others, drains them, and joins those that
            ended.
   ================================================================================================================ */

typedef struct zqb__pool_thread_t {
    zqb__link_t link;
    zqb_pool_t *pool;
    zqb__thread_t *thread;
    zqb_worker_t *worker; /* while the thread runs, what others may drain; NULL nothing (any more) */
    int leaving;          /* it was asked to drain it */
    int error;            /* why it ended; 0: it was stopped, or drained */
    zqb__flag_t busy;     /* in the handler */
    zqb__flag_t ended;    /* it can be joined at once */
} zqb__pool_thread_t;

struct zqb_pool_t {
    zqb__signal_t signal; /* of all workers */
    zqb_handler_fn *handler;
    void *handler_arg;
    void *ctx;
    char *endpoints, *service;
    zqb_worker_options_t options;
    zqb__keys_t *keys; /* of all workers; NULL: no security */
    zqb__mutex_t lock; /* of what others may look at: threads, their workers, and all down to the manager */
    zqb__link_t threads;
    zqb_scale_options_t bounds;
    uint64_t started, left;
    zqb__thread_t *manager; /* NULL: it is as it was started */
    zqb__signal_t wake;     /* the manager's */
    zqb__flag_t managed;    /* there is somebody to wake */
    zqb__flag_t elastic;    /* how many are in the handler is counted: */
    zqb__flag_t busy, peak; /* now, and the most since the manager looked */
    zqb__scaling_t scaling; /* this and what follows is the manager's */
    zqb_client_t *client;
    uint64_t asked;         /* the number of what the broker was asked; 0 nothing */
    uint64_t ask_at;        /* when it is asked again */
    uint64_t start_at;      /* when a thread may be started, after there was none to be had */
    int over;               /* the context has ended */
};

enum { ZQB__POOL_ASK_US = 100000, ZQB__POOL_AGAIN_US = 500000, ZQB__POOL_TIMEOUT_MS = 1000 };

/* ---- a thread */

/* Only an elastic pool has to know how many are at work at the same time, which costs something. */
static int zqb__pool_handle (zqb_request_t *request, zqb_msg_t *reply, void *arg)
{
    zqb__pool_thread_t *thread = (zqb__pool_thread_t *) arg;
    zqb_pool_t *pool = thread->pool;
    int counted = zqb__flag_look (&pool->elastic);
    zqb__flag_note (&thread->busy, 1);
    if (counted)
        zqb__flag_raise (&pool->peak, zqb__flag_add (&pool->busy, 1) + 1);
    int failed = pool->handler (request, reply, pool->handler_arg);
    if (counted)
        zqb__flag_add (&pool->busy, -1);
    zqb__flag_note (&thread->busy, 0);
    return failed;
}

static zqb_worker_t *zqb__pool_make_worker (zqb_pool_t *pool)
{
    return zqb__worker_make (pool->ctx, pool->endpoints, pool->service, &pool->options, pool->keys, &pool->signal);
}

/* Lets others drain this worker, or, with NULL, no longer. */
static void zqb__pool_show_worker (zqb__pool_thread_t *thread, zqb_worker_t *worker)
{
    zqb__mutex_enter (&thread->pool->lock);
    thread->worker = worker;
    if (worker && thread->leaving)
        zqb_worker_drain (worker);
    zqb__mutex_leave (&thread->pool->lock);
}

/* A thread that the manager has started makes its own worker: it would be a pity to register one for which there is no
   thread. */
static void zqb__pool_run (void *arg)
{
    zqb__pool_thread_t *thread = (zqb__pool_thread_t *) arg;
    zqb_pool_t *pool = thread->pool;
    zqb_worker_t *worker = thread->worker ? thread->worker : zqb__pool_make_worker (pool);
    int failed = worker ? 0 : -1;
    zqb__pool_show_worker (thread, worker);
    while (worker && (failed = zqb_worker_run (worker, zqb__pool_handle, thread)) != 0 && errno != ETERM) {
    }
    thread->error = failed ? errno : 0;
    zqb__pool_show_worker (thread, NULL);
    zqb_worker_destroy (&worker);
    zqb__flag_set (&thread->ended);
    if (zqb__flag_get (&pool->managed))
        zqb__signal_wake (&pool->wake);
}

static zqb__pool_thread_t *zqb__pool_thread_new (zqb_pool_t *pool)
{
    zqb__pool_thread_t *thread = (zqb__pool_thread_t *) zqb__alloc (sizeof *thread);
    if (!thread)
        return NULL;
    thread->pool = pool;
    zqb__mutex_enter (&pool->lock);
    zqb__list_append (&pool->threads, &thread->link);
    zqb__mutex_leave (&pool->lock);
    return thread;
}

/* Waits for its end, if it has begun. */
static void zqb__pool_thread_free (zqb__pool_thread_t *thread)
{
    zqb_pool_t *pool = thread->pool;
    int begun = thread->thread != NULL;
    zqb__thread_join (&thread->thread);
    zqb__mutex_enter (&pool->lock);
    zqb__list_remove (&thread->link);
    pool->left += begun ? 1 : 0;
    zqb__mutex_leave (&pool->lock);
    zqb_worker_destroy (&thread->worker);
    ZQB_FREE (thread);
}

/* -1: EAGAIN, ENOMEM. */
static int zqb__pool_thread_begin (zqb__pool_thread_t *thread)
{
    zqb_pool_t *pool = thread->pool;
    zqb__mutex_enter (&pool->lock); /* which it needs before it ends: it is counted by then */
    thread->thread = zqb__thread_start (zqb__pool_run, thread);
    pool->started += thread->thread ? 1 : 0;
    zqb__mutex_leave (&pool->lock);
    return thread->thread ? 0 : -1;
}

/* ---- the manager */

/* Whether a thread is there, and was not asked to leave. */
static int zqb__pool_stays (zqb__pool_thread_t *thread)
{
    return !thread->leaving && !zqb__flag_get (&thread->ended);
}

static int zqb__pool_count (zqb_pool_t *pool)
{
    int count = 0;
    for (zqb__link_t *at = pool->threads.next; at != &pool->threads; at = at->next)
        count += zqb__pool_stays (ZQB__OF (zqb__pool_thread_t, link, at));
    return count;
}

/* Takes over what the host has said last. Whether the number depends on the load. */
static int zqb__pool_take_bounds (zqb_pool_t *pool, uint64_t now)
{
    zqb__mutex_enter (&pool->lock);
    zqb_scale_options_t bounds = pool->bounds;
    zqb__mutex_leave (&pool->lock);
    int elastic = bounds.min < bounds.max;
    if (elastic && !zqb__flag_look (&pool->elastic))
        zqb__scaling_init (&pool->scaling, &bounds, zqb__pool_count (pool), now);
    zqb__flag_note (&pool->elastic, elastic);
    zqb__scaling_bound (&pool->scaling, bounds.min, bounds.max);
    return elastic;
}

/* Joins those that have ended. */
static void zqb__pool_reap (zqb_pool_t *pool, uint64_t now)
{
    zqb__link_t *all = &pool->threads;
    for (zqb__link_t *at = all->next, *next; at != all; at = next) {
        zqb__pool_thread_t *thread = ZQB__OF (zqb__pool_thread_t, link, at);
        next = at->next;
        if (!zqb__flag_get (&thread->ended))
            continue;
        pool->over |= thread->error == ETERM;
        if (thread->error)
            pool->start_at = now + ZQB__POOL_AGAIN_US;
        zqb__pool_thread_free (thread);
    }
}

static void zqb__pool_forget_broker (zqb_pool_t *pool)
{
    zqb_client_destroy (&pool->client);
    pool->asked = 0;
}

/* Asks the broker how long the queue is. If it cannot be asked now, then later. */
static void zqb__pool_ask (zqb_pool_t *pool, uint64_t now)
{
    zqb_client_options_t options;
    zqb_msg_t name;
    pool->ask_at = now + ZQB__POOL_ASK_US;
    if (pool->asked)
        return; /* the client ends it, in its time */
    memset (&options, 0, sizeof options);
    options.dialect = pool->options.dialect;
    options.timeout_ms = ZQB__POOL_TIMEOUT_MS;
    options.retries = -1;
    if (!pool->client)
        pool->client = zqb__client_make (pool->ctx, pool->endpoints, &options, pool->keys);
    zqb_msg_init (&name);
    if (pool->client && zqb_msg_add_str (&name, pool->service) == 0
        && zqb_client_submit (pool->client, "mmi.services", &name, &pool->asked) == 0)
        zqb_client_flush (pool->client);
    zqb_msg_close (&name);
}

/* A number in a line of mmi.services. */
static int64_t zqb__pool_field (const char *line, const char *name)
{
    const char *at = strstr (line, name);
    int64_t value = at ? (int64_t) strtoll (at + strlen (name), NULL, 10) : 0;
    return value < 0 ? 0 : value < INT_MAX ? value : INT_MAX;
}

/* The line of our service. 0: there is none. */
static int zqb__pool_find_line (const zqb_pool_t *pool, const zqb_msg_t *answer, char *line, size_t size)
{
    char name[ZQB__NAME_TEXT];
    size_t length = strlen (zqb__name_text (pool->service, strlen (pool->service), name));
    for (size_t i = 0; i < zqb_msg_count (answer); i++) {
        const char *text = (const char *) zqb_msg_data (answer, i);
        int whole = (int) zqb_msg_size (answer, i);
        if (zqb_msg_size (answer, i) <= length || memcmp (text, name, length) != 0 || text[length] != ' ')
            continue;
        snprintf (line, size, "%.*s", whole, text);
        return 1;
    }
    return 0;
}

/* How things stand: our threads, and our share of what could be begun, if others serve it, too. A service that the
   broker does not know has no queue. -1: what it said tells nothing. */
static int zqb__pool_measure (zqb_pool_t *pool, const zqb_msg_t *answer, zqb_scale_t *sample)
{
    char line[1400];
    int threads = zqb__pool_count (pool), busy = zqb__flag_get (&pool->busy), peak = zqb__flag_take (&pool->peak);
    busy = peak > busy ? peak : busy;
    memset (sample, 0, sizeof *sample);
    sample->service = pool->service;
    sample->busy = busy < threads ? busy : threads;
    sample->idle = threads - sample->busy;
    if (!zqb__pool_find_line (pool, answer, line, sizeof line))
        return zqb_msg_count (answer) ? -1 : 0;
    int64_t queued = zqb__pool_field (line, " queued="), workers = zqb__pool_field (line, " workers=");
    queued -= zqb__pool_field (line, " delayed=") + zqb__pool_field (line, " pinned=");
    if (workers > threads)
        queued = (queued * threads + workers - 1) / workers;
    sample->queued = queued > 0 ? (int) queued : 0;
    sample->oldest_us = zqb__pool_field (line, " oldest_ms=") * 1000;
    return 0;
}

/* Reads what the broker says. One that is away says nothing, and nothing changes. */
static void zqb__pool_hear (zqb_pool_t *pool, uint64_t now)
{
    zqb_reply_t reply;
    zqb_scale_t sample;
    if (!pool->client)
        return;
    zqb_msg_init (&reply.body);
    while (zqb_client_recv (pool->client, &reply, 0) == 0) {
        pool->asked = 0;
        if (reply.kind == ZQB_REPLY_FINAL && zqb__pool_measure (pool, &reply.body, &sample) == 0)
            zqb__scaling_sample (&pool->scaling, now, &sample);
    }
    pool->over |= errno == ETERM;
    zqb_msg_close (&reply.body);
}

/* -1: there is no thread to be had, or no memory. */
static int zqb__pool_add (zqb_pool_t *pool)
{
    zqb__pool_thread_t *thread = zqb__pool_thread_new (pool);
    if (thread && zqb__pool_thread_begin (thread) == 0)
        return 0;
    if (thread)
        zqb__pool_thread_free (thread);
    return -1;
}

/* Lets one go: an idle one, if there is any, and of those the youngest. */
static void zqb__pool_drain_one (zqb_pool_t *pool)
{
    zqb__pool_thread_t *chosen = NULL;
    for (zqb__link_t *at = pool->threads.prev; at != &pool->threads; at = at->prev) {
        zqb__pool_thread_t *thread = ZQB__OF (zqb__pool_thread_t, link, at);
        int better = !chosen || (zqb__flag_look (&chosen->busy) && !zqb__flag_look (&thread->busy));
        if (better && zqb__pool_stays (thread))
            chosen = thread;
    }
    if (!chosen)
        return;
    zqb__mutex_enter (&pool->lock);
    chosen->leaving = 1;
    if (chosen->worker)
        zqb_worker_drain (chosen->worker);
    zqb__mutex_leave (&pool->lock);
}

/* Starts those that are missing, lets those go that are too many. */
static void zqb__pool_fit (zqb_pool_t *pool, uint64_t now)
{
    int missing = pool->scaling.wanted - zqb__pool_count (pool);
    for (; missing > 0 && now >= pool->start_at; missing--)
        if (zqb__pool_add (pool) != 0)
            pool->start_at = now + ZQB__POOL_AGAIN_US;
    for (; missing < 0; missing++)
        zqb__pool_drain_one (pool);
}

/* Until it is woken, the broker answers, or the time comes. */
static void zqb__pool_wait (zqb_pool_t *pool, uint64_t until)
{
    zqb__poll_t items[2];
    int count = 0, fd = pool->client ? zqb_client_fd (pool->client) : -1;
    uint64_t now = zqb__clock ();
    items[count++] = zqb__poll_item (pool->wake.ends[0]);
    if (fd != -1)
        items[count++] = zqb__poll_item ((zmq_fd_t) fd);
    zqb__wait (items, count, until == UINT64_MAX ? UINT64_MAX : until > now ? until - now : 0);
    zqb__signal_drain (&pool->wake);
}

static void zqb__pool_manage (void *arg)
{
    zqb_pool_t *pool = (zqb_pool_t *) arg;
    for (;;) {
        uint64_t now = zqb__clock ();
        int elastic = zqb__pool_take_bounds (pool, now);
        zqb__pool_reap (pool, now);
        if (elastic)
            zqb__pool_hear (pool, now);
        else
            zqb__pool_forget_broker (pool);
        if (pool->over || zqb__signal_stopped (&pool->signal)) /* those that ended are not missed */
            break;
        if (elastic && now >= pool->ask_at)
            zqb__pool_ask (pool, now);
        zqb__pool_fit (pool, now);
        uint64_t until = elastic ? pool->ask_at : UINT64_MAX;
        zqb__pool_wait (pool, pool->start_at > now && pool->start_at < until ? pool->start_at : until);
    }
    zqb__pool_forget_broker (pool);
}

/* The caller has the lock. -1: EAGAIN, ENOMEM, EMFILE. */
static int zqb__pool_have_manager (zqb_pool_t *pool)
{
    if (pool->manager)
        return 0;
    if (zqb__signal_init (&pool->wake) != 0)
        return -1;
    pool->manager = zqb__thread_start (zqb__pool_manage, pool);
    if (pool->manager) {
        zqb__flag_set (&pool->managed);
        return 0;
    }
    zqb__signal_close (&pool->wake);
    errno = EAGAIN;
    return -1;
}

/* ---- the face */

/* Sets the bounds, and has somebody see to it. */
static int zqb__pool_set (zqb_pool_t *pool, int min, int max)
{
    zqb__mutex_enter (&pool->lock);
    zqb_scale_options_t before = pool->bounds;
    pool->bounds.min = min;
    pool->bounds.max = max;
    int failed = zqb__pool_have_manager (pool);
    if (failed)
        pool->bounds = before;
    zqb__mutex_leave (&pool->lock);
    if (!failed)
        zqb__signal_wake (&pool->wake);
    return failed;
}

ZQB_API int zqb_pool_resize (zqb_pool_t *pool, int min, int max)
{
    return !pool || min < 1 || min > max ? zqb__invalid () : zqb__pool_set (pool, min, max);
}

ZQB_API int zqb_pool_stats (zqb_pool_t *pool, zqb_pool_stats_t *stats)
{
    if (!pool || !stats)
        return zqb__invalid ();
    memset (stats, 0, sizeof *stats);
    zqb__mutex_enter (&pool->lock);
    for (zqb__link_t *at = pool->threads.next; at != &pool->threads; at = at->next) {
        zqb__pool_thread_t *thread = ZQB__OF (zqb__pool_thread_t, link, at);
        int ended = zqb__flag_get (&thread->ended) != 0;
        stats->left += ended ? 1 : 0;
        stats->busy += !ended && zqb__flag_look (&thread->busy);
    }
    stats->started = pool->started;
    stats->left += pool->left;
    zqb__mutex_leave (&pool->lock);
    stats->threads = (int) (stats->started - stats->left);
    return 0;
}

static void zqb__pool_free (zqb_pool_t *pool)
{
    zqb__signal_close (&pool->signal);
    zqb__mutex_close (&pool->lock);
    zqb__keys_free (&pool->keys);
    ZQB_FREE (pool->endpoints);
    ZQB_FREE (pool->service);
    ZQB_FREE (pool);
}

ZQB_API void zqb_pool_stop (zqb_pool_t **pool)
{
    if (!pool || !*pool)
        return;
    zqb__signal_stop (&(*pool)->signal);
    int managed = (*pool)->manager != NULL;
    if (managed)
        zqb__signal_wake (&(*pool)->wake);
    zqb__thread_join (&(*pool)->manager);
    while (!zqb__list_empty (&(*pool)->threads))
        zqb__pool_thread_free (ZQB__OF (zqb__pool_thread_t, link, (*pool)->threads.next));
    if (managed)
        zqb__signal_close (&(*pool)->wake);
    zqb__pool_free (*pool);
    *pool = NULL;
}

/* Makes all workers before any thread, so that what is wrong shows before anything runs. */
static int zqb__pool_fill (zqb_pool_t *pool, int count)
{
    zqb__link_t *threads = &pool->threads;
    for (int i = 0; i < count; i++) {
        zqb__pool_thread_t *thread = zqb__pool_thread_new (pool);
        if (thread)
            thread->worker = zqb__pool_make_worker (pool);
        if (!thread || !thread->worker)
            return -1;
    }
    for (zqb__link_t *at = threads->next; at != threads; at = at->next)
        if (zqb__pool_thread_begin (ZQB__OF (zqb__pool_thread_t, link, at)) != 0)
            return -1;
    return pool->bounds.min < pool->bounds.max ? zqb__pool_set (pool, pool->bounds.min, pool->bounds.max) : 0;
}

static zqb_pool_t *zqb__pool_new (void *ctx, const char *endpoints, const char *service,
                                  const zqb_worker_options_t *options)
{
    zqb_pool_t *pool = (zqb_pool_t *) zqb__alloc (sizeof *pool);
    if (!pool)
        return NULL;
    zqb__list_init (&pool->threads);
    pool->ctx = ctx;
    pool->options = *options;
    pool->endpoints = zqb__copy_text (endpoints, strlen (endpoints));
    pool->service = zqb__copy_text (service, strlen (service));
    if (pool->endpoints && pool->service && zqb__worker_keys (&pool->keys, options) == 0
        && zqb__signal_init (&pool->signal) == 0) {
        if (zqb__mutex_init (&pool->lock) == 0)
            return pool;
        zqb__signal_close (&pool->signal);
    }
    int error = errno;
    zqb__keys_free (&pool->keys);
    ZQB_FREE (pool->endpoints);
    ZQB_FREE (pool->service);
    ZQB_FREE (pool);
    errno = error;
    return NULL;
}

/* The bounds that a pool begins with, and, as its return value, how many threads. */
static int zqb__pool_first (zqb_scale_options_t *bounds, const zqb_pool_options_t *options)
{
    int threads = options->threads;
    *bounds = options->scale;
    if (!bounds->max)
        return bounds->min = bounds->max = threads ? threads : zqb__processors ();
    bounds->min = zqb__option (bounds->min, 1);
    return threads < bounds->min ? bounds->min : threads < bounds->max ? threads : bounds->max;
}

ZQB_API zqb_pool_t *zqb_pool_start (void *ctx, const char *endpoints, const char *service, zqb_handler_fn *handler,
                                    void *arg, const zqb_pool_options_t *options)
{
    zqb_pool_options_t standard;
    memset (&standard, 0, sizeof standard);
    if (!options)
        options = &standard;
    if (!ctx || !endpoints || !handler || !zqb__service_valid (service) || options->threads < 0
        || (options->scale.max && !zqb__scale_valid (&options->scale))
        || !zqb__worker_options_valid (&options->worker)) {
        errno = EINVAL;
        return NULL;
    }
    zqb_pool_t *pool = zqb__pool_new (ctx, endpoints, service, &options->worker);
    if (!pool)
        return NULL;
    pool->handler = handler;
    pool->handler_arg = arg;
    if (zqb__pool_fill (pool, zqb__pool_first (&pool->bounds, options)) == 0)
        return pool;
    int error = errno;
    zqb_pool_stop (&pool);
    errno = error;
    return NULL;
}

#endif /* ZQBROKER_IMPLEMENTATION */

/*
    zqbroker is available under either of these licences, whichever you prefer.

    --------------------------------------------------------------------------------
    ALTERNATIVE A - MIT License

    Copyright (c) 2026 the zqbroker authors

    Permission is hereby granted, free of charge, to any person obtaining a copy of
    this software and associated documentation files (the "Software"), to deal in
    the Software without restriction, including without limitation the rights to
    use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
    the Software, and to permit persons to whom the Software is furnished to do so,
    subject to the following conditions:

    The above copyright notice and this permission notice shall be included in all
    copies or substantial portions of the Software.

    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
    IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
    FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
    COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
    IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
    CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

    --------------------------------------------------------------------------------
    ALTERNATIVE B - Public Domain (www.unlicense.org)

    This is free and unencumbered software released into the public domain.

    Anyone is free to copy, modify, publish, use, compile, sell, or distribute this
    software, either in source code form or as a compiled binary, for any purpose,
    commercial or non-commercial, and by any means.

    In jurisdictions that recognize copyright laws, the author or authors of this
    software dedicate any and all copyright interest in the software to the public
    domain. We make this dedication for the benefit of the public at large and to
    the detriment of our heirs and successors. We intend this dedication to be an
    overt act of relinquishment in perpetuity of all present and future rights to
    this software under copyright law.

    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
    IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
    FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE
    LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
    CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
    SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
