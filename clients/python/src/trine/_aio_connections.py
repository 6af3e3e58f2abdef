"""The same for asyncio: connections of one event loop to one server."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Optional

from ._http1 import Request, Response, Server
from .errors import ServerUnreachable

RECEIVE = 1 << 18  # bytes at once
MOST_IDLE = 16  # connections that are kept


class Connection:
    """One connection; it carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, server: Server, tls: Optional[ssl.SSLContext], timeout: float) -> Connection:
        try:
            opening = asyncio.open_connection(server.host, server.port, ssl=tls, limit=RECEIVE)
            return cls(*await asyncio.wait_for(opening, timeout))
        except (OSError, asyncio.TimeoutError) as error:
            raise ServerUnreachable(f"no connection to {server.host}:{server.port}: {error or 'it took too long'}") from error

    async def send(self, data: bytes, timeout: float) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), timeout)

    async def more(self, response: Response, timeout: float) -> None:
        """Takes in what comes next of an answer."""
        data = await asyncio.wait_for(self.reader.read(RECEIVE), timeout)
        response.feed(data)
        if not data and not response.complete:
            raise ServerUnreachable("the server hung up before its answer was whole")

    def alive(self) -> bool:
        """Whether it seems that the server has not hung up meanwhile."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        self.writer.close()


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
            try:
                await self.connection.more(response, self.silence)
            except (OSError, asyncio.TimeoutError) as error:
                raise _broken(error) from error
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
        self._tls = (tls or ssl.create_default_context()) if server.tls else None
        self._idle: list[Connection] = []

    async def request(self, request: Request) -> Response:
        """The whole answer to a request."""
        data = request.encoded(self.server)
        timeout = self.timeout + request.patience
        while self._idle:
            kept = self._idle.pop()
            if not kept.alive():
                kept.close()
                continue
            try:
                return await self._exchange(kept, request, data, timeout)
            except ServerUnreachable:
                if not request.repeats:
                    raise
                break
        return await self._exchange(await self._open(), request, data, timeout)

    async def stream(self, request: Request, silence: float) -> Stream:
        """An answer as it comes, on a connection of its own; `silence` is how long it may pause, in seconds."""
        connection = await self._open()
        response = Response(request.method)
        try:
            await connection.send(request.encoded(self.server), self.timeout)
            while not response.status or (response.status >= 300 and not response.complete):
                await connection.more(response, self.timeout)
        except (OSError, asyncio.TimeoutError) as error:
            connection.close()
            raise _broken(error) from error
        except BaseException:
            connection.close()
            raise
        if response.status >= 300:
            connection.close()
            response.result()
        return Stream(connection, response, silence)

    def close(self) -> None:
        """Closes what is not in use."""
        while self._idle:
            self._idle.pop().close()

    async def _open(self) -> Connection:
        return await Connection.open(self.server, self._tls, self.timeout)

    async def _exchange(self, connection: Connection, request: Request, data: bytes, timeout: float) -> Response:
        response = Response(request.method)
        try:
            await connection.send(data, timeout)
            while not response.complete:
                await connection.more(response, timeout)
        except (OSError, asyncio.TimeoutError) as error:
            connection.close()
            raise _broken(error) from error
        except BaseException:  # a cancelled task among them: what still comes would be taken for another answer
            connection.close()
            raise
        if response.reusable and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        return response


def _broken(error: BaseException) -> ServerUnreachable:
    if isinstance(error, ServerUnreachable):
        return error
    return ServerUnreachable(f"the connection to the server broke: {error or 'it was silent for too long'}")
