"""Where the server is, and how it is spoken to."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional
from urllib.parse import SplitResult, urlsplit


class Unshown(bytes):
    """Bytes in which there may be a key. Tracebacks are often shown with the arguments and variables in them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes that are not shown>"


@dataclass(frozen=True)
class Server:
    """Where the server is, and what every request to it carries."""

    host: str
    port: int
    tls: bool
    prefix: str  # of all paths, without a slash at its end
    headers: Unshown  # whole lines

    @classmethod
    def at(cls, url: Optional[str] = None, headers: Optional[Mapping[str, str]] = None, key: Optional[str] = None) -> Server:
        """What is not said is as `trine` itself, the command, would have it."""
        url = url or os.environ.get("TRINE_SERVER") or "http://127.0.0.1:8040"
        key = key or os.environ.get("TRINE_KEY")
        if not isinstance(url, str):  # the number of workers, which comes first elsewhere
            raise TypeError(f"a server's address is written http://host:port, not {url!r}; a number of workers is `max_workers`")
        parts: SplitResult = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"a server's address is written http://host:port, not {url!r}")
        if "@" in parts.netloc or parts.query or parts.fragment:  # which may be secret, so it is not shown
            raise ValueError(
                "a server's address is written http://host:port, without a user, a password or a query: "
                "a key is given as `key`, and what a proxy wants to have as `headers`"
            )
        tls = parts.scheme == "https"
        lines = {"Host": parts.netloc, "User-Agent": "trine-python", "Accept": "application/json", **(headers or {})}
        if key and "authorization" not in map(str.lower, lines):
            lines["Authorization"] = f"Bearer {key}"
        for name, value in lines.items():
            if any(mark in name + value for mark in "\r\n"):
                raise ValueError(f"the header {name!r} has a line break")
        head = Unshown("".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1"))
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"), head)

    def context(self, tls: Optional[ssl.SSLContext]) -> Optional[ssl.SSLContext]:
        """By what the server is known, where it speaks TLS: by `tls`, or by the usual authorities and that of `TRINE_CA_CERT`."""
        if not self.tls:
            return None
        if tls is None:
            tls = ssl.create_default_context()
            authority = os.environ.get("TRINE_CA_CERT")
            if authority:
                tls.load_verify_locations(authority)
        return tls


LONGEST_TIMEOUT = 2_000_000  # seconds: sockets count milliseconds, as an `int` of C


def checked(timeout: float, patience: float) -> tuple[float, float]:
    """How long a server may be silent, which sockets want to know, and out of reach."""
    for name, given in (("timeout", timeout), ("patience", patience)):
        if not isinstance(given, (int, float)):
            raise TypeError(f"{name} must be a number of seconds, not {given!r}")
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise ValueError(f"timeout must be greater than 0 and at most {LONGEST_TIMEOUT} seconds, not {timeout!r}")
    if not patience >= 0:
        raise ValueError(f"patience must be 0 seconds or more, not {patience!r}")
    return timeout, patience
