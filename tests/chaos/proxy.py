"""A TCP proxy in front of a broker, which does to connections what networks do."""
import asyncio
import socket
import struct

CHUNK = 65536
GREETING = 64  # bytes of ZMTP before the first frame


class Framing:
    """Follows one direction of a ZMTP connection, so as to know where a message ends."""

    def __init__(self):
        self.skip, self.more, self.head = GREETING, False, b""

    def feed(self, data):
        at = 0
        while at < len(data):
            if self.skip:
                step = min(self.skip, len(data) - at)
                self.skip -= step
                at += step
                continue
            wanted = 9 if self.head and self.head[0] & 2 else 2
            step = min(wanted - len(self.head), len(data) - at) if self.head else 1
            self.head += data[at:at + step]
            at += step
            flags = self.head[0]
            if len(self.head) == (9 if flags & 2 else 2):
                self.skip = struct.unpack(">Q", self.head[1:])[0] if flags & 2 else self.head[1]
                self.more, self.head = bool(flags & 1), b""

    def between_messages(self):
        return not self.skip and not self.head and not self.more


class Link:
    """A connection of a peer, and the one that it stands for with the broker."""

    def __init__(self, proxy):
        self.proxy, self.hold_until, self.black, self.ghost = proxy, 0.0, False, False
        self.writers, self.framing, self.junk = [None, None], [Framing(), Framing()], [None, None]

    async def run(self, reader, writer):
        self.writers[0] = writer
        try:
            if self.proxy.refusing:
                if self.proxy.turned_away is not None:
                    self.proxy.turned_away.put_nowait(self)
                return
            there, self.writers[1] = await asyncio.open_connection("127.0.0.1", self.proxy.broker_port, limit=CHUNK)
            for one in self.writers:
                one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(self.pump(reader, 1), self.pump(there, 0))
        except OSError:
            pass
        finally:
            self.cut()

    async def pump(self, reader, to):
        """From the peer to the broker (to is 1), or back (0), until either ends."""
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(CHUNK):
                while (wait := self.hold_until - loop.time()) > 0:
                    await asyncio.sleep(wait)
                writer = self.writers[to]
                if self.black or writer is None or writer.is_closing():
                    continue
                self.framing[to].feed(data)
                writer.write(data)
                await writer.drain()
                if self.junk[to] and self.garble(to, self.junk[to]):
                    break
        except OSError:
            pass
        if not self.ghost:
            self.cut()

    def cut(self, reset=False):
        for writer in self.writers:
            if writer is None or writer.is_closing():
                continue
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def haunt(self):
        """The peer's connection ends, and the broker's stays: the peer comes back while it seems to be there still."""
        self.ghost = True
        self.writers[0].transport.abort()

    def garble(self, to, junk):
        """Behind a whole message comes something else, and then nothing more. False: not yet."""
        if not self.framing[to].between_messages():
            self.junk[to] = junk
            return False
        self.writers[to].write(junk)
        asyncio.get_running_loop().call_later(0.01, self.cut)
        return True


class Proxy:
    """One peer's way to the broker."""

    def __init__(self, broker_port):
        self.broker_port, self.refusing, self.links, self.server, self.port = broker_port, False, set(), None, 0
        self.turned_away = None  # or a queue, to be told of each connection that was refused

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        link = Link(self)
        self.links.add(link)
        try:
            await link.run(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self.links.discard(link)

    def whole(self):
        """The connections that can be disturbed."""
        return [link for link in self.links if all(link.writers) and not link.ghost]

    def stop(self):
        if self.server:
            self.server.close()
        for link in list(self.links):
            link.cut()

    # ---- what can be done to it, as the dice want it; each returns when it is over, or at once if there is no connection

    async def cut(self, dice):
        reset = dice.random() < 0.5
        for link in self.whole():
            link.cut(reset)

    async def refuse(self, dice):
        self.refusing = True
        await self.cut(dice)
        await asyncio.sleep(dice.uniform(0.05, 1.0))
        self.refusing = False

    async def delay(self, dice):
        spans = [dice.choice((0.01, 0.1, 0.5)) * dice.uniform(0.5, 1.5) for _ in range(3)]
        for span in spans:
            for link in self.whole():
                link.hold_until = asyncio.get_running_loop().time() + span
            await asyncio.sleep(span)

    async def drop(self, dice):
        """All that is sent is lost, then the connection."""
        links = self.whole()
        for link in links:
            link.black = True
        await asyncio.sleep(dice.uniform(0.05, 1.5))
        for link in links:
            link.cut()

    async def double(self, dice):
        links = self.whole()
        for link in links:
            link.haunt()
        await asyncio.sleep(dice.uniform(0.05, 1.5))
        for link in links:
            link.cut()

    async def garble(self, dice):
        to, junk = dice.randrange(2), dice.randbytes(dice.choice((1, 9, 30, 250)))
        if dice.random() < 0.7:  # at least a frame of ZMTP, or even the beginning of a message of ZQB/1
            junk = dice.choice((b"", b"ZQB\1")) + junk
            junk = bytes((0, len(junk))) + junk
        for link in self.whole():
            link.garble(to, junk)
        await asyncio.sleep(0.05)
        for link in self.whole():
            link.junk = [None, None]
