"""A user's program, for mypy alone: what executors tell of their calls is what those of the standard library do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import Executor, Future, as_completed, wait
from typing import TYPE_CHECKING, Any

import trine

if TYPE_CHECKING:
    from typing_extensions import Unpack, assert_type


def square(x: int) -> int:
    return x * x


async def later(x: int) -> int:
    return x


def counts(to: int) -> Generator[int, None, str]:
    yield to
    return "done"


async def counts_later(to: int) -> AsyncIterator[int]:
    yield to


def named(future: trine.JobFuture[int]) -> None:
    print(future.job_id)


def told(future: Future[Any]) -> None:
    print(future.result())


def of_any(executor: Executor) -> int:
    return executor.submit(square, 3).result()


def of_trine(executor: trine.Executor) -> int:
    assert_type(executor.submit(square, x=3), trine.JobFuture[int])
    assert_type(executor.submit(later, 3), trine.JobFuture[int])
    assert_type(executor.submit(counts, 3), trine.JobFuture[Any])
    assert_type(executor.submit(counts_later, 3), trine.JobFuture[Any])
    assert_type(executor.submit(lambda: "text"), trine.JobFuture[str])
    assert_type(executor.map(square, [1, 2], chunksize=2), Iterator[int])
    assert_type(executor.map(later, [1, 2]), Iterator[int])
    executor.submit(square, "text")  # type: ignore[call-overload]
    futures = [executor.submit(square, x) for x in range(3)]
    executor.with_options(after=futures).submit(later, 3)
    executor.with_options(after=[{"job": futures[0], "on_failure": "run"}])
    executor.with_options(after=[futures[0].job_id])  # type: ignore[list-item]
    futures[0].add_done_callback(named)
    futures[0].add_done_callback(told)
    numbers: dict[Future[int], int] = {executor.submit(square, x): x for x in range(3)}
    for future in as_completed(numbers):
        assert_type(numbers[future], int)
    waiting: set[Future[int]] = set(numbers)
    while waiting:
        _, waiting = wait(waiting, return_when="FIRST_COMPLETED")
    return of_any(executor) + executor.with_options(priority=1).submit(square, 3).result()


def of_settings(**settings: Unpack[trine.Settings]) -> trine.Executor:
    return trine.Executor(max_workers=4, **settings)


async def of_asyncio(executor: trine.AsyncExecutor) -> int:
    assert_type(executor.submit(square, x=3), trine.AsyncJobFuture[int])
    assert_type(executor.map(later, [1, 2]), AsyncIterator[int])
    assert_type(await executor.submit(later, 3), int)
    assert_type(executor.as_completed([executor.submit(square, 3)]), AsyncIterator[trine.AsyncJobFuture[int]])
    executor.with_options(after=[executor.submit(later, 3)])
    await executor.submit(square, "text")  # type: ignore[call-overload]
    return await executor.submit(square, 3)


def of_client(client: trine.Client) -> None:
    client.submit({}, bound="io", run_at="2030-01-01T00:00:00Z", after=[{"job": "…"}])
    client.put_schedule("nightly", "30 3 * * *", {}, bound="io", delay_ms=1)
    client.put_schedule("nightly", "30 3 * * *", {}, bound="io", run_at="2030-01-01T00:00:00Z")  # type: ignore[call-arg]
    client.summary("workload", state=["failed", "lost"])
    client.summary("workload", tags={"team": "search"})  # type: ignore[call-arg]
    client.put_function("f", "def main(): pass", cpu_ms=1000)
    client.put_function("f", "def main(): pass", cpu_seconds=1)  # type: ignore[call-arg]
