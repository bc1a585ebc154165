"""The lock that serves first who comes first."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from alexnet.fairlock import FairLock


def test_threads_get_it_in_the_order_in_which_they_asked():
    lock, served = FairLock(), []
    asked = [threading.Event() for _ in range(8)]

    def work(number: int) -> None:
        with lock.turn(lambda ahead: asked[number].set()):
            served.append(number)

    with ThreadPoolExecutor(8) as pool, lock:
        for number in range(8):
            pool.submit(work, number)
            assert asked[number].wait(20), "nobody told it that it waits"
    assert served == list(range(8))


def test_who_waits_is_told_how_many_are_ahead():
    lock, told = FairLock(), {1: Future(), 2: Future()}

    def work(number: int) -> None:
        def tell(ahead: int) -> None:
            if not told[number].done():
                told[number].set_result(ahead)

        with lock.turn(tell):
            pass

    with ThreadPoolExecutor(2) as pool, lock:
        for number in (1, 2):
            pool.submit(work, number)
            assert told[number].result(20) == number  # the thread that has it, and those that wait


def test_its_thread_may_take_it_again_and_has_it_until_the_outermost_block_ends():
    lock = FairLock()
    with ThreadPoolExecutor(1) as pool:
        with lock:
            with lock, lock.turn(pytest.fail):
                assert lock.held
            assert lock.held
            assert not pool.submit(lambda: lock.held).result()
        assert not lock.held
        assert pool.submit(_take, lock).result(20)


class GaveUp(Exception):
    pass


def test_who_gives_up_leaves_the_line():
    lock = FairLock()

    def give_up(ahead: int) -> None:
        raise GaveUp

    def try_it() -> None:
        with lock.turn(give_up):
            pytest.fail("it was not free")

    with ThreadPoolExecutor(1) as pool:
        with lock, pytest.raises(GaveUp):
            pool.submit(try_it).result(20)
        assert pool.submit(_take, lock).result(20)


def test_an_error_in_the_block_sets_it_free():
    lock = FairLock()
    with pytest.raises(GaveUp), lock:
        raise GaveUp
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_take, lock).result(20)


def _take(lock: FairLock) -> bool:
    with lock:
        return lock.held
