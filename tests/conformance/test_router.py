"""Every subject router against its suite."""

import pytest

from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.testing.router_suite import RouterSuite
from liftbridge_routing_subjects.router import NatsSubjectRouter


class TestSubjects(RouterSuite):
    @pytest.fixture
    def router(self) -> SubjectRouter:
        return NatsSubjectRouter()
