"""Requests that come within a few milliseconds go through the model together."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["Batcher", "Place", "QueueFull"]

T = TypeVar("T")


class QueueFull(Exception):  # noqa: N818
    """No room for more inputs; ``retry_after_s`` is when there may be some, in whole seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


@dataclass(order=True)
class _Job:
    turn: int
    number: int
    weight: int = field(compare=False)
    inputs: Sequence[Any] = field(compare=False)
    answers: asyncio.Future[list[Any]] = field(compare=False)


class Batcher:
    """One model, one thread, one queue; without :meth:`start` nothing is answered.

    A batch waits for others only while some have a place and are still being decoded: a lone request never waits.
    Requests take turns by the work that they bring (self-clocked fair queueing, Golestani 1994): one of many long
    inputs goes on behind those that come while its first is computed.
    """

    def __init__(
        self,
        answer: Callable[[list[Any]], list[Any]],
        *,
        batch: int,
        wait_s: float,
        queue: int,
        weigh: Callable[[Any], int] = lambda given: 1,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Prepare the queue.

        Args:
            answer: gives as many answers as it is given inputs; it is called in the one thread.
            batch: most weight at once, unless a single request brings more with one call.
            wait_s: how long a batch waits for inputs on their way, in seconds.
            queue: inputs that may have a place at once.
            weigh: the work that an input is, 1 or more.
            observe: is told the size of each batch.
        """
        self._answer, self._weigh, self._observe = answer, weigh, observe
        self._batch, self._wait_s, self._room = batch, wait_s, queue
        self._thread: ThreadPoolExecutor | None = None
        self._jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self._n_jobs = self._turn = 0
        self._worker: asyncio.Task[None] | None = None
        self.waiting = 0
        """Inputs that have a place and no answer yet."""
        self.computing = False
        """Whether the thread is at work; nothing can stop it before it is done."""
        self._coming = 0
        self._seconds_each = 0.05

    def start(self) -> None:
        """Begin to answer, again after a stop; needs a running event loop."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._jobs = asyncio.PriorityQueue()
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Answer no more."""
        if self._worker:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def place(self, n: int) -> Iterator[Place]:
        """A place for ``n`` inputs that are still to be decoded.

        Raises:
            QueueFull: there is none.
        """
        if self.waiting + n > self._room:
            raise QueueFull(max(1, math.ceil(self.waiting * self._seconds_each)))
        self.waiting += n
        self._coming += 1
        taken = Place(self)
        try:
            yield taken
        finally:
            self.waiting -= n
            taken.arrive()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call something of the model's in its thread, between batches."""

        def call() -> T:
            self.computing = True
            try:
                return function(*arguments)
            finally:
                self.computing = False

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _work(self) -> None:
        while True:
            jobs = await self._gathered()
            began = time.perf_counter()
            inputs = [each for job in jobs for each in job.inputs]
            self._observe(len(inputs))
            try:
                answers = await self.run(self._answer, inputs)
            except Exception:
                # One request must not cost others their answers.
                for job in jobs:
                    await self._alone(job)
                continue
            self._seconds_each = 0.8 * self._seconds_each + 0.2 * (time.perf_counter() - began) / len(inputs)
            first = 0
            for job in jobs:
                if not job.answers.done():
                    job.answers.set_result(answers[first : first + len(job.inputs)])
                first += len(job.inputs)

    async def _gathered(self) -> list[_Job]:
        """At least one job that somebody still waits for."""
        loop = asyncio.get_running_loop()
        jobs: list[_Job] = []
        size, until = 0, 0.0
        while size < self._batch:
            if not jobs:
                job = await self._jobs.get()
                until = loop.time() + self._wait_s
            elif not self._jobs.empty():
                job = self._jobs.get_nowait()
            elif self._coming and (left := until - loop.time()) > 0:
                try:
                    job = await asyncio.wait_for(self._jobs.get(), left)
                except TimeoutError:
                    break
            else:
                break
            if job.answers.done():
                continue
            if jobs and size + job.weight > self._batch:
                self._jobs.put_nowait(job)
                break
            jobs.append(job)
            size += job.weight
            self._turn = max(self._turn, job.turn)
        return jobs

    def _put(self, inputs: Sequence[Any], last: int) -> _Job:
        """Queue the inputs of a request whose turn was last at ``last``."""
        weight = sum(map(self._weigh, inputs))
        self._n_jobs += 1
        answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = _Job(max(self._turn, last) + weight, self._n_jobs, weight, inputs, answers)
        self._jobs.put_nowait(job)
        return job

    async def _alone(self, job: _Job) -> None:
        if job.answers.done():
            return
        try:
            answers = await self.run(self._answer, list(job.inputs))
        except Exception as error:
            if not job.answers.done():
                job.answers.set_exception(error)
        else:
            if not job.answers.done():
                job.answers.set_result(answers)


class Place:
    """Room in a queue for the inputs of one request."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher, self._arrived = batcher, False
        self._turn = 0

    def arrive(self) -> None:
        """The inputs are on their way no longer."""
        if not self._arrived:
            self._arrived = True
            self._batcher._coming -= 1

    async def answers(self, inputs: Sequence[Any]) -> list[Any]:
        """The answers to the inputs, in their order.

        Raises:
            Exception: what the model raises on these inputs.
        """
        if not inputs:
            return []
        self.arrive()
        job = self._batcher._put(inputs, self._turn)
        self._turn = job.turn
        return await job.answers
