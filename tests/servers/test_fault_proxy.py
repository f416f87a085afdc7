"""The proxy that breaks links, between plain sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers.fault_proxy import FaultProxy
from tests.servers.processes import HOST, free_port
from tests.servers.waiting import eventually


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends everything back and ends when its client does."""
    listener = socket.create_server((HOST, 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=answer, args=(connection,)))
            threads[-1].start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except ConnectionError:
                return

    server = threading.Thread(target=serve)
    server.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in [server, *threads]:
        thread.join(5)
        assert not thread.is_alive(), "the proxy left a connection to its target open"


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        more = connection.recv(65_536)
        if not more:
            break
        answer += more
    return answer


@pytest.fixture
def proxy(echo: int, fault_proxy: Callable[..., FaultProxy]) -> Iterator[FaultProxy]:
    made = fault_proxy(echo)
    yield made
    made.close()  # before the echo server looks for connections that were left


def test_the_proxy_forwards_and_counts(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4096
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += connection.recv(65_536)
        sender.join()
        assert received == data
        assert proxy.active == 1
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the end of the stream goes through"
    eventually(lambda: proxy.active == 0)
    assert (proxy.connections, proxy.bytes_up, proxy.bytes_down) == (1, len(data), len(data))


def test_a_cut_resets_what_is_open_and_nothing_else(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert proxy.active == 0
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"two") == b"two"
    assert proxy.connections == 2


def test_a_half_open_link_is_silent_and_delivers_late(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.half_open()
        with socket.create_connection((HOST, proxy.port), timeout=0.2) as late:
            for silent in (connection, late):
                silent.settimeout(0.2)
                silent.sendall(b"two")
                with pytest.raises(TimeoutError):
                    silent.recv(1)
            proxy.restore()
            for restored in (connection, late):
                restored.settimeout(5)
                assert restored.recv(3) == b"two"


def test_a_half_open_link_can_be_cut(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.half_open()
        connection.sendall(b"lost")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_refusing_proxy_keeps_what_is_open(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, proxy.port), timeout=5)
        assert ask(connection, b"two") == b"two"
        proxy.restore()
        with socket.create_connection((HOST, proxy.port), timeout=5) as again:
            assert ask(again, b"three") == b"three"


def test_a_delay_keeps_the_order_and_is_at_least_what_was_asked(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        proxy.delay(0.1)
        started = time.monotonic()
        assert ask(connection, b"one") == b"one"
        assert time.monotonic() - started >= 0.2, "there and back"
        connection.sendall(b"slow ")
        eventually(lambda: proxy.bytes_up >= 8)
        proxy.delay(0)
        connection.sendall(b"fast ")
        got = b""
        while len(got) < 10:  # in one piece or in two
            got += (piece := connection.recv(10))
            assert piece, "the connection ended"
        assert got == b"slow fast "


def test_a_target_that_refuses_is_an_ended_connection(fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(free_port())
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    eventually(lambda: proxy.active == 0)


async def test_the_proxy_serves_a_test_that_has_a_loop_of_its_own(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


def test_a_slow_line_delivers_a_little_at_a_time_and_all_at_once_when_it_is_over(proxy: FaultProxy) -> None:
    data = bytes(200)
    with socket.create_connection((HOST, proxy.port), timeout=10) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.rate(20)  # ten seconds for all of it, and as long for the way back
        connection.sendall(data)
        first = connection.recv(1000)
        assert 0 < len(first) < len(data)
        proxy.restore()
        received = first
        while len(received) < len(data):
            received += connection.recv(1000)
        assert received == data


def test_what_a_client_had_sent_is_forgotten_with_it_where_that_is_asked_for(proxy: FaultProxy) -> None:
    proxy.forgets = True
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.half_open()
        connection.sendall(b"given up")
    eventually(lambda: proxy.active == 0)
    proxy.restore()
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"two") == b"two"
    assert proxy.bytes_up == 6
