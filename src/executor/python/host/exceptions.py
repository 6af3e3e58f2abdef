"""The host's own exceptions."""


class Invalid(Exception):
    """What a client sent or a function returned can't be used; `cause` is the name of the exception that said so."""

    def __init__(self, message, cause="ValueError"):
        super().__init__(message)
        self.cause = cause


class Ended(Exception):
    """A function has raised `StopIteration`, its cause, which a coroutine can't raise."""


class CpuTimeExceeded(BaseException):
    """The job has used as much CPU time as its function may."""

    __module__ = "__main__"  # so it is told by its name alone


class Stopped(KeyboardInterrupt):
    """The job was asked to stop. It is no `Exception`, so that handlers of those don't swallow it, nor does an event loop."""

    def __init__(self, message="the job was asked to stop"):
        super().__init__(message)
