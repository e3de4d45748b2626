"""``liftbridge cluster``: asks the metadata leader over the transport, and shows the answer.

It needs no data directory and no server here, only the transport and the namespace of the cluster.
"""

import asyncio
import json
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from liftbridge.addresses import join_address
from liftbridge.clock import SystemClock
from liftbridge.config import Settings
from liftbridge.errors import Unavailable
from liftbridge.interfaces.context import PluginContext
from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.asking import ControllerClient
from liftbridge.plugin_manager import PluginManager
from liftbridge.protocol.generated import internal_pb2 as internal

#: What ``cluster status`` returns when it shows that a server is down, a partition offline, or a replica in trouble.
EXIT_UNHEALTHY = 3
_PROBLEMS = {
    internal.PartitionTrouble.CANNOT_OPEN: "can't open it",
    internal.PartitionTrouble.CANNOT_STORE: "can't store",
}


@dataclass(frozen=True, slots=True)
class ClusterQuestion:
    """One command line. ``server_id`` is "" for ``status``; ``stream`` "" means the metadata group."""

    action: str
    server_id: str = ""
    stream: str = ""
    partition: int = 0
    accept_loss: bool = False
    timeout_s: float = 60.0
    as_json: bool = False


def run(question: ClusterQuestion, settings: Settings, plugins: PluginManager) -> int:
    """Returns the exit code. Raises a LiftbridgeError that says why it can't be done."""
    reply = asyncio.run(_ask(question, settings, plugins))
    if question.action == "status":
        return _show_status(reply.cluster, as_json=question.as_json)
    print(json.dumps({"done": reply.done}) if question.as_json else reply.done)
    return 0


async def _ask(question: ClusterQuestion, settings: Settings, plugins: PluginManager) -> internal.ControlReply:
    namespace = settings["clustering.namespace"]
    clock = SystemClock()
    context = PluginContext("operator", namespace, settings["data.dir"], clock, _for_an_operator(settings))
    transport: Transport = plugins.provider(Seam.TRANSPORT, settings["transport"]).create(context)
    await transport.start()
    try:
        client = ControllerClient(transport, namespace, clock, cluster_id="", sender="operator")
        return await client.ask(_request(question), timeout_s=question.timeout_s)
    except Unavailable as error:
        raise Unavailable(
            f'not done after {question.timeout_s:g} s in the cluster of namespace "{namespace}": {error}'
        ) from error
    finally:
        await transport.stop()


def _for_an_operator(settings: Settings) -> Settings:
    """A server's config file may ask for an embedded NATS server; an operator connects to the one that runs. Nor do the
    servers need links to somebody who asks one question."""
    values = dict(settings)
    if values.get("transport.nats.embedded") or values.get("transport.nats.embedded.config"):
        if settings.sources.get("transport.nats.servers") is None:
            values["transport.nats.servers"] = (f"nats://{values['transport.nats.embedded.listen']}",)
        values |= {"transport.nats.embedded": False, "transport.nats.embedded.config": None}
    if "transport.nats.links" in values:
        values["transport.nats.links"] = False
    return replace(settings, values_by_name=MappingProxyType(values))


def _request(question: ClusterQuestion) -> internal.ControlRequest:
    match question.action:
        case "drain":
            return internal.ControlRequest(drain_server=internal.DrainServer(server_id=question.server_id))
        case "remove":
            remove = internal.RemoveServer(server_id=question.server_id, accept_loss=question.accept_loss)
            return internal.ControlRequest(remove_server=remove)
        case "transfer-leader":
            transfer = internal.TransferLeader(
                server_id=question.server_id,
                stream=question.stream,
                partition=question.partition,
                accept_loss=question.accept_loss,
            )
            return internal.ControlRequest(transfer_leader=transfer)
    return internal.ControlRequest(show_cluster=internal.ShowCluster())


# --- showing ----------------------------------------------------------------------------------------------------------


def _show_status(cluster: internal.ClusterPicture, *, as_json: bool) -> int:
    servers = [_server(member, cluster) for member in cluster.members]
    down = [one["server"] for one in servers if one["status"] == "down"]
    healthy = not (down or cluster.offline_partitions or cluster.replicas_in_trouble)
    if as_json:
        picture = {
            "cluster_id": cluster.cluster_id,
            "metadata_leader": cluster.metadata_leader,
            "term": cluster.term,
            "applied_index": cluster.applied_index,
            "partitions": cluster.partitions,
            "offline_partitions": cluster.offline_partitions,
            "partitions_out_of_sync": cluster.partitions_out_of_sync,
            "replicas_in_trouble": cluster.replicas_in_trouble,
            "troubles": [_trouble(one) for one in cluster.troubles],
            "healthy": healthy,
            "servers": servers,
        }
        print(json.dumps(picture, indent=2))
    else:
        _print_status(cluster, servers)
    return 0 if healthy else EXIT_UNHEALTHY


def _trouble(trouble: internal.TroublePicture) -> dict[str, Any]:
    return {
        "stream": trouble.stream,
        "partition": trouble.partition,
        "server": trouble.server_id,
        "role": "leader" if trouble.leads else "follower",
        "problem": _PROBLEMS[trouble.kind],
        "reason": trouble.text or f"the log of server {trouble.server_id} says why",
    }


def _server(member: internal.MemberPicture, cluster: internal.ClusterPicture) -> dict[str, Any]:
    leads = member.server_id == cluster.metadata_leader
    return {
        "server": member.server_id,
        "address": join_address(member.host, member.port) if member.host else "",
        "status": member.status,
        "metadata": "leader" if leads else "voter" if member.voter else "learner" if member.member else "",
        "leads": member.leaderships,
        "in_sync": member.in_sync,
        "replicas": member.replicas,
        "silent_ms": member.silent_ms if member.HasField("silent_ms") else None,
    }


def _print_status(cluster: internal.ClusterPicture, servers: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    print(f"cluster     {cluster.cluster_id}")
    print(f"metadata    led by {cluster.metadata_leader} in term {cluster.term}, {cluster.applied_index} changes")
    print(
        f"partitions  {cluster.partitions}: {cluster.offline_partitions} offline, "
        f"{cluster.partitions_out_of_sync} with replicas out of sync, {cluster.replicas_in_trouble} replicas in trouble"
    )
    print()
    table = Table(box=None, pad_edge=False)
    for column in ("server", "address", "status", "metadata", "leads", "in sync", "replicas", "heard"):
        table.add_column(column, no_wrap=True)
    for one in servers:
        heard = "" if one["silent_ms"] is None else f"{one['silent_ms'] / 1000:.1f} s ago"
        table.add_row(*(str(value) for name, value in one.items() if name != "silent_ms"), heard)
    Console(width=160).print(table)
    _print_troubles(cluster)


def _print_troubles(cluster: internal.ClusterPicture) -> None:
    if cluster.troubles:
        print()
    for one in map(_trouble, cluster.troubles):
        where = f"partition {one['partition']} of stream {one['stream']}"
        print(f"{where}: {one['role']} {one['server']} {one['problem']}: {one['reason']}")
    more = cluster.replicas_in_trouble - len(cluster.troubles)
    if more:
        print(f"... and {more} more replicas")
