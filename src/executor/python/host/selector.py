"""What the event loop asks which descriptors are ready."""

import math
import select
import selectors

EVENTS = {
    selectors.EVENT_READ: select.EPOLLIN,
    selectors.EVENT_WRITE: select.EPOLLOUT,
    selectors.EVENT_READ | selectors.EVENT_WRITE: select.EPOLLIN | select.EPOLLOUT,
}
NOT_IN, NOT_OUT = ~select.EPOLLIN, ~select.EPOLLOUT


class Selector(selectors.EpollSelector):
    """Does what its parent does with less code where asyncio gives it plain descriptors, as it nearly always does: a connection that makes one
    request asks for a dozen of these calls. What is unusual is left to the parent."""

    def __init__(self):
        super().__init__()
        self.keys, self.epoll = self._fd_to_key, self._selector

    def get_key(self, fileobj):
        return self.keys[fileobj] if type(fileobj) is int and fileobj >= 0 else super().get_key(fileobj)

    def register(self, fileobj, events, data=None):
        mask = EVENTS.get(events)
        if type(fileobj) is not int or mask is None or fileobj in self.keys:
            return super().register(fileobj, events, data)
        self.epoll.register(fileobj, mask)
        key = self.keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj):
        if type(fileobj) is not int or fileobj < 0:
            return super().unregister(fileobj)
        key = self.keys.pop(fileobj)
        try:
            self.epoll.unregister(fileobj)
        except OSError:
            pass  # it was closed meanwhile
        return key

    def select(self, timeout=None):
        keys = self.keys
        # The kernel counts in milliseconds, and to come back too early would be to ask twice.
        seconds = -1 if timeout is None else math.ceil(timeout * 1e3) * 1e-3 if timeout > 0 else 0
        try:
            events = self.epoll.poll(seconds, len(keys) or 1)
        except InterruptedError:
            return []
        ready = []
        for descriptor, event in events:
            key = keys.get(descriptor)
            if key is not None:
                mask = (event & NOT_OUT and selectors.EVENT_READ) | (event & NOT_IN and selectors.EVENT_WRITE)
                ready.append((key, mask & key.events))
        return ready
