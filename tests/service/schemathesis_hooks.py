"""What schemathesis can't do by itself, and what would take too long."""

import json
import re

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A string is what it is; each element of an array is a line."""
    if isinstance(value, str):
        return value.encode()
    values = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(value) for value in values).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Whoever wants to wait for a job waits for a moment: most never end."""
    query = case.query or {}
    if re.fullmatch(r"\d+", str(query.get("wait", ""))) and 0 < int(query["wait"]) <= 60:
        query["wait"] = 1
