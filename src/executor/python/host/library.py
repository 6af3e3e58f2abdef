"""The code that a host keeps."""

from .archive import Archive
from .code import Source


class Library:
    """The code that this host has seen; of each, so many used last are kept."""

    CAPACITY = 256

    def __init__(self):
        self.codes = {}

    def find(self, wanted):
        """None if the code is not known here and did not come with the job."""
        code = self.codes.pop(wanted["sha"], None)
        if code is None:
            if wanted.get("source") is not None:
                code = Source(wanted["sha"], wanted["source"])
            elif wanted.get("zip") is not None:
                code = Archive(wanted["sha"], wanted["zip"])
            else:
                return None
        self.codes[code.sha] = code
        if len(self.codes) > self.CAPACITY:
            self.codes.pop(next(iter(self.codes))).forget()
        return code
