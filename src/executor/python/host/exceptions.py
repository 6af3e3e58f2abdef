"""The host's own exceptions."""


class Invalid(Exception):
    """What a client sent or a function returned can't be used; `cause` is the name of the exception that said so."""

    def __init__(self, message, cause="ValueError"):
        super().__init__(message)
        self.cause = cause


class CpuTimeExceeded(BaseException):
    """The job has used as much CPU time as its function may."""

    __module__ = "__main__"  # so it is told by its name alone


class Stopped(BaseException):
    """The job was asked to stop. Like `KeyboardInterrupt` it is no `Exception`, so that handlers of those don't swallow it."""
