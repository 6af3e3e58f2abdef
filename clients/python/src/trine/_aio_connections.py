"""Connections to one server for asyncio, as `_connections` has them for threads.

Each is used on the event loop that it was made on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from types import TracebackType
from typing import Optional

from ._http1 import Request, Response
from ._server import Server
from .errors import NoConnection, ServerSilent, ServerUnreachable

RECEIVE = 1 << 18  # bytes at once
MOST_IDLE = 16  # connections that are kept


class Connection:
    """One connection; it carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader = reader
        self.writer = writer
        self.silent = False  # the server was, for too long

    @classmethod
    async def open(cls, server: Server, tls: Optional[ssl.SSLContext], timeout: float) -> Connection:
        opening = asyncio.ensure_future(asyncio.open_connection(server.host, server.port, ssl=tls, limit=RECEIVE))
        try:
            # `asyncio.wait_for` would do, but until Python 3.12 it can lose that its task is cancelled.
            await asyncio.wait({opening}, timeout=timeout)
        except BaseException:
            opening.add_done_callback(_close_opened)
            opening.cancel()
            raise
        if not opening.done():
            opening.cancel()
            raise NoConnection(f"no connection to {server.host}:{server.port}: it took too long")
        try:
            return cls(*opening.result())
        except OSError as error:
            raise NoConnection(f"no connection to {server.host}:{server.port}: {error}") from error

    async def send(self, data: bytes, timeout: float) -> None:
        with self._until(timeout):
            self.writer.write(data)
            await self.writer.drain()

    async def more(self, response: Response, timeout: float) -> None:
        """Takes in what comes next of an answer."""
        with self._until(timeout):
            data = await self.reader.read(RECEIVE)
        response.feed(data)
        if not data and not response.complete:
            raise ServerUnreachable("the server hung up before its answer was whole")

    @contextlib.contextmanager
    def _until(self, timeout: float) -> Iterator[None]:
        """Breaks the connection after so many seconds, and says so if it breaks."""
        timer = asyncio.get_running_loop().call_later(timeout, self._give_up)
        broken = None
        try:
            yield
        except OSError as error:
            broken = error
        finally:
            timer.cancel()
        if self.silent:
            raise ServerSilent("the server was silent for too long") from broken
        if broken is not None:
            raise ServerUnreachable(f"the connection to the server broke: {broken}") from broken

    def _give_up(self) -> None:
        self.silent = True
        self.writer.transport.abort()

    def alive(self) -> bool:
        """Whether it seems that the server has not hung up meanwhile."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        if self.loop is asyncio.get_running_loop():
            self.writer.close()
        else:
            with contextlib.suppress(RuntimeError):  # it is closed, and the connection goes with it
                self.loop.call_soon_threadsafe(self.writer.close)


class Stream:
    """An answer whose end is not waited for."""

    def __init__(self, connection: Connection, response: Response, silence: float) -> None:
        self.connection = connection
        self.response = response
        self.silence = silence

    async def read(self) -> bytes:
        """What has come of the body since the last time; waits if there is nothing. Empty at the end."""
        response = self.response
        while not (data := response.take()):
            if response.complete:
                return b""
            await self.connection.more(response, self.silence)
        return data

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: Optional[type], error: Optional[BaseException], traceback: Optional[TracebackType]) -> None:
        self.connection.close()


class Connections:
    """The connections to a server. `timeout` is how long it may be silent, in seconds."""

    def __init__(self, server: Server, timeout: float, tls: Optional[ssl.SSLContext] = None) -> None:
        self.server = server
        self.timeout = timeout
        self._tls = server.context(tls)
        self._idle: dict[asyncio.AbstractEventLoop, list[Connection]] = {}

    async def request(self, request: Request) -> Response:
        """The whole answer to a request."""
        data = request.encoded(self.server)
        timeout = self.timeout + request.patience
        kept = self._kept()
        if kept is not None:
            try:
                return await self._exchange(kept, request, data, timeout)
            except ServerUnreachable as error:
                # One that was silent has had its time, and may have done it; one that hung up may only have closed what was old.
                if isinstance(error, ServerSilent) or not request.repeats:
                    raise
        try:
            connection = await self._open()
        except NoConnection as error:
            if kept is None:
                raise
            raise ServerUnreachable(*error.args) from error  # by the other one it may have arrived
        return await self._exchange(connection, request, data, timeout)

    async def stream(self, request: Request, silence: float) -> Stream:
        """An answer as it comes, on a connection of its own; `silence` is how long it may pause, in seconds."""
        connection = await self._open()
        response = Response(request.method)
        try:
            await connection.send(request.encoded(self.server), self.timeout)
            while not response.status or (response.status >= 300 and not response.complete):
                await connection.more(response, self.timeout)
        except BaseException:
            connection.close()
            raise
        if response.status >= 300:
            connection.close()
            response.result()
        return Stream(connection, response, silence)

    def close(self) -> None:
        """Closes what is not in use."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _kept_here(self) -> list[Connection]:
        """Those of this event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._idle:
            for other in [each for each in self._idle.copy() if each.is_closed()]:
                self._idle.pop(other, None)  # its connections have ended with it
            self._idle[loop] = []
        return self._idle[loop]

    def _kept(self) -> Optional[Connection]:
        idle = self._kept_here()
        while idle:
            connection = idle.pop()
            if connection.alive():
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        return await Connection.open(self.server, self._tls, self.timeout)

    async def _exchange(self, connection: Connection, request: Request, data: bytes, timeout: float) -> Response:
        response = Response(request.method)
        try:
            await connection.send(data, timeout)
            while not response.complete:
                await connection.more(response, timeout)
        except BaseException:  # a cancelled task among them: what still comes would be taken for another answer
            connection.close()
            raise
        idle = self._kept_here()
        if response.reusable and len(idle) < MOST_IDLE:
            idle.append(connection)
        else:
            connection.close()
        return response


def _close_opened(opening: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    """Closes a connection that came when nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].close()
