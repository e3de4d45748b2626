"""The rules: what clients and operators do to streams, on one server or on several, each step compared with the model of
``stream_model.py``. A subclass says which world it runs in.

Streams are ``a`` and ``b``. The numbers that rules draw, and the names in places, stand for whatever there is of it, so that
few steps are in vain.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import count
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from simulation.server import SimulatedServer
from stream_model import Message, Mismatch, PartitionModel, Pass, StreamConfig, StreamModel
from stream_world import Answer, Lost, Outcome, Reading, StreamWorld

from liftbridge.errors import (
    AlreadyExists,
    ConsensusError,
    DeadlineExceeded,
    FailedPrecondition,
    LiftbridgeError,
    LogClosed,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from liftbridge.protocol.generated import api_pb2 as api

_NAMES = ("a", "b")
_KEYS = (b"k", b"l", b"m")
_ATTEMPTS = 40
_AGAIN_S = 0.25
#: Until servers that only hear of a change know it.
_NEWS_S = 10.0
_ANY_OFFSET = -1


class Place(NamedTuple):
    """A partition."""

    name: str
    number: int


class Content(NamedTuple):
    """What is published."""

    key: bytes
    padding: int


_names = st.sampled_from(_NAMES)
_places = st.builds(Place, _names, st.sampled_from(range(3)))
_numbers = st.lists(st.sampled_from(range(3)), max_size=2)
#: Which server, of those that there are.
_servers = st.sampled_from(range(3))
_contents = st.builds(Content, st.sampled_from([b"", *_KEYS]), st.sampled_from([0, 40, 500]))
_many = st.lists(_contents, min_size=1, max_size=8)
_policies = st.sampled_from([api.ALL, api.LEADER, api.NONE])
_configs = st.builds(
    StreamConfig,
    partitions=st.sampled_from(range(1, 4)),
    replicas=st.sampled_from(range(2, 4)),
    compacted=st.sampled_from([True, True, False]),
    checks_offsets=st.sampled_from([False, False, True]),
    segment_bytes=st.sampled_from([1, 1, 600, 100_000]),
)


def step(method: Callable[..., None]) -> Callable[..., None]:
    """Notes whether the machine came to the end of it."""

    @wraps(method)
    def run(self: "StreamMachine", **drawn: Any) -> None:
        self.agrees = False
        method(self, **drawn)
        self.agrees = True

    return run


class StreamMachine(RuleBasedStateMachine):
    """``streams`` is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[str, StreamModel] = {}
        self.agrees = False
        self._values = count()

    @abstractmethod
    def make_world(self, seed: int) -> StreamWorld:
        """The servers; they serve when this returns."""

    @initialize(seed=st.sampled_from(range(1000)), config=_configs, via=_servers)
    @step
    def begin(self, seed: int, config: StreamConfig, via: int) -> None:
        self.world = self.make_world(seed)
        self._create("a", config, via)

    def teardown(self) -> None:
        try:
            if self.agrees:
                self.world.heal()
                self._check_everything()
        finally:
            if hasattr(self, "world"):
                self.world.close()

    # --- streams ------------------------------------------------------------------------------------------------------

    @rule(name=_names, config=_configs, via=_servers)
    @step
    def create(self, name: str, config: StreamConfig, via: int) -> None:
        self._create(name, config, via)

    def _create(self, name: str, config: StreamConfig, via: int) -> None:
        request = api.CreateStreamRequest(
            name=name,
            subject=f"subject.{name}",
            partitions=config.partitions,
            replicationFactor=min(config.replicas, len(self.world.ids)),
            segmentMaxBytes=api.NullableInt64(value=config.segment_bytes),
            compactEnabled=api.NullableBool(value=config.compacted),
            optimisticConcurrencyControl=api.NullableBool(value=config.checks_offsets),
        )
        self._control(via, "CreateStream", request, AlreadyExists if name in self.streams else None)
        self.streams.setdefault(name, StreamModel.new(name, config))
        self._check_metadata(via)

    @precondition(lambda self: any(one.log for stream in self.streams.values() for one in stream.partitions))
    @rule(name=_names, instead=st.none() | _configs, via=_servers)
    @step
    def delete(self, name: str, instead: StreamConfig | None, via: int) -> None:
        """Not before there is something to lose."""
        self._control(via, "DeleteStream", api.DeleteStreamRequest(name=name), self._unless_there(name))
        self.streams.pop(name, None)
        self._check_metadata(via)
        if instead is not None:
            self._create(name, instead, via)

    @rule(name=_names, numbers=_numbers, resume_all=st.booleans(), via=_servers)
    @step
    def pause(self, name: str, numbers: list[int], resume_all: bool, via: int) -> None:
        name, numbers = self._those_there(name, numbers)
        request = api.PauseStreamRequest(name=name, partitions=numbers, resumeAll=resume_all)
        self._control(via, "PauseStream", request, self._unless_there(name))
        if name in self.streams:
            self.streams[name].pause(numbers, resume_all=resume_all)
        self._check_metadata(via)

    @rule(name=_names, numbers=_numbers, readonly=st.booleans(), via=_servers)
    @step
    def set_readonly(self, name: str, numbers: list[int], readonly: bool, via: int) -> None:
        name, numbers = self._those_there(name, numbers)
        request = api.SetStreamReadonlyRequest(name=name, partitions=numbers, readonly=readonly)
        self._control(via, "SetStreamReadonly", request, self._unless_there(name))
        if name in self.streams:
            self.streams[name].set_readonly(numbers, readonly=readonly)
        self._check_metadata(via)

    # --- messages -----------------------------------------------------------------------------------------------------

    @rule(place=_places, contents=_many, policy=st.sampled_from([api.ALL, api.LEADER]), via=_servers)
    @step
    def publish(self, place: Place, contents: list[Content], policy: int, via: int) -> None:
        """In one session, so that they are one batch."""
        self._publish(self._there(place), contents, policy, via, unary=False)

    @rule(place=_places, contents=_many, policy=_policies, via=_servers)
    @step
    def publish_one_by_one(self, place: Place, contents: list[Content], policy: int, via: int) -> None:
        for one in contents:
            self._publish(self._there(place), [one], policy, via, unary=True)

    @rule(
        place=_places,
        rounds=st.sampled_from(range(1, 5)),
        padding=st.sampled_from([0, 300]),
        compacts=st.booleans(),
        via=_servers,
    )
    @step
    def publish_each_key(self, place: Place, rounds: int, padding: int, compacts: bool, via: int) -> None:
        """Again and again, so that there is something to compact."""
        place = self._there(place)
        for _ in range(rounds):
            for key in _KEYS:
                self._publish(place, [Content(key, padding)], api.ALL, via, unary=True)
        if compacts:
            self._compact(place, at_rest=True)

    @rule(place=_places, content=_contents, ahead=st.sampled_from(range(-1, 2)), unary=st.booleans(), via=_servers)
    @step
    def publish_at(self, place: Place, content: Content, ahead: int, unary: bool, via: int) -> None:
        """With an expected offset: that of the next message, or another one."""
        place = self._there(place)
        partition = self._partition(place)
        if partition is None or (self._is_paused(place) and partition.in_doubt):
            return
        if not self._is_paused(place):
            self._settle(place)
        expected = partition.end + ahead
        self._publish(place, [content], api.ALL, via, unary=unary, expected=expected)

    @rule(place=_places, replica=_servers)
    @step
    def read_all(self, place: Place, replica: int) -> None:
        """From the leader, and from any replica."""
        place = self._there(place)
        partition = self._partition(place)
        if partition is None:
            return
        if partition.paused:
            self._check_closed(place)
        else:
            self._settle(place)
            self._read_replica(place, partition, replica)
            if partition.readonly:
                self._read_to_the_end(place, partition)

    @rule(place=_places, start=st.sampled_from(range(31)), length=st.sampled_from(range(31)), reverse=st.booleans())
    @step
    def read_some(self, place: Place, start: int, length: int, reverse: bool) -> None:
        place = self._there(place)
        partition = self._partition(place)
        if partition is None or partition.paused:
            return
        self._settle(place)
        if partition.end:
            start %= partition.end
            self._read_range(place, partition, start, min(start + length, partition.end - 1), reverse=reverse)

    @rule(place=_places)
    @step
    def resume_by_reading(self, place: Place) -> None:
        place = self._there(place)
        if self._partition(place) is not None:
            self._resume(place)
            self._settle(place)

    @rule(content=_contents, policy=_policies, unary=st.booleans(), via=_servers)
    @step
    def ask_for_what_is_not_there(self, content: Content, policy: int, unary: bool, via: int) -> None:
        for name in set(_NAMES) - set(self.streams):
            place = Place(name, 0)
            self._publish(place, [content], policy, via, unary=unary)
            self._check_unknown(place, via)

    @rule(place=_places, at_rest=st.booleans())
    @step
    def compact(self, place: Place, at_rest: bool) -> None:
        self._compact(self._there(place), at_rest=at_rest)

    def _compact(self, place: Place, *, at_rest: bool) -> None:
        partition = self._partition(place)
        if partition is None:
            return
        if partition.paused:
            self.world.rest(*place)
            self.world.compact(*place)  # everybody has closed it
            return
        if at_rest:
            self._settle(place)
        stream = self.streams[place.name]
        passes = self.world.compact(*place)
        everywhere = at_rest and len(passes) == self._replica_count(stream)
        self._settle(place, passes if stream.config.compacted else (), everywhere=everywhere)

    # --- servers ------------------------------------------------------------------------------------------------------

    @rule(index=_servers)
    @step
    def restart(self, index: int) -> None:
        self.world.heal()
        self.world.stop(self._server(index).server_id)
        self.world.heal()

    @rule(victims=st.sampled_from(["one", "one for longer", "all"]), index=_servers)
    @step
    def kill(self, victims: str, index: int) -> None:
        self.world.heal()
        if victims == "all":
            for server_id in self.world.ids:
                self.world.kill(server_id)
            self.world.heal()
        else:
            self._kill(self._server(index), stays_away=victims != "one")

    @rule(
        place=_places,
        contents=_many,
        policy=st.sampled_from([api.ALL, api.LEADER]),
        via=_servers,
        victim=st.none() | _servers,
        turns=st.sampled_from(range(25)),
        stays_away=st.booleans(),
    )
    @step
    def kill_while_publishing(
        self,
        place: Place,
        contents: list[Content],
        policy: int,
        via: int,
        victim: int | None,
        turns: int,
        stays_away: bool,
    ) -> None:
        """The leader, if it is to be nobody else."""
        place = self._there(place)
        partition = self._partition(place)
        if partition is None or self._needs_resume(place):
            return
        self.world.heal()
        server = self._leader(place, 0) if victim is None else self._server(victim)
        assert server is not None
        messages = self._messages(contents)
        call, answers = self.world.begin_publishing(self._server(via), self._requests(place, messages, policy))
        self.world.turn(turns)
        self._kill(server, stays_away=stays_away)
        self.world.wait(call)
        for message, answer in zip(messages, answers, strict=True):
            self._note(partition, message, answer, policy)

    def _kill(self, server: SimulatedServer, *, stays_away: bool) -> None:
        """Alone there is nobody to go on."""
        self.world.kill(server.server_id)
        if not stays_away or len(self.world.ids) == 1:
            self.world.heal()

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def _alone(self) -> bool:
        return len(self.world.ids) == 1

    def _server(self, index: int) -> SimulatedServer:
        serving = self.world.serving
        return serving[index % len(serving)]

    def _there(self, place: Place) -> Place:
        """What a drawn place stands for: a partition that there is, if there is any."""
        stream = self.streams.get(place.name) or next(iter(self.streams.values()), None)
        return place if stream is None else Place(stream.name, place.number % len(stream.partitions))

    def _partition(self, place: Place) -> PartitionModel | None:
        stream = self.streams.get(place.name)
        return stream.partitions[place.number] if stream is not None else None

    def _those_there(self, name: str, numbers: Sequence[int]) -> tuple[str, list[int]]:
        """The same of several partitions of one stream."""
        places = [self._there(Place(name, number)) for number in numbers]
        return self._there(Place(name, 0)).name, [one.number for one in places]

    def _is_paused(self, place: Place) -> bool:
        partition = self._partition(place)
        return partition is not None and partition.paused

    def _needs_resume(self, place: Place) -> bool:
        """Whether a message to the partition resumes something."""
        stream = self.streams[place.name]
        return self._is_paused(place) or (stream.resume_all and stream.any_paused)

    def _replica_count(self, stream: StreamModel) -> int:
        return min(stream.config.replicas, len(self.world.ids))

    def _unless_there(self, name: str) -> type[LiftbridgeError] | None:
        return None if name in self.streams else NotFound

    # --- control calls ------------------------------------------------------------------------------------------------

    def _control(self, via: int, method: str, request: Any, refusal: type[LiftbridgeError] | None) -> None:
        """Calls until there is an answer, which must be ``refusal``, or none. Whoever repeats a call may find that it had
        been done."""
        in_doubt = False
        for attempt in range(_ATTEMPTS):
            try:
                self.world.call(self._server(via + attempt), method, request)
            except (Lost, Unavailable, DeadlineExceeded, ConsensusError):
                in_doubt = True
                self.world.advance(_AGAIN_S)
                continue
            except LiftbridgeError as error:
                done_before = in_doubt and isinstance(error, AlreadyExists | NotFound)
                if not done_before and (refusal is None or not isinstance(error, refusal)):
                    raise Mismatch(f"{method} {request} was refused: {error!r}") from error
                return
            if refusal is not None and not in_doubt:
                raise Mismatch(f"{method} {request} was done, and should be refused with {refusal.__name__}")
            return
        raise Mismatch(f"{method} {request} has no answer")

    # --- publishing ---------------------------------------------------------------------------------------------------

    def _messages(self, contents: Sequence[Content]) -> list[Message]:
        return [Message(one.key, b"%d" % next(self._values) + b"." * one.padding) for one in contents]

    def _requests(
        self, place: Place, messages: Sequence[Message], policy: int, expected: int = _ANY_OFFSET
    ) -> list[api.PublishRequest]:
        return [
            api.PublishRequest(
                stream=place.name,
                partition=place.number,
                key=one.key,
                value=one.value,
                ackPolicy=policy,  # type: ignore[arg-type]
                expectedOffset=expected,
            )
            for one in messages
        ]

    def _publish(
        self,
        place: Place,
        contents: Sequence[Content],
        policy: int,
        via: int,
        *,
        unary: bool,
        expected: int = _ANY_OFFSET,
    ) -> None:
        """Until each message has an outcome; what may be repeated is."""
        messages = self._messages(contents)
        wanted = self._wanted_outcomes(place, policy, expected)
        for attempt in range(_ATTEMPTS):
            server = self._server(via + attempt)
            requests = self._requests(place, messages, policy, expected)
            answers = [self.world.publish_one(server, requests[0])] if unary else self.world.publish(server, requests)
            again = []
            for message, answer in zip(messages, answers, strict=True):
                if self._take_answer(place, message, answer, policy, wanted):
                    again.append(message)
            messages = again
            if not messages:
                return
            self.world.advance(_AGAIN_S)
        raise Mismatch(f"{messages} are not taken, and should be {wanted}")

    def _wanted_outcomes(self, place: Place, policy: int, expected: int) -> set[Outcome]:
        """What may become of a message; of several reasons to refuse it, any will do."""
        partition = self._partition(place)
        if partition is None:
            return {Outcome.NOT_FOUND}
        checked = self.streams[place.name].config.checks_offsets
        refusals = {Outcome.READONLY} if partition.readonly else set()
        if checked and policy == api.NONE:
            refusals.add(Outcome.BAD_REQUEST)
        if checked and not refusals and expected not in (_ANY_OFFSET, partition.end):
            refusals.add(Outcome.WRONG_OFFSET)
        return refusals or {Outcome.STORED}

    def _take_answer(self, place: Place, message: Message, answer: Answer, policy: int, wanted: set[Outcome]) -> bool:
        """Whether the message must be sent again."""
        partition, outcome = self._partition(place), answer.outcome
        if outcome not in wanted and self._is_late(place, outcome):
            return True
        if outcome not in wanted and not (outcome is Outcome.UNKNOWN and self.world.away):
            raise Mismatch(f"{place} {message} is {answer}, and should be {wanted}")
        if partition is None:
            return False  # nor is it there
        if outcome is Outcome.UNKNOWN and self._needs_resume(place):
            self._resume(place)
        elif outcome in (Outcome.STORED, Outcome.WRONG_OFFSET):
            self.streams[place.name].resume(place.number)
        if Outcome.STORED in wanted:
            self._note(partition, message, answer, policy)
        return False

    def _is_late(self, place: Place, outcome: Outcome) -> bool:
        """Whether a server may not have heard of the stream, or of its leader; in a cluster, of its deletion, or, where no
        leader runs that would know, of its being open again."""
        if outcome in (Outcome.REFUSED, Outcome.NOT_FOUND):
            return True
        if self._alone:
            return False
        return place.name not in self.streams or (outcome is Outcome.READONLY and self._needs_resume(place))

    def _note(self, partition: PartitionModel, message: Message, answer: Answer, policy: int) -> None:
        """What an answer says. What only the leader had may go with it."""
        certain = answer.outcome is Outcome.STORED and (policy == api.ALL or self._alone)
        if answer.outcome is Outcome.UNKNOWN and partition.readonly:
            return
        if certain and answer.offset is not None:
            partition.store(message, answer.offset)
        elif certain and not partition.in_doubt:
            partition.store(message, partition.end)
        elif answer.outcome in (Outcome.STORED, Outcome.UNKNOWN):
            partition.doubt(message, answer.offset)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _settle(self, place: Place, passes: Sequence[Pass] = (), *, everywhere: bool = False) -> None:
        """Reads all of a partition that isn't paused, once it is at rest; ends all doubt. ``passes`` of compaction were just
        before."""
        partition = self._partition(place)
        assert partition is not None
        self.world.rest(place.name, place.number)
        request = self._subscription(place, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST)
        reading = self._read(place, request)
        self._check_ended(reading)
        self._check_fields(place, reading.messages)
        partition.settle(reading.found, passes, everywhere=everywhere)
        self._check_figures(place, partition)

    def _read_to_the_end(self, place: Place, partition: PartitionModel) -> None:
        """What is readonly has one, for who asked for none."""
        reading = self._read(place, self._subscription(place, startPosition=api.EARLIEST))
        self._check_ended(reading)
        partition.check(reading.found, 0, partition.end)

    def _read_replica(self, place: Place, partition: PartitionModel, index: int) -> None:
        """From any server that has one, as it is at rest."""
        request = self._subscription(
            place, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST, readISRReplica=True
        )
        reading = self._read(place, request, at=index)
        self._check_ended(reading)
        partition.check(reading.found, 0, partition.end)

    def _read_range(self, place: Place, partition: PartitionModel, first: int, last: int, *, reverse: bool) -> None:
        """Both ends included."""
        begin, end = (last, first) if reverse else (first, last)
        request = self._subscription(
            place,
            startPosition=api.OFFSET,
            startOffset=begin,
            stopPosition=api.STOP_OFFSET,
            stopOffset=end,
            reverse=reverse,
        )
        reading = self._read(place, request)
        self._check_ended(reading)
        partition.check(reading.found, first, last + 1, reverse=reverse)

    def _subscription(self, place: Place, **fields: Any) -> api.SubscribeRequest:
        return api.SubscribeRequest(stream=place.name, partition=place.number, **fields)

    def _read(self, place: Place, request: api.SubscribeRequest, at: int | None = None) -> Reading:
        """From the leader, or first from any server. An answer that isn't one of a server that leads, or follows, is none."""
        for attempt in range(_ATTEMPTS):
            server = self._leader(place, attempt) if at is None or attempt else self._server(at)
            try:
                if server is not None:
                    return self.world.read(server, request)
            except (Lost, Unavailable, FailedPrecondition, NotFound):
                pass
            except ResourceExhausted as error:
                return Reading(end=error)
            self.world.advance(_AGAIN_S)
        raise Mismatch(f"{place} can't be read")

    def _leader(self, place: Place, attempt: int) -> SimulatedServer | None:
        """As some server has heard."""
        response = self._fetch_metadata(self._server(attempt), place.name)
        leader = response.streamMetadata[0].partitions[place.number].leader
        return next((one for one in self.world.serving if one.server_id == leader), None)

    def _resume(self, place: Place) -> None:
        """By a subscription that asks for it."""
        request = self._subscription(place, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST, resume=True)
        self._read(place, request)
        self.streams[place.name].resume(place.number)
        self._check_metadata(0)

    def _check_ended(self, reading: Reading) -> None:
        """Where it was to stop, or at once, as nothing is there."""
        if not isinstance(reading.end, ResourceExhausted):
            raise Mismatch(f"reading ended with {reading.end!r}")

    def _check_fields(self, place: Place, messages: Sequence[api.Message]) -> None:
        subject = f"subject.{place.name}.{place.number}" if place.number else f"subject.{place.name}"
        for one in messages:
            if (one.stream, one.partition, one.subject) != (*place, subject):
                raise Mismatch(f"read {one} in {place}")
        times = [one.timestamp for one in messages]
        if times != sorted(times):
            raise Mismatch(f"times go back in {place}: {times}")

    def _check_closed(self, place: Place) -> None:
        """What is paused gives nothing, and a look resumes nothing."""
        reading = self._read(place, self._subscription(place, startPosition=api.EARLIEST))
        if reading.messages or not isinstance(reading.end, LogClosed):
            raise Mismatch(f"{place} is paused, and gives {reading}")

    def _check_unknown(self, place: Place, via: int) -> None:
        request = api.SubscribeRequest(stream=place.name, partition=0)

        def is_unknown() -> bool:
            try:
                self.world.read(self._server(via), request)
            except NotFound:
                return True
            except LiftbridgeError:
                pass
            return False

        self._soon(is_unknown, f"{place} doesn't exist, and can be read")

    # --- metadata -----------------------------------------------------------------------------------------------------

    def _fetch_metadata(self, server: SimulatedServer, *names: str) -> api.FetchMetadataResponse:
        response = self.world.call(server, "FetchMetadata", api.FetchMetadataRequest(streams=names))
        assert isinstance(response, api.FetchMetadataResponse)
        return response

    def _check_metadata(self, via: int) -> None:
        """What any server says of the streams; others than the one that was asked may hear of a change later."""
        server = self._server(via)

        def said() -> dict[str, Any]:
            response = self._fetch_metadata(server)
            return {one.name: _described(one) for one in response.streamMetadata}

        wanted = {name: self._described(stream) for name, stream in self.streams.items()}
        self._soon(lambda: said() == wanted, lambda: f"{server.server_id} says {said()}, and it is {wanted}")

    def _described(self, stream: StreamModel) -> dict[str, Any]:
        return {
            "subject": f"subject.{stream.name}",
            "partitions": {
                number: {
                    "replicas": self._replica_count(stream),
                    "paused": one.paused,
                    "readonly": one.readonly,
                    "pause times": one.ever_paused,
                    "readonly times": one.ever_readonly,
                }
                for number, one in enumerate(stream.partitions)
            },
        }

    def _check_figures(self, place: Place, partition: PartitionModel) -> None:
        """Of a partition at rest, as its leader says."""
        request = api.FetchPartitionMetadataRequest(stream=place.name, partition=place.number)

        def said() -> tuple[int, int] | None:
            leader = self._leader(place, 0)
            if leader is None:
                return None
            try:
                metadata = self.world.call(leader, "FetchPartitionMetadata", request).metadata
            except (Lost, FailedPrecondition, NotFound):
                return None
            return metadata.highWatermark, metadata.newestOffset

        wanted = (partition.end - 1, partition.end - 1)
        self._soon(lambda: said() == wanted, lambda: f"{place} says that it ends at {said()}, and it is {wanted}")

    def _check_everything(self) -> None:
        for stream in self.streams.values():
            for number in range(len(stream.partitions)):
                place = Place(stream.name, number)
                if self._is_paused(place):
                    self._resume(place)
                self._settle(place)
        for index in range(len(self.world.ids)):
            self._check_metadata(index)

    def _soon(self, holds: Callable[[], bool], problem: str | Callable[[], str]) -> None:
        """At once on one server; on several when all have heard."""
        for _ in range(1 if self._alone else int(_NEWS_S / _AGAIN_S)):
            if holds():
                return
            self.world.advance(0 if self._alone else _AGAIN_S)
        raise Mismatch(problem if isinstance(problem, str) else problem())


def _described(stream: api.StreamMetadata) -> dict[str, Any]:
    return {
        "subject": stream.subject,
        "partitions": {
            number: {
                "replicas": len(one.replicas),
                "paused": one.paused,
                "readonly": one.readonly,
                "pause times": one.HasField("pauseTimestamps"),
                "readonly times": one.HasField("readonlyTimestamps"),
            }
            for number, one in stream.partitions.items()
        },
    }
