"""What goes wrong, and how often. Every run has a character of its own; most faults end by themselves."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from liftbridge.errors import LiftbridgeError
from liftbridge.metadata.asking import ControllerClient
from liftbridge.protocol.generated import internal_pb2 as internal
from simulation.links import Link
from simulation.server import NAMESPACE, SimulatedServer

if TYPE_CHECKING:
    from simulation.world import World

#: How many servers are the most that may be away at a time, but for disasters.
_MAX_AWAY = 1


class Faults:
    """Chooses victims among those that matter: leaders of partitions and of the metadata group."""

    def __init__(self, world: "World", weights: Mapping[str, float]) -> None:
        self._world = world
        self._chance = chance = world.chance
        self.over = True
        self.drift = chance.choice([0.0, 0.0, 0.01, 0.05])
        self._every_s = chance.choice([0.15, 0.4, 1.0])
        usual: dict[Callable[[], None], float] = {
            self.kill: chance.choice([0, 1, 3]),
            self.kill_all: chance.choice([0, 0.2]),
            self.lose_power: chance.choice([0, 1, 3]),
            self.relapse: chance.choice([0, 0, 1]),
            self.freeze: chance.choice([0, 1, 3]),
            self.cut: chance.choice([0, 1, 3]),
            self.isolate: chance.choice([0, 1, 2]),
            self.disconnect: chance.choice([0, 1]),
            self.break_link: chance.choice([0, 1, 3]),
            self.slow_link: chance.choice([0, 1]),
            self.slow_disk: chance.choice([0, 1]),
            self.bad_network: chance.choice([0, 1]),
            self.terminate: chance.choice([0, 0.7]),
            self.drain: chance.choice([0, 0.3]),
            self.transfer: chance.choice([0, 1, 3]),
            self.fill_disk: 0,
        }
        self._weights = {action: weights.get(action.__name__, weight) for action, weight in usual.items()}
        if not sum(self._weights.values()):
            self._weights[self.kill] = 1

    def begin(self) -> None:
        self.over = False
        self._later(0.05, 0.5, self._again)

    def _again(self) -> None:
        if self.over:
            return
        action = self._chance.choices(list(self._weights), list(self._weights.values()))[0]
        action()
        self._world.timeline.after(self._chance.expovariate(1 / self._every_s), self._again)

    def end(self) -> None:
        """Everything is well again, from now on."""
        self.over = True
        world = self._world
        world.note("heal")
        world.network.heal()
        for server_id in world.ids:
            world.disks[server_id].full = False
        for server in world.running():
            server.process.disk_delay_s = 0.0005
            self._thaw(server)
            self._reconnect(server)
        self._keep_up()

    def _keep_up(self) -> None:
        """An operator, or systemd: whoever isn't running, or was drained, is started again."""
        world = self._world
        for server_id in world.ids:
            if server_id not in world.removed:
                state = world.invariants.latest.servers.get(server_id)
                server = world.servers.get(server_id)
                alive = server is not None and server.process.alive
                if alive and state is not None and state.status.name == "DRAINING" and not server.stopping:
                    server.stop()
                world.start(server_id)
        world.timeline.after(1.0, self._keep_up)

    # --- victims ------------------------------------------------------------------------------------------------------

    def _victim(self) -> SimulatedServer | None:
        world = self._world
        running = [one for one in world.running() if not one.process.frozen]
        if not running:
            return None
        important = {
            partition.leader for stream in world.invariants.latest.streams.values() for partition in stream.partitions
        }
        leaders = [one for one in running if one.server_id in important or _leads_metadata(one)]
        return self._chance.choice(leaders if leaders and self._chance.random() < 0.7 else running)

    def _someone_to_lose(self) -> SimulatedServer | None:
        """Not too many at a time, or nothing happens any more."""
        world = self._world
        away = len(world.ids) - len(world.removed) - len([one for one in world.running() if not one.process.frozen])
        return self._victim() if away < _MAX_AWAY or self._chance.random() < 0.15 else None

    def _later(self, least_s: float, most_s: float, action: Callable[[], None]) -> None:
        self._world.timeline.after(self._chance.uniform(least_s, most_s), action)

    # --- processes ----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9, and systemd."""
        server = self._someone_to_lose()
        if server is not None:
            self._world.kill(server.server_id)
            self._later(0.01, 3, partial(self._restart, server.server_id))

    def kill_all(self) -> None:
        for server in self._world.running():
            self._world.kill(server.server_id)
            self._later(0.01, 2, partial(self._restart, server.server_id))

    def _restart(self, server_id: str) -> None:
        if server_id not in self._world.removed:
            self._world.start(server_id)

    def lose_power(self) -> None:
        """The machine goes down: what wasn't synced may be gone. Only where others have it, but with durability sync."""
        server_id = self._switch_off()
        if server_id:
            self._later(0.01, 2, partial(self._restart, server_id))

    def relapse(self) -> None:
        """A loss of power, and a start that is killed before anybody may know of it."""
        server_id = self._switch_off()
        if server_id:
            self._later(0.02, 0.02, partial(self._restart, server_id))
            self._later(0.022, 0.03, partial(self._world.kill, server_id))
            self._later(0.04, 0.3, partial(self._restart, server_id))

    def _switch_off(self) -> str:
        """Returns who lost power; "" if nobody may."""
        server = self._someone_to_lose()
        world = self._world
        if server is None or not (world.invariants.synced or self._is_backed(server.server_id)):
            return ""
        world.kill(server.server_id)
        cut = world.disks[server.server_id].lose_power(self._chance)
        world.note(f"power lost {server.server_id} {cut}")
        world.invariants.lost_power(server.server_id)
        return server.server_id

    def _is_backed(self, server_id: str) -> bool:
        """Whether each ISR has another member that has lost nothing."""
        invariants = self._world.invariants
        return all(
            set(partition.isr) - {server_id, *invariants.lossy}
            for stream in invariants.latest.streams.values()
            for partition in stream.partitions
        )

    def freeze(self) -> None:
        """SIGSTOP, or a machine that has no time: when it goes on, it thinks that nothing happened."""
        server = self._someone_to_lose()
        if server is not None:
            self._world.note(f"freeze {server.server_id}")
            server.process.freeze()
            self._later(0.05, 3, partial(self._thaw, server))

    def _thaw(self, server: SimulatedServer) -> None:
        if server.process.alive and server.process.frozen:
            self._world.note(f"thaw {server.server_id}")
            server.process.thaw()

    def terminate(self) -> None:
        """SIGTERM: it drains, stops and is started again, as in a rolling restart."""
        server = self._someone_to_lose()
        if server is not None and server.serving:
            self._world.note(f"terminate {server.server_id}")
            server.stop()
            self._later(2, 5, partial(self._restart, server.server_id))

    # --- network ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """One link, one way or both, noticed by NATS or not."""
        source, target = self._chance.sample(self._world.ids, 2)
        links = {Link(source, target)}
        if self._chance.random() < 0.6:
            links.add(Link(target, source))
        self._cut(links)

    def isolate(self) -> None:
        """A server, from all others."""
        server = self._victim()
        if server is not None:
            others = [one for one in self._world.ids if one != server.server_id]
            links = {Link(server.server_id, one) for one in others}
            self._cut(links | {Link(one, server.server_id) for one in others})

    def _cut(self, links: set[Link]) -> None:
        """Most cuts are between machines; some are of one way between them."""
        network = self._world.network
        way = self._chance.choice(["", "", "", "over NATS", "over NATS", "direct"])
        if way != "direct":
            network.cut |= links
        if way != "over NATS":
            network.cut_direct |= links
        if self._chance.random() < 0.5:
            network.hidden |= links
        self._world.note(f"cut {way} {sorted(links)}")
        self._later(0.2, 4, partial(self._mend, links))

    def _mend(self, links: set[Link]) -> None:
        network = self._world.network
        network.cut -= links
        network.cut_direct -= links
        network.hidden -= links

    def break_link(self) -> None:
        """A direct link, with what is on it, as when a firewall forgets it: NATS knows nothing of that."""
        source, target = self._chance.sample(self._world.ids, 2)
        self._world.note(f"break {source} {target}")
        self._world.network.fragile.add(Link(source, target))

    def disconnect(self) -> None:
        """NATS goes away from one server, and comes back."""
        server = self._victim()
        if server is not None:
            self._world.note(f"disconnect {server.server_id}")
            self._set_connected(server, False)
            self._later(0.05, 2, partial(self._reconnect, server))

    def _reconnect(self, server: SimulatedServer) -> None:
        self._set_connected(server, True)

    def _set_connected(self, server: SimulatedServer, connected: bool) -> None:
        process, transport = server.process, server.transport
        process.happen(lambda: process.call_soon(transport.set_connected, connected))

    def slow_link(self) -> None:
        source, target = self._chance.sample(self._world.ids, 2)
        link, network = Link(source, target), self._world.network
        for slow in self._chance.choice([(network.slow,), (network.slow_direct,), (network.slow, network.slow_direct)]):
            slow[link] = self._chance.choice([0.02, 0.3, 1.5])
            self._later(0.5, 3, partial(slow.pop, link, None))

    def bad_network(self) -> None:
        network = self._world.network
        network.loss = self._chance.choice([0, 0.05, 0.2])
        network.repeats = self._chance.choice([0, 0.1])
        network.reorders = self._chance.choice([0, 0.1])
        self._later(0.5, 3, self._good_network)

    def _good_network(self) -> None:
        network = self._world.network
        network.loss = network.repeats = network.reorders = 0.0

    # --- disks --------------------------------------------------------------------------------------------------------

    def slow_disk(self) -> None:
        server = self._victim()
        if server is not None:
            process = server.process
            process.disk_delay_s = self._chance.choice([0.01, 0.2, 2.0])
            self._later(0.5, 3, lambda: setattr(process, "disk_delay_s", 0.0005))

    def fill_disk(self) -> None:
        """There is no room for records, for a while: one server's at a time."""
        disks = self._world.disks
        server = self._victim()
        if server is not None and not any(disk.full for disk in disks.values()):
            self._world.note(f"disk full {server.server_id}")
            disk = disks[server.server_id]
            disk.full, disk.full_since_ns = True, self._world.timeline.now_ns
            self._world.disk_filled(server.server_id)
            self._later(0.5, 8, partial(self._free_disk, server.server_id))

    def _free_disk(self, server_id: str) -> None:
        self._world.note(f"disk has room again {server_id}")
        self._world.disks[server_id].full = False

    # --- operators ----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """``liftbridge cluster drain``, and a restart after a while."""
        server = self._victim()
        if server is not None:
            request = internal.ControlRequest(drain_server=internal.DrainServer(server_id=server.server_id))
            self._ask(request)
            self._later(1, 4, partial(self._terminate_if_alive, server))

    def _terminate_if_alive(self, server: SimulatedServer) -> None:
        if server.process.alive and server.serving:
            server.stop()
            self._later(1, 4, partial(self._restart, server.server_id))

    def transfer(self) -> None:
        """``liftbridge cluster transfer-leader``."""
        streams = list(self._world.invariants.latest.streams.values())
        request = internal.TransferLeader(server_id=self._chance.choice(self._world.ids))
        if streams and self._chance.random() < 0.8:
            stream = self._chance.choice(streams)
            request.stream, request.partition = stream.name, self._chance.randrange(len(stream.partitions))
        self._ask(internal.ControlRequest(transfer_leader=request))

    def _ask(self, request: internal.ControlRequest) -> None:
        """Through any server's connection."""
        world = self._world
        candidates = [one for one in world.running() if one.serving and not one.process.frozen]
        if not candidates:
            return
        server = self._chance.choice(candidates)
        world.note(f"ask through {server.server_id}: {str(request).strip()}")

        async def ask() -> None:
            clock = server.process
            client = ControllerClient(server.transport, NAMESPACE, clock, cluster_id="", sender="operator")
            try:
                await client.ask(request, timeout_s=2.0)
            except (LiftbridgeError, asyncio.CancelledError) as error:
                world.note(f"asked: {error!r}")

        server.process.call_soon(lambda: server.process.begin(ask()) and None)


def _leads_metadata(server: SimulatedServer) -> bool:
    return server.server is not None and server.server._led_metadata
