"""The hook of the subject router."""

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import PluginContext
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.routing import SubjectRouter


@hookimpl
def liftbridge_subject_router() -> Provider:
    return Provider("subjects", "NATS subjects with wildcards; partition n listens on <subject>.n", _create)


def _create(context: PluginContext) -> SubjectRouter:
    from liftbridge_routing_subjects.router import NatsSubjectRouter

    return NatsSubjectRouter()
