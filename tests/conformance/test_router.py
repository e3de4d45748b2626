"""Every subject router against its suite."""

import pytest
from liftbridge_routing_subjects.router import NatsSubjectRouter

from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.testing.router_suite import RouterSuite


class TestSubjects(RouterSuite):
    @pytest.fixture
    def router(self) -> SubjectRouter:
        return NatsSubjectRouter()
