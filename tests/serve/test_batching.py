"""The queue: what is gathered, what waits, what is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from samo.serve.batching import Batcher, QueueFull


def doubled(sizes: list[int]) -> Any:
    def answer(inputs: list[int]) -> list[int]:
        sizes.append(len(inputs))
        if 13 in inputs:
            raise ValueError("13")
        return [2 * each for each in inputs]

    return answer


def doubled_later(batches: list[list[int]]) -> tuple[Any, threading.Event]:
    """A model that answers nothing until the event."""
    began = threading.Event()

    def answer(inputs: list[int]) -> list[int]:
        assert began.wait(10)
        batches.append(list(inputs))
        return [2 * each for each in inputs]

    return answer, began


async def ask(batcher: Batcher, *inputs: int, after: float = 0.0) -> list[int]:
    with batcher.place(len(inputs)) as place:
        await asyncio.sleep(after)
        return await place.answers(inputs)


def test_what_is_on_its_way_is_waited_for_and_answered_in_order() -> None:
    sizes: list[int] = []

    async def main() -> list[list[int]]:
        batcher = Batcher(doubled(sizes), batch=32, wait_s=5.0, queue=100)
        batcher.start()
        found = await asyncio.gather(ask(batcher, 1), ask(batcher, 2, 3, after=0.05), ask(batcher, 4, after=0.02))
        await batcher.stop()
        return found

    assert asyncio.run(main()) == [[2], [4, 6], [8]]
    assert sizes == [4]


def test_without_waiting_each_goes_as_it_comes() -> None:
    sizes: list[int] = []

    async def main() -> None:
        batcher = Batcher(doubled(sizes), batch=32, wait_s=0.0, queue=100)
        batcher.start()
        await asyncio.gather(ask(batcher, 1), ask(batcher, 2, after=0.05))
        await batcher.stop()

    asyncio.run(main())
    assert sizes == [1, 1]


def test_a_lone_request_waits_for_nobody() -> None:
    async def main() -> float:
        batcher = Batcher(doubled([]), batch=32, wait_s=30.0, queue=100)
        batcher.start()
        async with asyncio.timeout(10):
            await ask(batcher, 1)
        await batcher.stop()
        return batcher.waiting

    assert asyncio.run(main()) == 0


def test_a_batch_is_no_larger_than_it_may() -> None:
    batches: list[list[int]] = []
    answer, began = doubled_later(batches)

    async def main() -> None:
        batcher = Batcher(answer, batch=3, wait_s=0.0, queue=100)
        batcher.start()
        tasks = [asyncio.create_task(ask(batcher, k)) for k in range(8)]
        await asyncio.sleep(0.05)
        began.set()
        await asyncio.gather(*tasks)
        await batcher.stop()

    asyncio.run(main())
    assert max(map(len, batches)) == 3
    assert sorted(each for batch in batches for each in batch) == list(range(8))


def weighed(*later: int, batch: int) -> list[list[int]]:
    """The batches of one request with three inputs of weight 3 and others that come while its first is computed."""
    batches: list[list[int]] = []
    answer, began = doubled_later(batches)

    async def main() -> None:
        batcher = Batcher(answer, batch=batch, wait_s=0.0, queue=100, weigh=lambda given: given)
        batcher.start()
        with batcher.place(3) as place:
            long = asyncio.gather(*(place.answers([3]) for _ in range(3)))
            await asyncio.sleep(0.05)
            others = asyncio.gather(*(ask(batcher, each) for each in later))
            await asyncio.sleep(0.05)
            began.set()
            assert await long == [[6]] * 3
            assert await others == [[2 * each] for each in later]
        await batcher.stop()

    asyncio.run(main())
    return batches


def test_a_request_of_long_inputs_lets_short_ones_come_between() -> None:
    assert weighed(1, 1, batch=2) == [[3], [1, 1], [3], [3]]
    assert weighed(1, batch=4) == [[3], [1, 3], [3]]
    assert weighed(1, 2, batch=2) == [[3], [1], [2], [3], [3]]


def test_requests_of_long_inputs_take_turns() -> None:
    assert weighed(2, 5, batch=1) == [[3], [2], [3], [5], [3]]


def test_one_request_does_not_cost_others_their_answers() -> None:
    async def main() -> list[Any]:
        batcher = Batcher(doubled([]), batch=32, wait_s=5.0, queue=100)
        batcher.start()
        requests = (ask(batcher, 1), ask(batcher, 13, after=0.01), ask(batcher, 2, after=0.02))
        found = await asyncio.gather(*requests, return_exceptions=True)
        await batcher.stop()
        return found

    first, second, third = asyncio.run(main())
    assert (first, third) == ([2], [4])
    assert isinstance(second, ValueError)


def test_a_full_queue_refuses_and_has_room_again_afterwards() -> None:
    async def main() -> int:
        batcher = Batcher(doubled([]), batch=32, wait_s=0.0, queue=3)
        batcher.start()
        with batcher.place(2):
            assert batcher.waiting == 2
            with pytest.raises(QueueFull) as full:
                await ask(batcher, 1, 2)
            assert await ask(batcher, 5) == [10]
        assert await ask(batcher, 1, 2, 3) == [2, 4, 6]
        await batcher.stop()
        return full.value.retry_after_s

    assert asyncio.run(main()) == 1


def test_when_to_come_again_follows_from_what_an_input_takes_and_how_many_wait() -> None:
    def answer(inputs: list[int]) -> list[int]:
        time.sleep(0.4)
        return inputs

    def refused(batcher: Batcher, n: int) -> int:
        with pytest.raises(QueueFull) as full, batcher.place(n):
            pass
        return full.value.retry_after_s

    async def main() -> list[int]:
        batcher = Batcher(answer, batch=32, wait_s=0.0, queue=45)
        assert refused(batcher, 46) == 1  # nobody waits, but at once there is no more room than now
        batcher.start()
        await ask(batcher, 1, 2, 3, 4)
        with batcher.place(5):
            few = refused(batcher, 41)
        with batcher.place(45):
            many = refused(batcher, 1)
        await batcher.stop()
        return [few, many]

    # Four in 0.4 s are 0.1 s each, a fifth of which joins four fifths of 0.05 s: 0.06 s, five times and 45 times.
    assert asyncio.run(main()) == [1, 3]


def test_who_gave_up_is_not_computed() -> None:
    batches: list[list[int]] = []
    answer, began = doubled_later(batches)

    async def main() -> None:
        batcher = Batcher(answer, batch=1, wait_s=0.0, queue=100)
        batcher.start()
        tasks = [asyncio.create_task(ask(batcher, k)) for k in range(3)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        await asyncio.sleep(0)
        began.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert batcher.waiting == 0
        await batcher.stop()

    asyncio.run(main())
    assert batches == [[0], [2]]
