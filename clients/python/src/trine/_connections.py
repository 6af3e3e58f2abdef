"""Blocking connections to one server, kept open between requests; any number of threads may use them."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import weakref
from types import TracebackType
from typing import Optional

from ._http1 import Request, Response
from ._server import Server
from .errors import NoConnection, ServerSilent, ServerUnreachable

RECEIVE = 1 << 18  # bytes at once
MOST_IDLE = 16  # connections that are kept


class Connection:
    """One connection; it carries one request at a time."""

    def __init__(self, server: Server, tls: Optional[ssl.SSLContext], timeout: float) -> None:
        try:
            plain = socket.create_connection((server.host, server.port), timeout)
        except OSError as error:
            raise NoConnection(f"no connection to {server.host}:{server.port}: {error}") from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname=server.host)
        except OSError as error:
            plain.close()
            raise NoConnection(f"no secure connection to {server.host}:{server.port}: {error}") from error

    def send(self, data: bytes, timeout: float) -> None:
        try:
            self.socket.settimeout(timeout)
            self.socket.sendall(data)
        except OSError as error:
            raise ServerUnreachable(f"the connection to the server broke: {error}") from error

    def more(self, response: Response) -> None:
        """Takes in what comes next of an answer."""
        try:
            data = self.socket.recv(RECEIVE)
        except socket.timeout as error:  # a TimeoutError since Python 3.10
            raise ServerSilent("the server was silent for too long") from error
        except OSError as error:
            raise ServerUnreachable(f"the connection to the server broke: {error}") from error
        response.feed(data)
        if not data and not response.complete:
            raise ServerUnreachable("the server hung up before its answer was whole")

    def alive(self) -> bool:
        """Whether it seems that the server has not hung up meanwhile: between requests nothing should come."""
        try:
            return not select.select([self.socket], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def abort(self) -> None:
        """Wakes a thread that waits for this connection; that thread closes it."""
        with contextlib.suppress(OSError):  # it may have just ended by itself
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # of the socket below, if it is a secure one

    def close(self) -> None:
        self.socket.close()


class Stream:
    """An answer whose end is not waited for."""

    def __init__(self, connection: Connection, response: Response) -> None:
        self.connection = connection
        self.response = response

    def read(self) -> bytes:
        """What has come of the body since the last time; waits if there is nothing. Empty at the end."""
        response = self.response
        while not (data := response.take()):
            if response.complete:
                return b""
            self.connection.more(response)
        return data

    def abort(self) -> None:
        """Makes a `read` in another thread end."""
        self.connection.abort()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], traceback: Optional[TracebackType]) -> None:
        self.connection.close()


class Connections:
    """The connections to a server. `timeout` is how long it may be silent, in seconds."""

    def __init__(self, server: Server, timeout: float, tls: Optional[ssl.SSLContext] = None) -> None:
        self.server = server
        self.timeout = timeout
        self._tls = server.context(tls)
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        _all.add(self)

    def request(self, request: Request) -> Response:
        """The whole answer to a request."""
        data = request.encoded(self.server)
        timeout = self.timeout + request.patience
        kept = self._kept()
        if kept is not None:
            try:
                return self._exchange(kept, request, data, timeout)
            except ServerUnreachable as error:
                # One that was silent has had its time, and may have done it; one that hung up may only have closed what was old.
                if isinstance(error, ServerSilent) or not request.repeats:
                    raise
        try:
            connection = Connection(self.server, self._tls, self.timeout)
        except NoConnection as error:
            if kept is None:
                raise
            raise ServerUnreachable(*error.args) from error  # by the other one it may have arrived
        return self._exchange(connection, request, data, timeout)

    def stream(self, request: Request, silence: float) -> Stream:
        """An answer as it comes, on a connection of its own; `silence` is how long it may pause, in seconds."""
        connection = Connection(self.server, self._tls, self.timeout)
        response = Response(request.method)
        try:
            connection.send(request.encoded(self.server), self.timeout)
            while not response.status or (response.status >= 300 and not response.complete):
                connection.more(response)
            connection.socket.settimeout(silence)
        except BaseException:
            connection.close()
            raise
        if response.status >= 300:
            connection.close()
            response.result()
        return Stream(connection, response)

    def close(self) -> None:
        """Closes what is not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def forked(self) -> None:
        """In a new process: the old one goes on with these connections, and would read the answers of this one."""
        self._lock = threading.Lock()  # somebody there may have held it
        self.close()

    def _kept(self) -> Optional[Connection]:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.alive():
                return connection
            connection.close()

    def _exchange(self, connection: Connection, request: Request, data: bytes, timeout: float) -> Response:
        response = Response(request.method)
        try:
            with contextlib.suppress(ServerUnreachable):  # its answer may say why it took no more
                connection.send(data, timeout)
            while not response.complete:
                connection.more(response)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if response.reusable and len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
                return response
        connection.close()
        return response


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _after_fork() -> None:
    for connections in list(_all):
        connections.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
