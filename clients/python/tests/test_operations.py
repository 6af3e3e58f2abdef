"""Whether the clients can call all of the API and give all that it tells, going by its document."""

import asyncio
import dataclasses
import datetime
import inspect
import json
import re
import unittest

import harness

import trine

DOCUMENT = json.loads((harness.ROOT / "openapi" / "openapi.json").read_text())
PATHS, SCHEMAS = DOCUMENT["paths"], DOCUMENT["components"]["schemas"]
DOCUMENTED = {told["operationId"]: (method.upper(), path, told) for path, of in PATHS.items() for method, told in of.items()}

NOW = datetime.datetime.now(datetime.timezone.utc)
WORK = {"type": "sleep", "ms": 0}
EVENTS = {"state": "failed", "bound": "io", "executor": "async", "workload": "sleep"}
JOBS = {**EVENTS, "tags": {"a": "b"}, "error": "error", "since": NOW, "until": NOW}
LISTED = {**JOBS, "advice": "any", "owner": "0123456789ab", "order": "oldest"}
GROUPS = {name: EVENTS[name] for name in ("state", "bound", "executor", "workload")}
DECLARED = {"entrypoint": "main", "bound": "io", "executor": "async", "interpreter": "one", "deadline_ms": 1}
LIMITS = {"memory_bytes": 1, "cpu_ms": 1, "output_bytes": 1}

# How each operation is called, with all that can be said in its query.
CALLS = {
    "cancelComparison": lambda client: client.cancel_comparison("id"),
    "cancelJob": lambda client: client.cancel("id", state="queued"),
    "cancelJobs": lambda client: client.cancel_many(**JOBS),
    "compare": lambda client: client.compare(WORK, bound="io"),
    "createKey": lambda client: client.create_key("name", ["read"]),
    "createSchedule": lambda client: client.put_schedule("name", "* * * * *", WORK, bound="io", replace=False),
    "deployFunction": lambda client: client.put_function("name", "code", **DECLARED, **LIMITS),
    "drainNode": lambda client: client.drain_node("name"),
    "explainRoute": lambda client: client.route("id"),
    "followJob": lambda client: client.events("id", kinds=["log"], after=1),
    "followJobs": lambda client: client.events(kinds=["log"], after=1, tags={"a": "b"}, **EVENTS),
    "getArtifact": lambda client: client.artifact("id", "name", attempt=1),
    "getCluster": lambda client: client.cluster(),
    "getComparison": lambda client: client.comparison("id", wait=1),
    "getComparisonPng": lambda client: client.comparison_chart("id", of="speedup", format="png"),
    "getComparisonReport": lambda client: client.comparison_report("id"),
    "getComparisonSvg": lambda client: client.comparison_chart("id", of="speedup"),
    "getFunctionVersion": lambda client: client.function("name", "version"),
    "getHealth": lambda client: client.alive(),
    "getJob": lambda client: client.get("id", wait=1),
    "getKey": lambda client: client.key("id"),
    "getKeyQuota": lambda client: client.quota("id"),
    "getProfile": lambda client: client.profile("key"),
    "getQuota": lambda client: client.quota(),
    "getReadiness": lambda client: client.healthy(),
    "getResult": lambda client: client.result("id"),
    "getSchedule": lambda client: client.schedule("name"),
    "listActs": lambda client: client.audit(),
    "listArtifacts": lambda client: client.artifacts("id", attempt=1),
    "listComparisons": lambda client: client.comparisons(),
    "listDeliveries": lambda client: client.deliveries(state="gone"),
    "listDeliveriesOfJob": lambda client: client.deliveries("id", state="gone"),
    "listExecutors": lambda client: client.executors(),
    "listFindings": lambda client: client.findings(kind="waits", workload="sleep", executor="async"),
    "listFunctionVersions": lambda client: client.function_versions("name"),
    "listFunctions": lambda client: client.functions(),
    "listJobs": lambda client: client.jobs(**LISTED),
    "listKeys": lambda client: client.keys(),
    "listLimits": lambda client: client.limits(),
    "listProfiles": lambda client: client.profiles(workload="sleep", executor="async", observed="io"),
    "listResults": lambda client: client.results(**LISTED),
    "listSchedules": lambda client: client.schedules(),
    "listWorkloads": lambda client: client.workloads(),
    "pauseSchedule": lambda client: client.pause_schedule("name"),
    "putSchedule": lambda client: client.put_schedule("name", "* * * * *", WORK, bound="io"),
    "readLog": lambda client: client.logs("id"),
    "redeliver": lambda client: client.redeliver("id"),
    "redeployFunction": lambda client: client.redeploy_function("name", "version"),
    "removeFunction": lambda client: client.delete_function("name"),
    "removeResult": lambda client: client.delete_result("id"),
    "removeSchedule": lambda client: client.delete_schedule("name"),
    "resumeNode": lambda client: client.resume_node("name"),
    "resumeSchedule": lambda client: client.resume_schedule("name"),
    "retryJob": lambda client: client.retry("id"),
    "retryJobs": lambda client: client.retry_many(**JOBS),
    "revokeKey": lambda client: client.revoke_key("id"),
    "rotateKey": lambda client: client.rotate_key("id"),
    "runSchedule": lambda client: client.run_schedule("name"),
    "setKeyQuota": lambda client: client.put_key_quota("id", running=1),
    "submitBatch": lambda client: client.submit_many([]),
    "submitJob": lambda client: client.submit(WORK, bound="io"),
    "summariseResults": lambda client: client.summary(**GROUPS),
    "whatIf": lambda client: client.what_if(since=NOW, until=NOW, workload="sleep"),
}

# Operations that are not there, and why.
WITHOUT = {"metrics": "Prometheus asks for them"}

# Parameters of queries likewise.
UNSAID = {
    "cursor": "the client turns the pages",
    "format": "the client asks for JSON",
    "after": "as the header Last-Event-ID",
}


# What the clients give of an answer under another name than the document's, and what they leave in its `raw` or leave out.
NAMES = {"Accepted": "BatchItem", "Failure": "Error", "Verdict": "ComparisonVerdict"}
UNTOLD = {
    "Comparison": {
        *("budget_ms", "concurrency", "executors", "interpreters", "tasks"),  # what was asked for
        *("controls", "cores", "form", "gil", "inline", "pressure", "repetitions", "runtime", "tasks_per_repetition"),  # in `raw`
    },
    "WhatIf": {"next_cursor"},  # there is one page
}


class Asked(Exception):
    """What a client would send."""


class Connections:
    def request(self, request, *_):
        raise Asked(request)

    stream = request


def requested(client, call):
    """The request that a call begins with."""
    client._connections = Connections()

    async def asked():
        answer = call(client)
        return await (answer.__anext__() if inspect.isasyncgen(answer) else answer)

    try:
        if isinstance(client, trine.AsyncClient):
            asyncio.run(asked())
        else:
            next(call(client))
    except Asked as sent:
        return sent.args[0]


def documented(schema):
    """The names of an object's properties, with those of what it is made of."""
    parts = [*schema.get("allOf", ()), *([SCHEMAS[schema["$ref"].rpartition("/")[2]]] if "$ref" in schema else ())]
    return set(schema.get("properties", ())).union(*map(documented, parts))


class Operations(unittest.TestCase):
    def test_each_can_be_called(self):
        self.assertEqual(sorted({*CALLS, *WITHOUT}), sorted(DOCUMENTED))
        for name, call in CALLS.items():
            method, path, told = DOCUMENTED[name]
            queried = {each["name"] for each in told.get("parameters", ()) if each["in"] == "query"}
            for client in (trine.Client(), trine.AsyncClient()):
                with self.subTest(name, client=type(client).__name__):
                    request = requested(client, call)
                    self.assertEqual(request.method, method)
                    self.assertRegex(request.path, "^" + re.sub(r"\{\w+\}", "[^/]+", path) + "$")
                    said = {name for name, value in request.query.items() if value is not None}
                    self.assertEqual(sorted(said), sorted(queried - set(UNSAID)))

    def test_what_is_told_has_its_field(self):
        for name, kind in vars(trine.model).items():
            schema = NAMES.get(name, name)
            if dataclasses.is_dataclass(kind) and schema in SCHEMAS:
                with self.subTest(name):
                    told, fields = documented(SCHEMAS[schema]), {field.name for field in dataclasses.fields(kind)}
                    self.assertEqual(sorted(told - fields - UNTOLD.get(name, set())), [])

    def test_both_clients_have_the_same_calls(self):
        def parameters(client):
            public = {name: call for name, call in vars(client).items() if inspect.isfunction(call) and name[0] != "_"}
            return {name: inspect.signature(call).parameters for name, call in public.items()}

        self.assertEqual(parameters(trine.AsyncClient), parameters(trine.Client))


if __name__ == "__main__":
    unittest.main()
