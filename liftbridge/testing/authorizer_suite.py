"""What every authorizer must do, wherever its rules are. Subclass :class:`AuthorizerSuite`, give it ``rules``, and run pytest with
pytest-asyncio in auto mode."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import product

import pytest

from liftbridge.errors import ConfigError
from liftbridge.interfaces.authorizer import CLUSTER, Authorizer

#: Client, resource, method.
Rule = tuple[str, str, str]


class RulesOfTheTest(ABC):
    """Where the authorizer has its rules from, with the hands of an operator."""

    @abstractmethod
    def authorizer(self) -> Authorizer:
        """A new one, that has loaded nothing."""

    @abstractmethod
    def write(self, rules: Iterable[Rule]) -> None:
        """These are allowed from the next load on, and nothing else."""

    @abstractmethod
    def spoil(self) -> None:
        """Makes a mistake, because of which the rules can't be loaded."""


class AuthorizerSuite:
    """The tests. ``rules`` must be overridden."""

    @pytest.fixture
    def rules(self) -> RulesOfTheTest:
        raise NotImplementedError("override the fixture rules")

    async def test_nothing_is_allowed_before_there_are_rules(self, rules: RulesOfTheTest) -> None:
        rules.write([("alice", "orders", "Publish")])
        authorizer = rules.authorizer()
        assert not authorizer.allows("alice", "Publish", "orders")
        await authorizer.load()
        assert authorizer.allows("alice", "Publish", "orders")

    async def test_what_is_written_is_allowed_and_nothing_else(self, rules: RulesOfTheTest) -> None:
        written = {("alice", "orders", "Publish"), ("alice", "bills", "Subscribe"), ("bob", "orders", "Subscribe")}
        rules.write(written)
        authorizer = rules.authorizer()
        await authorizer.load()
        asked = product(("alice", "bob", "eve"), ("orders", "bills", "x"), ("Publish", "Subscribe", "DeleteStream"))
        allowed = {(one, what, how) for one, what, how in asked if authorizer.allows(one, how, what)}
        assert allowed == written

    async def test_without_any_rule_nothing_is_allowed(self, rules: RulesOfTheTest) -> None:
        rules.write([])
        authorizer = rules.authorizer()
        await authorizer.load()
        assert not authorizer.allows("alice", "FetchMetadata", CLUSTER)

    async def test_the_resource_of_the_cluster_is_a_name_like_others(self, rules: RulesOfTheTest) -> None:
        rules.write([("alice", CLUSTER, "FetchMetadata")])
        authorizer = rules.authorizer()
        await authorizer.load()
        assert authorizer.allows("alice", "FetchMetadata", CLUSTER)
        assert not authorizer.allows("bob", "FetchMetadata", CLUSTER)

    @pytest.mark.parametrize(
        "text", ["Alice", "alic", "alice ", "alice.", "a*", "al?ce", "älice", "alice\n", "x" * 100_000, "'"]
    )
    async def test_what_looks_like_a_name_is_another_one(self, rules: RulesOfTheTest, text: str) -> None:
        rules.write([("alice", "alice", "Publish")])
        authorizer = rules.authorizer()
        await authorizer.load()
        assert authorizer.allows("alice", "Publish", "alice")
        assert not authorizer.allows(text, "Publish", "alice")
        assert not authorizer.allows("alice", "Publish", text)
        assert not authorizer.allows("alice", text, "alice")

    @pytest.mark.parametrize("name", ["one two", "a.b-c_d/e@f", "名前", 'Smith, "Jo"', "C=US", "#1", "a'b\\c"])
    async def test_a_name_may_have_any_characters(self, rules: RulesOfTheTest, name: str) -> None:
        rules.write([(name, name, "Publish")])
        authorizer = rules.authorizer()
        await authorizer.load()
        assert authorizer.allows(name, "Publish", name)
        assert not authorizer.allows(name, "Publish", "other")
        assert not authorizer.allows("other", "Publish", name)

    async def test_other_rules_hold_after_they_were_loaded(self, rules: RulesOfTheTest) -> None:
        rules.write([("alice", "orders", "Publish")])
        authorizer = rules.authorizer()
        await authorizer.load()
        rules.write([("bob", "orders", "Publish")])
        assert authorizer.allows("alice", "Publish", "orders")
        assert not authorizer.allows("bob", "Publish", "orders")
        await authorizer.load()
        assert not authorizer.allows("alice", "Publish", "orders")
        assert authorizer.allows("bob", "Publish", "orders")

    async def test_rules_with_a_mistake_replace_none(self, rules: RulesOfTheTest) -> None:
        rules.write([("alice", "orders", "Publish")])
        authorizer = rules.authorizer()
        await authorizer.load()
        rules.spoil()
        with pytest.raises(ConfigError):
            await authorizer.load()
        assert authorizer.allows("alice", "Publish", "orders")
        rules.write([("bob", "orders", "Publish")])
        await authorizer.load()
        assert authorizer.allows("bob", "Publish", "orders")

    async def test_rules_with_a_mistake_allow_nothing_at_the_start(self, rules: RulesOfTheTest) -> None:
        rules.write([("alice", "orders", "Publish")])
        rules.spoil()
        authorizer = rules.authorizer()
        with pytest.raises(ConfigError):
            await authorizer.load()
        assert not authorizer.allows("alice", "Publish", "orders")
