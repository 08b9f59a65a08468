/*  Walks over everything that an engine has and checks that it hangs together: links are symmetric, what is counted is
    there, everything is in the lists, tables and levels where it belongs and in no other. To be included behind the
    implementation of zqbroker.h. Costs time in proportion to what there is. */

#ifndef SIM_WALK_H
#define SIM_WALK_H

typedef struct walk_t {
    zqb__engine_t *engine;
    int all_timers;      /* memory never failed, so each timer that should run does */
    const char *wrong;   /* the first that was found, or NULL */
    uint64_t queued, running, bytes, workers, services, clients, wanted, owned;
    uint64_t delayed, following;
    size_t timers, lives, connections, lanes, numbered, timed, uniques;
    int idle;
    int pinned, hasty, delays; /* of the service at hand */
    int one_way;               /* of the peer */
    size_t users, counted;     /* who uses a user; requests that count for one, or for nobody */
} walk_t;

static void walk_check (walk_t *walk, int holds, const char *what)
{
    if (!holds && !walk->wrong)
        walk->wrong = what;
}

/* How long a list is. Its links are symmetric; an endless one is cut off. */
static size_t walk_list (walk_t *walk, const zqb__link_t *head)
{
    size_t count = 0;
    for (const zqb__link_t *at = head->next; at != head && count < 10000000; at = at->next, count++)
        if (!at || at->next->prev != at || at->prev->next != at) {
            walk_check (walk, 0, "a list: the links are not symmetric");
            break;
        }
    return count;
}

static void walk_timer (walk_t *walk, const zqb__timer_t *timer, int must_run, const char *what)
{
    walk->timers += timer->place != 0;
    walk_check (walk, timer->place <= walk->engine->timers.count, "a timer: it is beyond the heap");
    if (timer->place && timer->place <= walk->engine->timers.count)
        walk_check (walk, walk->engine->timers.timers[timer->place] == timer, "a timer: it is not where it says");
    walk_check (walk, timer->place || !must_run || !walk->all_timers, what);
}

static void walk_heap (walk_t *walk)
{
    const zqb__heap_t *heap = &walk->engine->timers;
    walk_check (walk, heap->count == walk->timers, "the heap: it has timers of nobody");
    for (size_t i = 2; i <= heap->count; i++)
        walk_check (walk, heap->timers[i / 2]->at <= heap->timers[i]->at, "the heap: out of order");
}

static int walk_in_table (const zqb__table_t *table, const zqb__node_t *wanted)
{
    for (const zqb__node_t *node = table->buckets[wanted->hash & (table->size - 1)]; node; node = node->next)
        if (node == wanted)
            return 1;
    return 0;
}

static size_t walk_table (walk_t *walk, const zqb__table_t *table)
{
    size_t count = 0;
    for (size_t i = 0; i < table->size; i++)
        for (const zqb__node_t *node = table->buckets[i]; node; node = node->next, count++)
            walk_check (walk, (node->hash & (table->size - 1)) == i, "a table: a node is in the wrong bucket");
    walk_check (walk, count == table->count, "a table: it has miscounted");
    return count;
}

/* A list has so many, each of them with a place in it that is a request's, in this state. */
static void walk_aside (walk_t *walk, const zqb__link_t *head, size_t count, int aside, const char *what)
{
    walk_check (walk, walk_list (walk, head) == count, what);
    for (const zqb__link_t *at = head->next; at != head && !walk->wrong; at = at->next) {
        const zqb__request_t *request = ZQB__OF (zqb__request_t, place, at);
        walk_check (walk, request->extra && request->extra->aside == aside && !request->worker && request->lane, what);
    }
}

static void walk_followers (walk_t *walk, const zqb__request_t *leader)
{
    const zqb__link_t *head = &leader->extra->followers;
    walk_aside (walk, head, walk_list (walk, head), ZQB__FOLLOWING, "a follower: it follows nobody");
    walk_check (walk, zqb__list_empty (head) || leader->lane, "a leader: nobody wants it, though others follow");
    int joined[ZQB__RANKS] = {0};
    for (const zqb__link_t *at = head->next; at != head && !walk->wrong; at = at->next) {
        const zqb__request_t *follower = ZQB__OF (zqb__request_t, place, at);
        walk_check (walk, follower->extra->leader == leader, "a follower: it follows another");
        joined[follower->lane->rank]++;
    }
    walk_check (walk, memcmp (joined, leader->extra->joined, sizeof joined) == 0,
                "a leader: the ranks of those that follow are miscounted");
}

static void walk_survey (walk_t *walk, const zqb__request_t *survey)
{
    const zqb__link_t *asked = &survey->extra->asked;
    walk_list (walk, asked);
    for (const zqb__link_t *at = asked->next; at != asked && !walk->wrong; at = at->next)
        walk_check (walk, ZQB__OF (zqb__extra_t, of_survey, at)->survey == survey, "a survey: it asks for another's");
    walk_check (walk, survey->extra->aside != ZQB__SURVEYING || !zqb__list_empty (asked),
                "a survey: it waits for nobody");
}

/* Somebody uses a user, or nobody. */
static void walk_user (walk_t *walk, const zqb__user_t *user)
{
    walk->users += user != NULL;
    walk_check (walk, !user || walk_in_table (&walk->engine->users, &user->by_name), "a user: nobody finds him");
}

static void walk_extra (walk_t *walk, const zqb__request_t *request)
{
    const zqb__extra_t *extra = request->extra;
    uint64_t begins = !request->worker && extra->aside == ZQB__DELAYED ? extra->begins : UINT64_MAX;
    int must_run = request->lane && (extra->ends != UINT64_MAX || begins != UINT64_MAX);
    walk_check (walk, extra->request == request, "a request: it has another's extra");
    walk_timer (walk, &extra->timer, must_run, "a request: its time will not come");
    walk_check (walk, !extra->timer.place || extra->timer.at == (extra->ends < begins ? extra->ends : begins),
                "a request: its timer is set for another time");
    walk_check (walk, !extra->timer.place || extra->timed, "a request: its timer is not reserved");
    walk_check (walk, !extra->unique || walk_in_table (&walk->engine->uniques, &extra->by_unique),
                "a request: nobody finds its key");
    walk->timed += (size_t) extra->timed;
    walk->uniques += extra->unique != NULL;
    walk->counted += walk->engine->limits.user_outstanding && request->lane;
    walk_user (walk, extra->user);
    walk_followers (walk, request);
    walk_survey (walk, request);
}

static uint64_t walk_body (const zqb__request_t *request)
{
    zqb__body_t body = zqb__stored_body (&request->body);
    uint64_t bytes = 0;
    zqb__cursor_t cursor = {0, 0};
    zqb__frame_t frame;
    while (zqb__body_next (&body, &cursor, &frame) == 1)
        bytes += frame.size + 4;
    if (request->extra)
        bytes += request->extra->gathered.bytes.size + request->extra->gathered.large_bytes;
    return bytes;
}

/* Each request is met once: in its lane, or, if nobody wants it any more, in the hand of its worker. */
static void walk_request (walk_t *walk, const zqb__request_t *request)
{
    int aside = request->extra && !request->worker ? request->extra->aside : ZQB__QUEUED;
    walk_check (walk, request->slot.generation & 1, "a request: its place in the slab is not in use");
    walk_check (walk, request->worker || request->lane, "a request: it is queued for nobody");
    walk_check (walk, (request->lane == NULL) == (request->fate != ZQB__WANTED),
                "a request: nobody wants it, but somebody waits for it, or the other way round");
    walk_check (walk, zqb__slab_find (&walk->engine->requests, zqb__slot_token (&request->slot)) == request,
                "a request: its token does not find it");
    walk_check (walk, aside == ZQB__SURVEYING || !zqb__list_empty (&request->place), "a request: it is nowhere");
    walk->bytes += walk_body (request);
    walk->wanted += request->lane != NULL;
    walk->queued += !request->worker;
    walk->delayed += aside == ZQB__DELAYED;
    walk->following += aside == ZQB__FOLLOWING;
    if (request->extra)
        walk_extra (walk, request);
}

static uint64_t walk_hand (walk_t *walk, const zqb__worker_t *worker)
{
    uint64_t count = walk_list (walk, &worker->hand);
    for (const zqb__link_t *at = worker->hand.next; at != &worker->hand && !walk->wrong; at = at->next) {
        const zqb__request_t *request = ZQB__OF (zqb__request_t, place, at);
        walk_check (walk, request->worker == worker, "a request: it is in another worker's hand");
        if (!request->lane)
            walk_request (walk, request);
    }
    return count;
}

static int walk_pins (walk_t *walk, const zqb__worker_t *worker)
{
    size_t count = 0;
    for (int rank = 0; rank < ZQB__RANKS; rank++) {
        const zqb__link_t *head = &worker->pins[rank];
        size_t of_rank = walk_list (walk, head);
        walk_aside (walk, head, of_rank, ZQB__PINNED, "a pinned request: in a wrong state");
        walk_check (walk, (of_rank > 0) == (worker->pin_mask >> rank & 1), "a worker: the mask of its pins is wrong");
        for (const zqb__link_t *at = head->next; at != head && !walk->wrong; at = at->next) {
            const zqb__request_t *request = ZQB__OF (zqb__request_t, place, at);
            walk_check (walk, request->extra->pin == worker && request->lane->rank == rank,
                        "a pinned request: of another worker, or another rank");
        }
        count += of_rank;
    }
    walk_check (walk, !count || !zqb__worker_has_room (worker) || walk->engine->paused,
                "a worker: requests wait for it, though it has room");
    walk_check (walk, !count || worker->credit, "a worker: requests wait for it, though it takes none");
    return (int) count;
}

static void walk_slots (walk_t *walk, const zqb__service_t *service)
{
    int taken = 0, owned = 0;
    for (int i = 0; service->slots && i < ZQB__SLOTS && !walk->wrong; i++) {
        taken += service->slots[i] != NULL;
        walk_check (walk, !service->slots[i] || service->slots[i]->service == service, "a slot: another service's");
    }
    for (const zqb__link_t *at = service->workers.next; at != &service->workers; at = at->next)
        owned += ZQB__OF (zqb__worker_t, of_service, at)->slots;
    walk_check (walk, taken == owned, "a service: the slots of its workers are miscounted");
}

static void walk_worker (walk_t *walk, const zqb__service_t *service, zqb__worker_t *worker)
{
    int beats =
        zqb__dialects[worker->peer->dialect[ZQB__WORKER]].heartbeats && walk->engine->limits.heartbeat != UINT64_MAX;
    walk_check (walk, worker->service == service, "a worker: it is in another service's list");
    walk->pinned += walk_pins (walk, worker);
    walk_check (walk, worker->peer->worker == worker, "a worker: its peer has another");
    walk_check (walk, worker->credit > 0 || worker->draining, "a worker: retired, and still there");
    walk_check (walk, worker->adapts || worker->draining || worker->load <= worker->credit,
                "a worker: it holds more than its credit");
    walk_check (walk, walk_hand (walk, worker) == worker->load,
                "a worker: its load is miscounted");
    walk_check (walk, zqb__list_empty (&worker->ready) == !zqb__worker_has_room (worker),
                "a worker: ready without room, or the other way round");
    walk_timer (walk, &worker->timer, beats, "a worker: nobody looks whether it lives");
    walk->running += worker->load;
    walk->workers++;
}

static void walk_ready (walk_t *walk, const zqb__service_t *service)
{
    for (int level = 0; level < ZQB__LEVELS; level++) {
        const zqb__link_t *head = &service->ready[level];
        size_t count = walk_list (walk, head);
        walk_check (walk, (count > 0) == (service->ready_mask >> level & 1),
                    "a service: the mask of its levels is wrong");
        for (const zqb__link_t *at = head->next; at != head && !walk->wrong; at = at->next) {
            const zqb__worker_t *worker = ZQB__OF (zqb__worker_t, ready, at);
            walk_check (walk, worker->service == service && worker->level == level
                                  && (service->policy || zqb__level_of_load (worker->load) == level),
                        "a worker: ready at the wrong level");
        }
    }
    walk_check (walk, !service->queued || !service->ready_mask || walk->engine->paused, "a service: requests wait, though a worker has room");
}

/* How many requests of a lane are queued; they are behind those that run. */
static uint64_t walk_lane (walk_t *walk, const zqb__lane_t *lane)
{
    uint64_t queued = 0;
    int met = 0;
    for (const zqb__link_t *at = lane->requests.next; at != &lane->requests && !walk->wrong; at = at->next) {
        const zqb__request_t *request = ZQB__OF (zqb__request_t, of_lane, at);
        int is_queued = !request->worker && (!request->extra || request->extra->aside == ZQB__QUEUED);
        met |= at == lane->queued;
        queued += (uint64_t) met;
        walk_check (walk, met == is_queued, "a lane: requests that run are not in front of those that are queued");
        walk->hasty += is_queued && request->extra && request->extra->flags & ZQB__FAIL_FAST;
        walk->delays += !request->worker && request->extra && request->extra->aside == ZQB__DELAYED;
        walk_request (walk, request);
    }
    walk_check (walk, met || lane->queued == &lane->requests, "a lane: what is queued is not its own");
    walk_check (walk, zqb__list_empty (&lane->turn) == !queued, "a lane: a turn without requests, or none with some");
    walk_check (walk, walk_in_table (&walk->engine->lanes, &lane->by_ends), "a lane: nobody finds it");
    return queued;
}

static void walk_lanes (walk_t *walk, const zqb__service_t *service)
{
    uint64_t queued = 0;
    size_t with_turns[ZQB__RANKS] = {0};
    walk->lanes += walk_list (walk, &service->lanes);
    for (const zqb__link_t *at = service->lanes.next; at != &service->lanes && !walk->wrong; at = at->next) {
        const zqb__lane_t *lane = ZQB__OF (zqb__lane_t, of_service, at);
        walk_check (walk, lane->service == service, "a lane: it is in another service's list");
        uint64_t of_lane = walk_lane (walk, lane);
        queued += of_lane;
        with_turns[lane->rank] += of_lane > 0;
    }
    walk_check (walk, queued == (uint64_t) service->queued, "a service: its lanes and its queue differ");
    for (int rank = 0; rank < ZQB__RANKS; rank++) {
        walk_check (walk, walk_list (walk, &service->turns[rank]) == with_turns[rank],
                    "a service: turns of lanes of others");
        walk_check (walk, (with_turns[rank] > 0) == (service->turn_mask >> rank & 1),
                    "a service: the mask of its turns is wrong");
    }
}

static void walk_service (walk_t *walk, zqb__service_t *service)
{
    uint64_t before = walk->running;
    int waits = service->queued && !service->worker_count && walk->engine->limits.no_worker != UINT64_MAX;
    walk_check (walk, walk_list (walk, &service->workers) == (size_t) service->worker_count,
                "a service: its workers are miscounted");
    walk->pinned = walk->hasty = walk->delays = 0;
    walk_check (walk, walk_list (walk, &service->queue) == (size_t) service->queued,
                "a service: its queue is miscounted");
    walk_aside (walk, &service->delayed, (size_t) service->delayed_count, ZQB__DELAYED,
                "a service: what is delayed is miscounted, or is not");
    for (zqb__link_t *at = service->workers.next; at != &service->workers && !walk->wrong; at = at->next)
        walk_worker (walk, service, ZQB__OF (zqb__worker_t, of_service, at));
    walk_ready (walk, service);
    walk_slots (walk, service);
    walk_lanes (walk, service);
    walk_check (walk, walk->running - before == (uint64_t) service->running, "a service: what it runs is miscounted");
    walk_check (walk, walk->pinned == service->pinned, "a service: what is pinned is miscounted");
    walk_check (walk, (size_t) walk->hasty == walk_list (walk, &service->hasty), "a service: what does not wait is miscounted");
    walk_check (walk, walk->delays == service->delayed_count, "a service: a delayed request is not in its list");
    walk_check (walk, service->queued || service->delayed_count || service->worker_count || service->handler
                          || zqb__service_is_set_up (service),
                "a service: it has nothing, and is not forgotten");
    walk_check (walk, !service->handler || !service->worker_count, "a service: it has a handler and workers");
    walk_check (walk, !service->handler || !service->queued, "a service: requests wait, though it has a handler");
    walk_check (walk, walk_in_table (&walk->engine->services, &service->by_name), "a service: nobody finds it");
    walk_timer (walk, &service->timer, waits, "a service: its requests wait for ever");
    if (service->watch)
        walk_timer (walk, &service->watch->timer, 1, "a service: nobody looks how many workers it should have");
    walk_check (walk, !service->watch || service->watch->service == service, "a service: it watches another");
    walk->services++;
}

/* The requests of a client in one of its lanes: how many. */
static size_t walk_lane_of_client (walk_t *walk, const zqb__peer_t *peer, const zqb__lane_t *lane)
{
    const zqb__engine_t *engine = walk->engine;
    size_t count = walk_list (walk, &lane->requests);
    walk_check (walk, lane->client == peer, "a lane: it is in another client's list");
    walk_check (walk, count || peer->lane == lane, "a lane: empty, and not the last that was used");
    for (const zqb__link_t *at = lane->requests.next; at != &lane->requests && !walk->wrong; at = at->next) {
        const zqb__request_t *request = ZQB__OF (zqb__request_t, of_lane, at);
        walk_check (walk, request->lane == lane, "a request: it is in another lane");
        int numbered = request->extra && request->extra->numbered, flags = request->extra ? request->extra->flags : 0;
        walk->one_way += (flags & ZQB__ONE_WAY) != 0;
        int is_asked = request->extra && request->extra->survey;
        walk_check (walk, numbered || !peer->numbered || flags & ZQB__ONE_WAY || is_asked,
                    "a request: it has no number, though its client has numbered them");
        walk_check (walk, !numbered || walk_in_table (&engine->ids, &request->extra->by_id),
                    "a request: nobody finds its number");
        walk->numbered += (size_t) numbered;
    }
    return count;
}

/* The requests of a client: how many. */
static size_t walk_lanes_of_client (walk_t *walk, const zqb__peer_t *peer)
{
    size_t count = 0;
    walk_list (walk, &peer->lanes);
    walk->one_way = 0;
    for (const zqb__link_t *at = peer->lanes.next; at != &peer->lanes && !walk->wrong; at = at->next)
        count += walk_lane_of_client (walk, peer, ZQB__OF (zqb__lane_t, of_client, at));
    walk->owned += count;
    return count;
}

static void walk_peer (walk_t *walk, zqb__peer_t *peer)
{
    const zqb__engine_t *engine = walk->engine;
    size_t count = walk_lanes_of_client (walk, peer);
    walk_check (walk, walk->one_way == peer->one_way, "a peer: its one-way requests are miscounted");
    int purpose = peer->worker || count || !zqb__list_empty (&peer->dirty);
    walk_check (walk, count == (size_t) peer->outstanding, "a peer: what it waits for is miscounted");
    walk_check (walk, !peer->worker || peer->worker->peer == peer, "a peer: it has another's worker");
    walk_check (walk, zqb__list_empty (&peer->failed), "a peer: it failed, and was not buried");
    walk_check (walk, zqb__list_empty (&peer->idle) == purpose,
                "a peer: idle though it has a purpose, or the other way round");
    walk_check (walk, !peer->life || walk_in_table (&engine->lives, &peer->by_life), "a peer: nobody finds its life");
    walk_check (walk, !peer->connection || walk_in_table (&engine->connections, &peer->connection->by_number),
                "a peer: nobody finds its connection");
    walk_timer (walk, &peer->timer, 0, "");
    walk_user (walk, peer->user);
    walk->counted -= peer->quota.outstanding;
    walk_check (walk, !peer->user || !peer->quota.outstanding, "a peer: what is a user's is counted for nobody");
    walk->clients += count > 0;
    walk->lives += peer->life != 0;
    walk->connections += peer->connection && peer->connection->peers.next == &peer->of_connection;
    walk->idle += !zqb__list_empty (&peer->idle);
}

static void walk_peers (walk_t *walk)
{
    zqb__engine_t *engine = walk->engine;
    for (size_t i = 0; i < engine->peers.size; i++)
        for (zqb__node_t *node = engine->peers.buckets[i]; node && !walk->wrong; node = node->next)
            walk_peer (walk, ZQB__OF (zqb__peer_t, by_address, node));
    size_t nobodys = walk_lanes_of_client (walk, &engine->nobody);
    walk_check (walk, nobodys == (size_t) walk->one_way, "somebody's request is nobody's");
    walk_check (walk, nobodys + 1 == (size_t) engine->nobody.outstanding, "what is nobody's is miscounted");
    walk_check (walk, walk->idle == engine->idle_count && walk_list (walk, &engine->idle_peers) == (size_t) walk->idle
                          && walk->idle <= 2 * ZQB__IDLE_PEERS, "the idle peers are miscounted");
}

/* Behind all others: each user is used as often as he says, and all that is counted for somebody is. */
static void walk_users (walk_t *walk)
{
    const zqb__table_t *users = &walk->engine->users;
    for (size_t i = 0; i < users->size; i++)
        for (zqb__node_t *node = users->buckets[i]; node && !walk->wrong; node = node->next) {
            const zqb__user_t *user = ZQB__OF (zqb__user_t, by_name, node);
            walk_check (walk, user->users > 0, "a user: nobody uses him, and he is not forgotten");
            walk->users -= user->users;
            walk->counted -= user->quota.outstanding;
            walk_check (walk, user->quota.outstanding <= walk->engine->limits.user_outstanding,
                        "a user: he has more requests than he may");
        }
    walk->counted -= walk->engine->nobody.quota.outstanding;
    walk_check (walk, !walk->users, "the users: who uses them is miscounted");
    walk_check (walk, !walk->counted, "the users: their requests are miscounted");
}

static void walk_totals (walk_t *walk)
{
    const zqb_stats_t *stats = &walk->engine->stats;
    walk_check (walk, stats->queued == walk->queued && stats->running == walk->running,
                "the counters: queued or running");
    walk_check (walk, stats->delayed == walk->delayed && stats->following == walk->following,
                "the counters: delayed or following");
    walk_check (walk, stats->bytes == walk->bytes, "the counters: bytes");
    walk_check (walk, stats->workers == walk->workers && stats->services == walk->services,
                "the counters: workers or services");
    walk_check (walk, stats->clients == walk->clients && walk->owned == walk->wanted, "the counters: clients");
    walk_check (walk, zqb__list_empty (&walk->engine->failed_peers), "a peer that failed was not buried");
}

/* Each place in the slab is used by a request, or is among the unused. */
static void walk_slab (walk_t *walk)
{
    const zqb__slab_t *slab = &walk->engine->requests;
    size_t places = slab->chunk_count * ZQB__SLAB_CHUNK, used = 0, unused = 0;
    for (size_t i = 0; i < places; i++)
        used += zqb__slab_at (slab, i)->generation & 1;
    for (const zqb__unused_t *at = slab->unused; at && unused <= places; at = at->next)
        unused++;
    walk_check (walk, used == walk->queued + walk->running, "the slab: a place is used by nobody");
    walk_check (walk, used + unused == places, "the slab: a place is lost");
}

/* NULL, or what is wrong. */
static const char *walk_engine (zqb__engine_t *engine, int all_timers)
{
    walk_t walk;
    zqb__link_t *services = &engine->all_services;
    memset (&walk, 0, sizeof walk);
    walk.engine = engine;
    walk.all_timers = all_timers;
    walk_list (&walk, services);
    for (zqb__link_t *at = services->next; at != services && !walk.wrong; at = at->next)
        walk_service (&walk, ZQB__OF (zqb__service_t, all, at));
    walk_check (&walk, walk_table (&walk, &engine->services) == walk.services, "the services: table and list differ");
    walk_table (&walk, &engine->peers);
    walk_peers (&walk);
    walk_check (&walk, walk_table (&walk, &engine->lives) == walk.lives, "the lives are miscounted");
    walk_check (&walk, walk_table (&walk, &engine->connections) == walk.connections, "the connections are miscounted");
    walk_check (&walk, walk_table (&walk, &engine->lanes) == walk.lanes, "the lanes are miscounted");
    walk_check (&walk, walk_table (&walk, &engine->ids) == walk.numbered, "the numbers are miscounted");
    walk_check (&walk, walk_table (&walk, &engine->uniques) == walk.uniques, "the keys are miscounted");
    walk_check (&walk, walk.timed == engine->timed, "the timers of requests are miscounted");
    walk_table (&walk, &engine->users);
    walk_users (&walk);
    walk_totals (&walk);
    walk_slab (&walk);
    walk_heap (&walk);
    return walk.wrong;
}

#endif
