"""Which paths are served, and by what kind of call."""

from collections.abc import Callable
from functools import partial

from liftbridge.broker.api import BrokerApi, CallContext
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge_endpoint_grpc.calls import Call, PublishCall, SinglePublishCall, StreamWriter, SubscribeCall, UnaryCall
from liftbridge_endpoint_grpc.framing import MessageReader
from liftbridge_endpoint_grpc.health import Health, HealthCall

#: Makes the call for a path; the arguments are those of :class:`Call`.
CallFactory = Callable[[StreamWriter, CallContext, MessageReader], Call]


class Methods:
    """The methods of the API and of health checks, by their paths."""

    def __init__(self, broker: BrokerApi, health: Health) -> None:
        unary = {
            f"/proto.API/{method}": partial(UnaryCall, getattr(api, method + "Request"), handler)
            for method, handler in broker.unary_handlers().items()
        }
        self._factories: dict[str, CallFactory] = {
            **unary,
            "/proto.API/Publish": partial(SinglePublishCall, broker),
            "/proto.API/PublishAsync": partial(PublishCall, broker),
            "/proto.API/Subscribe": partial(SubscribeCall, broker),
            "/grpc.health.v1.Health/Check": partial(HealthCall, health, False),
            "/grpc.health.v1.Health/Watch": partial(HealthCall, health, True),
        }

    def find(self, path: str) -> CallFactory | str:
        """The factory for a path, or what is wrong with the path."""
        factory = self._factories.get(path)
        if factory is not None:
            return factory
        service, _, method = path.removeprefix("/").rpartition("/")
        if any(known.startswith(f"/{service}/") for known in self._factories):
            return f"unknown method {method} for service {service}"
        return f"unknown service {service}"
