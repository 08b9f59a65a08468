#!/usr/bin/python3
"""A small Majordomo broker in Python: RFC 7 and RFC 18 on one ROUTER, with mmi.service of RFC 8.

The other broker that our worker and our client must get on with. It does what the RFCs say and nothing else: one
request a worker, least recently used first, heartbeats both ways, DISCONNECT to a worker that it does not know.

    broker.py [--bind ENDPOINT] [--heartbeat MS]        prints "bound ENDPOINT", then "ready"
"""

import argparse
import collections
import time

import zmq

from peers import (DISCONNECT, HEARTBEAT, MDP01_NUMBERS, MDP02_NUMBERS, MDPC01, MDPC02, MDPW01, MDPW02, PARTIAL, READY,
                   REPLY, REQUEST)

LIVENESS = 3
COMMANDS = {MDPW01: MDP01_NUMBERS, MDPW02: MDP02_NUMBERS}
LEADING = {MDPW01: [b""], MDPW02: [], MDPC01: [b""], MDPC02: []}

Request = collections.namedtuple("Request", "client header service body parts")


class Worker:
    """A registered worker, and the request that it works on."""

    def __init__(self, address, header, service):
        self.address, self.header, self.service = address, header, service
        self.request, self.expiry = None, 0


class Broker:
    """Queues and idle workers by service; workers by address."""

    def __init__(self, endpoint, heartbeat_ms):
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.bind(endpoint)
        self.heartbeat = heartbeat_ms / 1000
        self.next_heartbeat = time.monotonic() + self.heartbeat
        self.workers = {}
        self.queues = collections.defaultdict(collections.deque)
        self.idle = collections.defaultdict(collections.deque)      # the one that waited longest is first

    def run(self):
        while True:
            wait = max(0, self.next_heartbeat - time.monotonic())
            if self.socket.poll(wait * 1000):
                self.take(self.socket.recv_multipart())
            if time.monotonic() >= self.next_heartbeat:
                self.keep_alive()

    def take(self, frames):
        """RFC 7 has an empty frame behind the address, RFC 18 has none."""
        address, rest = frames[0], frames[1:]
        if rest and rest[0] == b"":
            rest = rest[1:]
        if rest and rest[0] in (MDPC01, MDPC02):
            self.take_from_client(address, rest[0], rest[1:])
        elif len(rest) > 1 and rest[0] in COMMANDS:
            self.take_from_worker(address, rest[0], rest[1], rest[2:])

    # clients

    def take_from_client(self, client, header, rest):
        if header == MDPC02:
            if rest[:1] != [b"\1"]:
                return
            rest = rest[1:]
        if len(rest) < 2:
            return
        request = Request(client, header, rest[0], rest[1:], [])
        if request.service.startswith(b"mmi."):
            self.answer(request, [self.mmi(request)])
        else:
            self.queues[request.service].append(request)
            self.dispatch(request.service)

    def mmi(self, request):
        """RFC 8."""
        if request.service != b"mmi.service":
            return b"501"
        known = any(worker.service == request.body[-1] for worker in self.workers.values())
        return b"200" if known else b"404"

    def answer(self, request, body, final=True):
        """RFC 18 has partial replies; for RFC 7 they wait for the last."""
        head = LEADING[request.header] + [request.header]
        if request.header == MDPC02:
            self.send(request.client, head + [b"\3" if final else b"\2", request.service] + body)
        elif final:
            self.send(request.client, head + [request.service] + request.parts + body)
        else:
            request.parts.extend(body)

    # workers

    def take_from_worker(self, address, header, command, rest):
        worker = self.workers.get(address)
        kind = next((kind for kind, number in COMMANDS[header].items() if number == command), None)
        if kind == READY and worker is None and len(rest) == 1:
            worker = self.workers[address] = Worker(address, header, rest[0])
            self.wait(worker)
        elif worker is None or kind in (None, READY, REQUEST):
            self.dismiss(address, header)       # RFC 7: any other command than READY comes first, or twice
        elif kind in (REPLY, PARTIAL):
            self.reply(worker, rest, kind == REPLY)
        elif kind == DISCONNECT:
            self.forget(worker)
        if address in self.workers:
            worker.expiry = time.monotonic() + LIVENESS * self.heartbeat

    def reply(self, worker, rest, final):
        """RFC 7: the client's address, an empty frame, the body. Anything else is a broken worker."""
        request = worker.request
        if request is None or len(rest) < 3 or rest[0] != request.client or rest[1] != b"":
            self.dismiss(worker.address, worker.header)
            return
        self.answer(request, rest[2:], final)
        if final:
            self.wait(worker)

    def wait(self, worker):
        worker.request = None
        self.idle[worker.service].append(worker)
        self.dispatch(worker.service)

    def dismiss(self, address, header):
        self.command(address, header, DISCONNECT)
        if address in self.workers:
            self.forget(self.workers[address])

    def forget(self, worker):
        """What it worked on goes back to the head of the queue."""
        del self.workers[worker.address]
        if worker.request:
            self.queues[worker.service].appendleft(worker.request)
            self.dispatch(worker.service)
        else:
            self.idle[worker.service].remove(worker)

    # both

    def dispatch(self, service):
        while self.queues[service] and self.idle[service]:
            worker, request = self.idle[service].popleft(), self.queues[service].popleft()
            request.parts.clear()
            worker.request = request
            self.command(worker.address, worker.header, REQUEST, [request.client, b""] + request.body)

    def keep_alive(self):
        now = time.monotonic()
        late = now - self.next_heartbeat    # who stood still, as his machine may have, has not heard what was said
        self.next_heartbeat = now + self.heartbeat
        for worker in list(self.workers.values()):
            worker.expiry += late
            if worker.request is None and now > worker.expiry:
                self.forget(worker)
            else:
                self.command(worker.address, worker.header, HEARTBEAT)

    def command(self, address, header, kind, frames=()):
        self.send(address, LEADING[header] + [header, COMMANDS[header][kind]] + list(frames))

    def send(self, address, frames):
        self.socket.send_multipart([address] + frames)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bind", default="tcp://127.0.0.1:*")
    parser.add_argument("--heartbeat", type=int, default=2500)
    options = parser.parse_args()
    broker = Broker(options.bind, options.heartbeat)
    print("bound " + broker.socket.getsockopt_string(zmq.LAST_ENDPOINT), "ready", sep="\n", flush=True)
    try:
        broker.run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
