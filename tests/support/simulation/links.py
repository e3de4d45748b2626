"""Direct links between servers, as TCP is: in order, whole until they break, and up or down whatever NATS is.

As in the real transport, a link is there once its target's announcement was heard, over NATS; where there is none,
messages go over NATS, and what takes another way than the message before may overtake it.
"""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from simulation.network import Message, Network, SimulatedSubscription, SimulatedTransport

#: What isn't acknowledged is sent again so often, and breaks the link after so long.
_RETRY_S = 0.2
_UNANSWERED_S = 3.0
#: From somebody's first message, or the loss of a link, to the announcement that is heard: most answer a question, some are
#: lost, and the next one comes in its time.
_ANNOUNCED_S = (0.06, 0.06, 0.06, 0.5, 5.0)


class Link(NamedTuple):
    """From one server to another."""

    source: str
    target: str


class _OnTheWay(NamedTuple):
    due_ns: int
    subscription: "SimulatedSubscription"
    message: "Message"


class DirectLink:
    """From one process to another."""

    def __init__(self, network: "Network", source: "SimulatedTransport", target: "SimulatedTransport") -> None:
        self.up = False
        self._network = network
        self._source = source
        self._target = target
        self._known: set[SimulatedSubscription] = set()
        self._asked: set[SimulatedSubscription] = set()
        self._sent: deque[_OnTheWay] = deque()
        self._cut_since_ns: int | None = None

    # --- coming and going ---------------------------------------------------------------------------------------------

    def reaches(self, subscription: "SimulatedSubscription") -> bool:
        """Whether messages to it take the link. If not, they will soon."""
        if self.up and subscription in self._known:
            return True
        if subscription not in self._asked:
            self._asked.add(subscription)
            chance = self._network.chance
            delay_s = chance.choice(_ANNOUNCED_S) * chance.random()
            self._network.timeline.after(delay_s, lambda: self._announced(subscription))
        return False

    def _announced(self, subscription: "SimulatedSubscription") -> None:
        self._asked.discard(subscription)
        if self._target.connected and self._source.connected and not self._network.is_cut(self._target, self._source):
            self._known.add(subscription)
            self.up = self.up or not self._is_cut

    def _break_off(self) -> None:
        """What is on the way is lost."""
        self.up = False
        self._known.clear()
        self._sent.clear()

    @property
    def _is_cut(self) -> bool:
        """Acknowledgements go the other way, so it takes both."""
        source, target = self._source.server_id, self._target.server_id
        return not self._network.cut_direct.isdisjoint((Link(source, target), Link(target, source)))

    # --- messages -----------------------------------------------------------------------------------------------------

    def send(self, subscription: "SimulatedSubscription", message: "Message") -> None:
        network, link = self._network, Link(self._source.server_id, self._target.server_id)
        delay_s = network.delay_s * network.chance.random() + network.slow_direct.get(link, 0.0)
        due_ns = network.timeline.now_ns + int(delay_s * 1e9)
        if self._sent:
            due_ns = max(due_ns, self._sent[-1].due_ns)
        else:
            network.timeline.at(due_ns, self._deliver)
        self._sent.append(_OnTheWay(due_ns, subscription, message))
        if link in network.fragile:
            network.fragile.discard(link)
            self._break_off()

    def _deliver(self) -> None:
        timeline, sent = self._network.timeline, self._sent
        if not sent:  # it broke
            return
        if self._is_cut:
            self._wait_for_answers()
            return
        self._cut_since_ns = None
        while sent and sent[0].due_ns <= timeline.now_ns:
            _, subscription, message = sent.popleft()
            subscription.take(message)
        if sent:
            timeline.at(sent[0].due_ns, self._deliver)

    def _wait_for_answers(self) -> None:
        timeline = self._network.timeline
        if self._cut_since_ns is None:
            self._cut_since_ns = timeline.now_ns
        if timeline.now_ns - self._cut_since_ns > _UNANSWERED_S * 1e9:
            self._cut_since_ns = None
            self._break_off()
        else:
            timeline.after(_RETRY_S, self._deliver)
