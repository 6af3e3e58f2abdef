"""Every operation of the API has its call."""

import json
import pathlib
import unittest

import harness  # comes first: it finds the package

import trine

DOCUMENT = pathlib.Path(harness.__file__).parents[3] / "openapi/openapi.json"
CALLS = {
    "submit": ["submitJob"],
    "submit_many": ["submitBatch"],
    "get": ["getJob"],
    "jobs": ["listJobs"],
    "cancel": ["cancelJob"],
    "retry": ["retryJob"],
    "cancel_many": ["cancelJobs"],
    "retry_many": ["retryJobs"],
    "route": ["explainRoute"],
    "result": ["getResult"],
    "results": ["listResults"],
    "delete_result": ["removeResult"],
    "summary": ["summariseResults"],
    "events": ["followJob", "followJobs"],
    "logs": ["readLog"],
    "artifacts": ["listArtifacts"],
    "artifact": ["getArtifact"],
    "deliveries": ["listDeliveries", "listDeliveriesOfJob"],
    "redeliver": ["redeliver"],
    "put_function": ["deployFunction"],
    "functions": ["listFunctions"],
    "function_versions": ["listFunctionVersions"],
    "function_code": ["getFunctionVersion"],
    "redeploy_function": ["redeployFunction"],
    "delete_function": ["removeFunction"],
    "put_schedule": ["putSchedule", "createSchedule"],
    "schedules": ["listSchedules"],
    "schedule": ["getSchedule"],
    "pause_schedule": ["pauseSchedule"],
    "resume_schedule": ["resumeSchedule"],
    "run_schedule": ["runSchedule"],
    "delete_schedule": ["removeSchedule"],
    "compare": ["compare"],
    "comparison": ["getComparison"],
    "comparisons": ["listComparisons"],
    "cancel_comparison": ["cancelComparison"],
    "comparison_chart": ["getComparisonSvg", "getComparisonPng"],
    "comparison_report": ["getComparisonReport"],
    "profiles": ["listProfiles"],
    "profile": ["getProfile"],
    "findings": ["listFindings"],
    "what_if": ["whatIf"],
    "workloads": ["listWorkloads"],
    "executors": ["listExecutors"],
    "healthy": ["getReadiness"],
    "alive": ["getHealth"],
    "limits": ["listLimits"],
    "cluster": ["getCluster"],
    "drain_node": ["drainNode"],
    "resume_node": ["resumeNode"],
    "keys": ["listKeys"],
    "key": ["getKey"],
    "create_key": ["createKey"],
    "rotate_key": ["rotateKey"],
    "revoke_key": ["revokeKey"],
    "put_key_quota": ["setKeyQuota"],
    "quota": ["getQuota", "getKeyQuota"],
    "audit": ["listActs"],
}
LEFT_OUT = {"metrics": "for Prometheus, which asks by itself"}


class Operations(unittest.TestCase):
    def test_each_has_a_call_of_both_clients(self):
        document = json.loads(DOCUMENT.read_text())
        there = {operation["operationId"] for operations in document["paths"].values() for operation in operations.values()}
        called = [operation for operations in CALLS.values() for operation in operations]
        self.assertEqual({*called, *LEFT_OUT}, there)
        self.assertEqual(len(called), len(set(called)))
        for client in (trine.Client, trine.AsyncClient):
            self.assertEqual([call for call in CALLS if not callable(getattr(client, call, None))], [])


if __name__ == "__main__":
    unittest.main()
