"""Every authorizer against its suite."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pytest
from policies import PLAIN_MODEL, ROLES_MODEL
from registered import ProviderName, create

from liftbridge.interfaces.authorizer import Authorizer
from liftbridge.interfaces.provider import Seam
from liftbridge.testing.authorizer_suite import AuthorizerSuite, Rule, RulesOfTheTest

POLICY = (Seam.AUTHORIZER, "policy")


class PolicyFiles(RulesOfTheTest):
    """A policy file, and a model if there is one."""

    def __init__(self, folder: Path, model: str = "") -> None:
        self._folder = folder
        self._policy = folder / "policy.csv"
        self._settings = {"authorization.policy.file": self._policy}
        if model:
            self._settings["authorization.policy.model"] = folder / "model.conf"
            (folder / "model.conf").write_text(model)

    def authorizer(self) -> Authorizer:
        authorizer: Authorizer = create(POLICY, self._folder, self._settings)
        return authorizer

    def write(self, rules: Iterable[Rule]) -> None:
        with self._policy.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(("p", *rule) for rule in rules)

    def spoil(self) -> None:
        with self._policy.open("a") as file:
            file.write("p, alice, orders\n")


class TestPolicy(AuthorizerSuite):
    provider: ClassVar[ProviderName] = POLICY

    @pytest.fixture
    def rules(self, tmp_path: Path) -> RulesOfTheTest:
        return PolicyFiles(tmp_path)


class TestPolicyWithThePlainModel(AuthorizerSuite):
    provider: ClassVar[ProviderName] = POLICY

    @pytest.fixture
    def rules(self, tmp_path: Path) -> RulesOfTheTest:
        return PolicyFiles(tmp_path, PLAIN_MODEL)


class TestPolicyWithAModelForCasbin(AuthorizerSuite):
    provider: ClassVar[ProviderName] = POLICY

    @pytest.fixture
    def rules(self, tmp_path: Path) -> RulesOfTheTest:
        return PolicyFiles(tmp_path, ROLES_MODEL)
