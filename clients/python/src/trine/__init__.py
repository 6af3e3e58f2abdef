"""Client of Trine, which runs jobs on an event loop, on threads or in processes."""

from .aio import AsyncClient
from .client import Client

__all__ = ["AsyncClient", "Client"]
