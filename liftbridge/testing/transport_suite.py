"""What every transport must do. Subclass :class:`TransportSuite` in a test module, give it ``make_transport``, and run
pytest with pytest-asyncio in auto mode."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from liftbridge.errors import NoResponders, PayloadTooLarge, RequestTimeout, TransportClosed
from liftbridge.interfaces.transport import Delivery, Transport

#: Starts a transport for the server of that ID; all of a test's transports reach one another. The fixture stops them.
MakeTransport = Callable[[str], Awaitable[Transport]]

_TIMEOUT_S = 10.0


class Collector:
    """A sink that keeps what it gets, and can be waited on."""

    def __init__(self) -> None:
        self.calls: list[list[Delivery]] = []
        self._changed = asyncio.Event()

    def __call__(self, deliveries: list[Delivery]) -> None:
        self.calls.append(deliveries)
        self._changed.set()

    @property
    def deliveries(self) -> list[Delivery]:
        return [delivery for call in self.calls for delivery in call]

    @property
    def messages(self) -> list[tuple[str, str, bytes]]:
        return [(d.subject, d.reply, payload) for d in self.deliveries for payload in d.payloads]

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.messages]

    async def wait_for(self, count: int) -> list[bytes]:
        """Returns the payloads once there are ``count`` or more."""
        async with asyncio.timeout(_TIMEOUT_S):
            while len(self.payloads) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.payloads


def responder(transport: Transport, answer: Callable[[bytes], bytes]) -> Callable[[list[Delivery]], None]:
    """A sink that answers each request on ``transport``."""

    def sink(deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            transport.publish(delivery.reply, [answer(payload) for payload in delivery.payloads])

    return sink


class TransportSuite:
    """The tests. ``make_transport`` must be overridden."""

    @pytest.fixture
    def make_transport(self) -> MakeTransport:
        raise NotImplementedError("override the fixture make_transport")

    # --- publishing and subscribing -----------------------------------------------------------------------------------

    async def test_a_message_reaches_every_matching_subscription(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        literal, star, rest, other = Collector(), Collector(), Collector(), Collector()
        await a.subscribe("foo.bar", literal)
        await b.subscribe("foo.*", star)
        await b.subscribe("foo.>", rest)
        await b.subscribe("foo.baz", other)
        b.publish("foo.bar", [b"x"], reply="inbox.1")
        for collector in (literal, star, rest):
            await collector.wait_for(1)
            assert collector.messages == [("foo.bar", "inbox.1", b"x")]
        assert other.messages == []

    async def test_payloads_arrive_whole_and_in_order(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        got = Collector()
        await b.subscribe("order", got)
        payloads = [b"%d" % i * (i % 17) for i in range(3000)] + [b"", b"\r\n", b"MSG order 1 5\r\n", bytes(range(256))]
        for start in range(0, len(payloads), 100):
            a.publish("order", payloads[start : start + 100])
        assert await got.wait_for(len(payloads)) == payloads

    async def test_consecutive_messages_of_one_subject_come_in_one_delivery(
        self, make_transport: MakeTransport
    ) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        got = Collector()
        await b.subscribe("many.>", got)
        a.publish("many.x", [b"0123456789"] * 500)
        a.publish("many.y", [b"1"])
        await got.wait_for(501)
        assert [d.subject for d in got.deliveries][-1] == "many.y"
        assert all(d.subject == "many.x" for d in got.deliveries[:-1])
        for call in got.calls:
            subjects = [(d.subject, d.reply) for d in call]
            assert all(one != other for one, other in pairwise(subjects))

    async def test_the_largest_payload_goes_through_and_a_larger_one_is_refused(
        self, make_transport: MakeTransport
    ) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        got = Collector()
        await b.subscribe("large", got)
        largest = b"x" * a.max_payload_bytes
        a.publish("large", [largest])
        with pytest.raises(PayloadTooLarge):
            a.publish("large", [b"small", largest + b"y"])
        with pytest.raises(PayloadTooLarge):
            await a.request("large", largest + b"y", timeout_s=1)
        a.publish("large", [b"end"])
        assert await got.wait_for(2) == [largest, b"end"]

    @pytest.mark.parametrize(
        "subject",
        [
            "",
            "a b",
            "a\r\nPUB x 0\r\n",
            "a\tb",
            "a.",
            ".a",
            "a..b",
            "a.*",
            ">",
            "*",
            "a.>",
            "a\0b",
            "a\x7f",
            "a\u2003b",
        ],
    )
    async def test_a_subject_that_cannot_be_published_to_is_refused(
        self, make_transport: MakeTransport, subject: str
    ) -> None:
        transport = await make_transport("a")
        with pytest.raises(ValueError):
            transport.publish(subject, [b"x"])
        with pytest.raises(ValueError):
            await transport.request(subject, b"x", timeout_s=1)
        if subject:
            with pytest.raises(ValueError):
                transport.publish("good", [b"x"], reply=subject)
        assert transport.connected

    @pytest.mark.parametrize("subject", ["", "a b", ">.a", "a.>.b", "a..b", "a.", "a\r\n"])
    async def test_a_subject_that_cannot_be_subscribed_to_is_refused(
        self, make_transport: MakeTransport, subject: str
    ) -> None:
        transport = await make_transport("a")
        with pytest.raises(ValueError):
            await transport.subscribe(subject, Collector())
        with pytest.raises(ValueError):
            await transport.subscribe("good", Collector(), queue="two words")
        await transport.flush(timeout_s=_TIMEOUT_S)
        assert transport.connected

    async def test_subjects_may_hold_any_other_character(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        got = Collector()
        await b.subscribe("ü.*", got)
        for subject in ("ü.名前", "ü.x*y", "ü.a>b", "ü.$JS/x"):
            a.publish(subject, [b"x"])
        await got.wait_for(4)
        assert [d.subject for d in got.deliveries] == ["ü.名前", "ü.x*y", "ü.a>b", "ü.$JS/x"]

    async def test_publishing_nothing_sends_nothing(self, make_transport: MakeTransport) -> None:
        transport = await make_transport("a")
        got = Collector()
        await transport.subscribe("nothing", got)
        transport.publish("nothing", [])
        transport.publish("nothing", [b"something"])
        assert await got.wait_for(1) == [b"something"]

    async def test_nothing_arrives_after_unsubscribe(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        got, other = Collector(), Collector()
        subscription = await b.subscribe("left", got)
        await b.subscribe("left", other)
        a.publish("left", [b"1"])
        await got.wait_for(1)
        await subscription.unsubscribe()
        await subscription.unsubscribe()
        a.publish("left", [b"2"])
        await other.wait_for(2)
        assert got.payloads == [b"1"]

    async def test_two_subscriptions_of_one_server_each_get_every_message(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        first, second = Collector(), Collector()
        await b.subscribe("twice", first, echo=False)
        await b.subscribe("twice", second, echo=False)
        payloads = [b"%d" % i for i in range(200)]
        a.publish("twice", payloads)
        assert await first.wait_for(200) == payloads
        assert await second.wait_for(200) == payloads

    # --- echo ---------------------------------------------------------------------------------------------------------

    async def test_without_echo_everybody_gets_it_but_our_own_subscriptions_without_echo(
        self, make_transport: MakeTransport
    ) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        own, own_with_echo, own_queue, theirs, their_echo = (Collector() for _ in range(5))
        await a.subscribe("echo", own, echo=False)
        await a.subscribe("echo", own_with_echo)
        await a.subscribe("echo", own_queue, queue="group", echo=False)
        await b.subscribe("echo", theirs, echo=False)
        await b.subscribe("echo", their_echo)
        a.publish("echo", [b"hidden"], echo=False)
        for collector in (own_with_echo, own_queue, theirs, their_echo):
            assert await collector.wait_for(1) == [b"hidden"]
        a.publish("echo", [b"seen"])
        b.publish("echo", [b"from b"], echo=False)
        assert sorted(await own.wait_for(2)) == [b"from b", b"seen"]
        assert sorted(await theirs.wait_for(2)) == [b"hidden", b"seen"]

    # --- queue groups -------------------------------------------------------------------------------------------------

    async def test_what_is_published_directly_reaches_the_server_that_listens_directly(
        self, make_transport: MakeTransport
    ) -> None:
        """From the beginning, whichever way it takes; in order on each, so in order once there is only one."""
        a, b = await make_transport("a"), await make_transport("b")
        got, below, left = Collector(), Collector(), Collector()
        await b.subscribe_direct("direct.b", got)
        await b.subscribe_direct("below.b.>", below)
        subscription = await b.subscribe_direct("left.b", left)
        payloads = [b"%d" % i * (i % 7) for i in range(500)]
        a.publish_direct("direct.b", payloads, reply="answers.a")
        assert await got.wait_for(500) == payloads
        assert {message[:2] for message in got.messages} == {("direct.b", "answers.a")}
        await subscription.unsubscribe()
        a.publish_direct("left.b", [b"x"])
        a.publish_direct("below.b.c", [b"end"])
        assert await below.wait_for(1) == [b"end"]
        assert left.messages == []
        with pytest.raises(PayloadTooLarge):
            a.publish_direct("direct.b", [b"x" * (a.max_payload_bytes + 1)])

    async def test_each_message_goes_to_one_member_of_a_group(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        one, two, other_group, outside = (Collector() for _ in range(4))
        await a.subscribe("work", one, queue="g")
        await b.subscribe("work", two, queue="g")
        await b.subscribe("work", other_group, queue="h")
        await b.subscribe("work", outside)
        payloads = [b"%d" % i for i in range(200)]
        a.publish("work", payloads)
        assert await outside.wait_for(200) == payloads
        assert sorted(await other_group.wait_for(200)) == sorted(payloads)
        async with asyncio.timeout(_TIMEOUT_S):
            while len(one.payloads) + len(two.payloads) < 200:
                await a.flush(timeout_s=_TIMEOUT_S)
                await b.flush(timeout_s=_TIMEOUT_S)
                await asyncio.sleep(0)
        assert sorted(one.payloads + two.payloads) == sorted(payloads)
        assert one.payloads
        assert two.payloads

    # --- request and reply --------------------------------------------------------------------------------------------

    async def test_a_request_gets_its_reply(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        await b.subscribe("service", responder(b, bytes.upper))
        replies = await asyncio.gather(*(a.request("service", b"x%d" % i, timeout_s=_TIMEOUT_S) for i in range(50)))
        assert replies == [b"X%d" % i for i in range(50)]

    async def test_a_server_answers_its_own_request(self, make_transport: MakeTransport) -> None:
        a = await make_transport("a")
        await a.subscribe("self", responder(a, bytes.upper), echo=False)
        assert await a.request("self", b"x", timeout_s=_TIMEOUT_S) == b"X"

    async def test_a_request_that_nobody_hears_says_so_at_once(self, make_transport: MakeTransport) -> None:
        a = await make_transport("a")
        with pytest.raises(NoResponders, match="nobody\\.here"):
            await a.request("nobody.here", b"x", timeout_s=_TIMEOUT_S)

    async def test_a_request_that_nobody_answers_times_out(self, make_transport: MakeTransport) -> None:
        a = await make_transport("a")
        await a.subscribe("silent", Collector())
        with pytest.raises(RequestTimeout, match="silent"):
            await a.request("silent", b"x", timeout_s=0.05)

    async def test_a_reply_subject_that_is_subscribed_gets_no_message_when_nobody_listens(
        self, make_transport: MakeTransport
    ) -> None:
        a = await make_transport("a")
        inbox = Collector()
        await a.subscribe("inbox.*", inbox)
        a.publish("nobody.here", [b"x"], reply="inbox.1")
        await a.flush(timeout_s=_TIMEOUT_S)
        a.publish("inbox.2", [b"end"])
        assert await inbox.wait_for(1) == [b"end"]

    # --- life ---------------------------------------------------------------------------------------------------------

    async def test_stop_sends_what_is_buffered_and_refuses_from_then_on(self, make_transport: MakeTransport) -> None:
        a, b = await make_transport("a"), await make_transport("b")
        got = Collector()
        await b.subscribe("last", got)
        a.publish("last", [b"words"])
        a.publish("last", [b"!"], echo=False)
        await a.stop()
        await a.stop()
        assert sorted(await got.wait_for(2)) == [b"!", b"words"]
        assert not a.connected
        with pytest.raises(TransportClosed):
            a.publish("last", [b"too late"])
        with pytest.raises(TransportClosed):
            a.publish_direct("last", [b"too late"])
        with pytest.raises(TransportClosed):
            await a.subscribe("last", got)
        with pytest.raises(TransportClosed):
            await a.subscribe_direct("last", got)
        with pytest.raises(TransportClosed):
            await a.request("last", b"too late", timeout_s=1)
        with pytest.raises(TransportClosed):
            await a.flush(timeout_s=1)
