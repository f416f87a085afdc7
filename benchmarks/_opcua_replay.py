"""An OPC UA server that can offer more than a Python server can: asyncua's for the session, its notifications from one precompiled layout.

`python -m benchmarks._opcua_replay ITEMS PERIOD`: so many variables of type double, which all take a new value and a new source time once a
period (seconds). At tick k each of them is `k`. A tick that finds no PublishRequest waits for one; ten may wait, as in a queue of ten
values, and what is older is lost and counted. Prints its endpoint as JSON when it is ready; answers `hold` by standing still and telling,
by subscription, the last tick, how many items it has and how many ticks were lost. Ends when its input closes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import struct
import sys
import threading
import time
from collections import deque
from typing import Any

from asyncua import Server, ua
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.uaprocessor import UaProcessor

from benchmarks._processes import HOST, free_port

NAMESPACE = "urn:example:replay"
_QUEUE = 10
_FOLDER = 200
_QUIET = 4.0
"""Seconds without a new item after which a subscription's stream begins."""
_TICKS_1970 = 116_444_736_000_000_000
_ITEM = "IBBdqq"
"""Client handle, the masks of DataValue (value, source and server time) and Variant (double), value, the two times."""
_SERVICE_FAULTLESS = struct.Struct("<BBHqIIBiBBB")
"""TypeId of PublishResponse, and a ResponseHeader: time, handle, Good, no diagnostics, no strings, no additional header."""


def node(variable: int) -> str:
    """The name of a variable, the string of its NodeId."""
    return f"v{variable}"


class Stream:
    """One client's subscription: its items, what waits for a PublishRequest, and what was lost."""

    def __init__(self, subscription: Any) -> None:
        self.subscription = subscription
        self.handles: list[int] = []
        self.waiting: deque[tuple[int, int]] = deque()
        self.lost = self.tick = 0
        self.added = math.inf
        self._layout = struct.Struct("<")
        self._fields: list[Any] = []

    def add(self, handles: list[int]) -> None:
        self.added = asyncio.get_running_loop().time()
        self.handles += handles
        self._fields = [field for handle in self.handles for field in (handle, 0x0D, 11, 0.0, 0, 0)]
        self._layout = struct.Struct("<" + _ITEM * len(self.handles))

    def ticked(self, tick: int, at: int) -> None:
        """A new value of every item, sourced at `at` (100 ns since 1601)."""
        self.tick = tick
        if len(self.waiting) == _QUEUE:
            self.waiting.popleft()
            self.lost += 1
        self.waiting.append((tick, at))

    def flush(self) -> None:
        """Answers as many PublishRequests as there are."""
        subscription = self.subscription
        while self.waiting:
            request = subscription.pub_request_callback(subscription.data.SubscriptionId)
            if request is None:
                return
            self._answer(request, *self.waiting.popleft())

    def _answer(self, request: Any, tick: int, at: int) -> None:
        fields, count = self._fields, len(self.handles)
        fields[3::6] = [float(tick)] * count
        fields[4::6] = fields[5::6] = [at] * count
        items = self._layout.pack(*fields)
        subscription = self.subscription
        sequence, subscription._notification_seq = subscription._notification_seq, subscription._notification_seq + 1
        results = [int(result.value) for result in request.results or ()]
        body = b"".join((
            _SERVICE_FAULTLESS.pack(1, 0, 829, at, request.requesthdr.RequestHandle, 0, 0, 0, 0, 0, 0),
            struct.pack("<IiI?Iqi", subscription.data.SubscriptionId, 1, sequence, False, sequence, at, 1),
            struct.pack("<BBHBii", 1, 0, 811, 1, len(items) + 8, count), items, struct.pack("<i", 0),
            struct.pack(f"<i{len(results)}Ii", len(results), *results, 0),
        ))  # fmt: skip
        processor: Any = subscription.pub_request_callback.__self__
        kind = ua.MessageType.SecureMessage
        processor._transport.write(
            processor._connection.message_to_binary(body, message_type=kind, request_id=request.seqhdr.RequestId)
        )


async def serve(items: int, period: float) -> None:
    """Until the input closes."""
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    server = Server()
    await server.init()
    endpoint = f"opc.tcp://{HOST}:{free_port()}/replay"
    server.set_endpoint(endpoint)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    folder = server.nodes.objects
    for v in range(items):
        if v % _FOLDER == 0:  # adding to a folder takes asyncua the longer, the more is in it
            folder = await server.nodes.objects.add_folder(ua.NodeId(f"m{v}", index), f"{index}:m{v}")
        await folder.add_variable(ua.NodeId(node(v), index), f"{index}:{node(v)}", 0.0)
    streams: dict[int, Stream] = {}
    service = server.iserver.subscription_service
    create, publish = service.create_monitored_items, InternalSubscription.publish_results
    processes = UaProcessor._process_message

    async def create_items(params: Any) -> Any:
        results = await create(params)
        number = params.SubscriptionId
        stream = streams.setdefault(number, Stream(service.subscriptions[number]))
        stream.add([item.RequestedParameters.ClientHandle for item in params.ItemsToCreate])
        return results

    async def publish_results(self: Any, requestdata: Any = None) -> Any:
        """Initial values and keep-alives are asyncua's, until the first tick."""
        stream = streams.get(self.data.SubscriptionId)
        if stream is None or not stream.tick:
            return await publish(self, requestdata)
        return False

    async def process(self: Any, typeid: Any, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        answer = await processes(self, typeid, requesthdr, seqhdr, body)
        if typeid.Identifier == ua.ObjectIds.PublishRequest_Encoding_DefaultBinary:
            for stream in streams.values():
                stream.flush()
        return answer

    service.create_monitored_items = create_items
    InternalSubscription.publish_results = publish_results
    UaProcessor._process_message = process
    held, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def run() -> None:
        tick, due = 0, loop.time()
        while not held.is_set():
            due += period
            await asyncio.sleep(max(0.0, due - loop.time()))
            at = time.time_ns() // 100 + _TICKS_1970
            tick += 1
            for number, stream in list(streams.items()):
                if number not in service.subscriptions:
                    del streams[number]
                    continue
                if stream.tick or loop.time() - stream.added > _QUIET:  # so that the initial values are through
                    stream.ticked(tick, at)
                    stream.flush()

    async def hold() -> None:
        held.set()
        await ticking
        await asyncio.sleep(20 * period)
        told = [[s.tick, len(s.handles), s.lost + len(s.waiting)] for s in streams.values()]
        print(json.dumps({"streams": told}), flush=True)

    def listen() -> None:
        for _ in sys.stdin:
            asyncio.run_coroutine_threadsafe(hold(), loop)
        loop.call_soon_threadsafe(over.set)

    async with server:
        ticking = asyncio.create_task(run())
        print(json.dumps({"endpoint": endpoint}), flush=True)
        threading.Thread(target=listen, daemon=True).start()
        await over.wait()
        ticking.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
