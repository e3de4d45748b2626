"""Every subject router against its suite."""

from pathlib import Path
from typing import ClassVar

import pytest
from registered import ProviderName, create

from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.testing.router_suite import RouterSuite


class TestSubjects(RouterSuite):
    provider: ClassVar[ProviderName] = (Seam.SUBJECT_ROUTER, "subjects")

    @pytest.fixture
    def router(self, tmp_path: Path) -> SubjectRouter:
        router: SubjectRouter = create(self.provider, tmp_path)
        return router
