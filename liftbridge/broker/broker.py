"""The broker that endpoints are handed: every call of the API, by name."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping

from liftbridge.broker.api import CallContext, PublishReply, ResponseSink, UnaryHandler
from liftbridge.broker.api import PublishSession as PublishSessionApi
from liftbridge.broker.api import Subscription as SubscriptionApi
from liftbridge.broker.cluster_metadata import ClusterMetadataHandlers
from liftbridge.broker.cursors import CursorHandlers
from liftbridge.broker.figures import FiguresSource
from liftbridge.broker.groups import GroupHandlers
from liftbridge.broker.pausing import PauseHandlers
from liftbridge.broker.publishing import Publishing
from liftbridge.broker.session import PublishSession
from liftbridge.broker.single_publishing import SinglePublishing
from liftbridge.broker.streams import StreamHandlers
from liftbridge.broker.subscribing import Subscribing
from liftbridge.interfaces.figures import GroupPosition, ReplicaFigures, ServerFigures
from liftbridge.protocol.generated import api_pb2 as api


class Broker:
    """See :class:`liftbridge.broker.api.BrokerApi`."""

    def __init__(
        self,
        publishing: Publishing,
        streams: StreamHandlers,
        cluster_metadata: ClusterMetadataHandlers,
        cursors: CursorHandlers,
        groups: GroupHandlers,
        pausing: PauseHandlers,
        subscribing: Subscribing,
        figures: FiguresSource,
    ) -> None:
        self._publishing = publishing
        self._single = SinglePublishing(publishing)
        self._streams = streams
        self._cluster_metadata = cluster_metadata
        self._cursors = cursors
        self._groups = groups
        self._pausing = pausing
        self._subscribing = subscribing
        self._figures = figures

    def unary_handlers(self) -> Mapping[str, UnaryHandler]:
        return {
            "CreateStream": self._streams.create_stream,
            "DeleteStream": self._streams.delete_stream,
            "PauseStream": self._pausing.pause_stream,
            "SetStreamReadonly": self._pausing.set_stream_readonly,
            "FetchMetadata": self._cluster_metadata.fetch_metadata,
            "FetchPartitionMetadata": self._cluster_metadata.fetch_partition_metadata,
            "PublishToSubject": self._single.publish_to_subject,
            "SetCursor": self._cursors.set_cursor,
            "FetchCursor": self._cursors.fetch_cursor,
            "JoinConsumerGroup": self._groups.join,
            "LeaveConsumerGroup": self._groups.leave,
            "FetchConsumerGroupAssignments": self._groups.fetch_assignments,
            "ReportConsumerGroupCoordinator": self._groups.report_coordinator,
        }

    def publish(self, request: bytes, call: CallContext, reply: PublishReply) -> asyncio.Task[None] | None:
        del call
        return self._single.publish(request, reply)

    def publish_session(self, call: CallContext, sink: ResponseSink) -> PublishSessionApi:
        del call
        return PublishSession(self._publishing, self._publishing.targets, sink)

    async def subscribe(self, request: api.SubscribeRequest, call: CallContext) -> SubscriptionApi:
        del call
        return await self._subscribing.subscribe(request)

    def figures(self) -> ServerFigures:
        return self._figures.server()

    def replica_figures(self) -> Iterator[ReplicaFigures]:
        return self._figures.replicas()

    def group_positions(self) -> AsyncIterator[GroupPosition]:
        return self._figures.group_positions()
