"""One server's process: an event loop on virtual time, which the world turns, freezes and kills."""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

_MAX_TURNS_AT_ONE_TIME = 20_000


class Timeline:
    """Virtual time, and everything that is to happen later. The order of equal times is that of the calls."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, due_ns: int, event: Callable[[], None]) -> None:
        heappush(self._events, (max(due_ns, self.now_ns), next(self._numbers), event))

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        self.at(self.now_ns + int(delay_s * 1e9), event)

    def next_due_ns(self) -> int:
        return self._events[0][0]

    def advance(self) -> None:
        """Goes on to the next event and lets it happen."""
        self.now_ns, _, event = heappop(self._events)
        event()


class Process(asyncio.AbstractEventLoop):
    """The part of an event loop that servers use. ``speed`` is how fast its clock runs, 1 for exactly.

    Work for threads is done on the timeline: it begins a little later, and its result arrives later still.
    """

    def __init__(self, name: str, timeline: Timeline, chance: random.Random, speed: float) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.problems: list[str] = []
        self._timeline = timeline
        self._chance = chance
        self._speed = speed
        self._ready: deque[asyncio.Handle] = deque()
        self._held: list[Callable[[], None]] = []
        self.disk_delay_s = 0.0005
        self._turns_now = (0, 0)

    # --- for the world ------------------------------------------------------------------------------------------------

    @property
    def runnable(self) -> bool:
        return bool(self._ready) and self.alive and not self.frozen

    def turn(self) -> None:
        """Runs what is ready, as one turn of an event loop would."""
        at_ns, turns = self._turns_now
        turns = turns + 1 if at_ns == self._timeline.now_ns else 0
        self._turns_now = (self._timeline.now_ns, turns)
        if turns > _MAX_TURNS_AT_ONE_TIME:
            raise AssertionError(f"{self.name} turns in circles: {self._ready}")
        self._run_ready()

    def _run_ready(self) -> None:
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def begin(self, work: Any) -> "asyncio.Task[Any]":
        """Starts a task from outside."""
        return self.create_task(work)

    def happen(self, event: Callable[[], None]) -> None:
        """Something from outside reaches the process: now, or when it is thawed."""
        if self.frozen:
            self._held.append(event)
        elif self.alive:
            event()

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        held, self._held = self._held, []
        for event in held:
            self.happen(event)

    def kill(self) -> None:
        """Nothing of it happens any more. Its tasks are ended so that they leave nothing behind in this test's process;
        whatever they try by then must have no effect."""
        self.alive = False
        self.frozen = False
        for _ in range(20):
            unfinished = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not unfinished:
                break
            for task in unfinished:
                task.cancel()
            while self._ready:
                self._run_ready()
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    # --- time ---------------------------------------------------------------------------------------------------------

    def monotonic_ns(self) -> int:
        return 1_000_000_000_000 + int(self._timeline.now_ns * self._speed)

    def time_ns(self) -> int:
        return 1_700_000_000_000_000_000 + int(self._timeline.now_ns * self._speed)

    def time(self) -> float:
        return self.monotonic_ns() / 1e9

    # --- what asyncio and the servers call ----------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        delay_ns = max(0, int((when - self.time()) * 1e9 / self._speed) + 1)
        self._timeline.at(self._timeline.now_ns + delay_ns, lambda: self._due(handle))
        return handle

    def _due(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self.happen(lambda: self._ready.append(handle))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Any = None) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """The disk's work: done at one moment, known at a later one."""
        future = self.create_future()
        if not self.alive:
            future.cancel()
            return future
        chance, delay_s = self._chance, self.disk_delay_s

        def settle(error: BaseException | None, result: Any) -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        def work() -> None:
            try:
                result, error = func(*args), None
            except Exception as raised:  # noqa: BLE001 - it is for who waits
                result, error = None, raised
            self._timeline.after(chance.random() * delay_s, lambda: self.happen(lambda: settle(error, result)))

        self._timeline.after(chance.random() * delay_s, lambda: self.happen(work))
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.alive:
            self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")


class ProcessClock:
    """The clock of whichever process runs."""

    def time_ns(self) -> int:
        return _running().time_ns()

    def monotonic_ns(self) -> int:
        return _running().monotonic_ns()


def _running() -> Process:
    process = asyncio.get_running_loop()
    assert isinstance(process, Process)
    return process
