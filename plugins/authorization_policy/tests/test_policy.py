"""Policy files and models: what they may say, and what is said about mistakes in them."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from policies import PLAIN_MODEL, ROLES_MODEL

from liftbridge.errors import ConfigError
from liftbridge.interfaces.provider import Seam
from liftbridge.plugin_manager import PluginManager
from liftbridge.testing.contexts import make_context
from liftbridge_authorization_policy.authorizer import PolicyAuthorizer
from liftbridge_authorization_policy.model import is_plain

_Load = Callable[..., PolicyAuthorizer]


@pytest.fixture
def load(tmp_path: Path) -> _Load:
    """An authorizer with this policy and model, loaded."""

    def load(policy: str, model: str = "") -> PolicyAuthorizer:
        (tmp_path / "policy.csv").write_text(policy)
        (tmp_path / "model.conf").write_text(model)
        authorizer = PolicyAuthorizer(tmp_path / "policy.csv", tmp_path / "model.conf" if model else None)
        asyncio.run(authorizer.load())
        return authorizer

    return load


# --- policies ---------------------------------------------------------------------------------------------------------


def test_lines_may_have_comments_blanks_and_quotes_as_casbins_have(load: _Load) -> None:
    authorizer = load(
        '\ufeff# who may what\n\n  p,alice ,  orders,Publish\r\np, "Smith, Jo", orders, Publish\n  # p, eve, orders, Publish'
    )
    assert [authorizer.allows(one, "Publish", "orders") for one in ("alice", "Smith, Jo", "eve")] == [True, True, False]


@pytest.mark.parametrize("model", ["", PLAIN_MODEL, ROLES_MODEL])
@pytest.mark.parametrize(
    "line", ["p, bob, orders", "p, bob, orders, Publish, deny", "p", "q, bob, orders, Publish", "orders", "p, bob,, Publish",
             'p, "bob, orders, Publish', "[p], bob, orders, Publish", "e, bob, orders, Publish"],
)  # fmt: skip
def test_a_line_that_is_no_rule_is_refused_with_its_place(load: _Load, line: str, model: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.csv, line 3: ") as caught:
        load(f"# rules\np, alice, orders, Publish\n{line}\n", model)
    assert str(caught.value).startswith("failed to load authorization permissions: ")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.csv", tmp_path / "binary.csv"
    binary.write_bytes(b"p, \xff\xfe")
    for path, said in ((missing, "No such file"), (tmp_path, "Is a directory"), (binary, "isn't text in UTF-8")):
        with pytest.raises(ConfigError, match=said) as caught:
            asyncio.run(PolicyAuthorizer(path).load())
        assert str(path) in str(caught.value)
    good = tmp_path / "policy.csv"
    good.touch()
    with pytest.raises(ConfigError, match=r"policy enforcer: can't read .*missing\.csv"):
        asyncio.run(PolicyAuthorizer(good, missing).load())


def test_without_a_policy_file_there_is_no_authorizer(tmp_path: Path) -> None:
    plugins = PluginManager()
    context = make_context(Seam.AUTHORIZER, tmp_path, plugins.settings())
    with pytest.raises(ConfigError, match=r"authorization\.policy\.file"):
        plugins.provider(Seam.AUTHORIZER, "policy").create(context)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("a, orders, PublishAsync", 'there is no method "PublishAsync"; did you mean "Publish"?'),
        ("a, orders, publish", 'there is no method "publish"; did you mean "Publish"?'),
        ("a, orders, Dance", 'there is no method "Dance"'),
        ("a, *, Publish", "* is no wildcard here"),
        ("a, orders, FetchMetadata", "FetchMetadata has the resource *"),
    ],
)
def test_a_rule_that_can_never_match_is_warned_of(
    load: _Load, caplog: pytest.LogCaptureFixture, rule: str, said: str
) -> None:
    load(f"p, a, *, FetchMetadata\np, {rule}\n")
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "policy.csv, line 2 allows nothing: " in warning
    assert said in warning


# --- models -----------------------------------------------------------------------------------------------------------

_ORDER = PLAIN_MODEL.replace("r.sub == p.sub && r.obj == p.obj", "p.obj==r.obj&&r.sub ==p.sub")
_NAMES = "# ours\n" + PLAIN_MODEL.replace("sub", "client").replace("obj", "resource").replace("act", "method")


@pytest.mark.parametrize("model", [PLAIN_MODEL, _ORDER, _NAMES, PLAIN_MODEL.replace("\n", "\r\n")])
def test_a_model_of_plain_equality_needs_no_library(tmp_path: Path, model: str) -> None:
    (tmp_path / "model.conf").write_text(model)
    assert is_plain(tmp_path / "model.conf")


@pytest.mark.parametrize(
    "model",
    [
        "",
        "nonsense",
        ROLES_MODEL,
        PLAIN_MODEL + ' || r.sub == "root"',
        PLAIN_MODEL.replace(" && r.act == p.act", ""),
        PLAIN_MODEL.replace("r.act == p.act", "r.act != p.act"),
        PLAIN_MODEL.replace("r.act == p.act", "r.obj == p.act"),
        PLAIN_MODEL.replace("r.act == p.act", "r.obj == p.obj"),
        PLAIN_MODEL.replace("p = sub, obj, act", "p = obj, sub, act"),
        PLAIN_MODEL.replace("p = sub, obj, act", "p = sub, obj, act, eft"),
        PLAIN_MODEL.replace("p.eft == allow", "p.eft == deny"),
        PLAIN_MODEL.replace("some(where (p.eft == allow))", "!some(where (p.eft == deny))"),
        PLAIN_MODEL.replace("[policy_effect]", "p2 = sub\n\n[policy_effect]"),
    ],
)
def test_any_other_model_is_not_taken_for_it(tmp_path: Path, model: str) -> None:
    (tmp_path / "model.conf").write_text(model)
    assert not is_plain(tmp_path / "model.conf")


def test_roles_and_patterns_are_casbins(load: _Load) -> None:
    model = ROLES_MODEL.replace("r.obj == p.obj", "keyMatch(r.obj, p.obj)")
    authorizer = load("p, writers, sensor-*, Publish\ng, alice, writers\ng, bob, readers\n", model)
    asked = (("alice", "sensor-1"), ("alice", "orders"), ("bob", "sensor-1"), ("writers", "sensor-1"))
    assert [authorizer.allows(one, "Publish", resource) for one, resource in asked] == [True, False, False, True]


def test_denials_are_casbins(load: _Load) -> None:
    model = (
        PLAIN_MODEL.replace("p = sub, obj, act", "p = sub, obj, act, eft")
        .replace("r.obj == p.obj", "keyMatch(r.obj, p.obj)")
        .replace("e = some(where (p.eft == allow))", "e = some(where (p.eft == allow)) && !some(where (p.eft == deny))")
    )
    authorizer = load("p, alice, *, Publish, allow\np, alice, bills, Publish, deny\n", model)
    assert authorizer.allows("alice", "Publish", "orders")
    assert not authorizer.allows("alice", "Publish", "bills")


@pytest.mark.parametrize(
    "model",
    [
        "nonsense",
        "[request_definition]\nr = sub\n",
        PLAIN_MODEL.replace("r.act == p.act", "r.act == p.actt"),
        PLAIN_MODEL.replace("r.act == p.act", "&& r.act"),
        PLAIN_MODEL.replace("r.act == p.act", "__import__('os')"),
        PLAIN_MODEL.replace("r = sub, obj, act", "r = sub, obj"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_when_it_is_loaded(load: _Load, model: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.conf is no model that can be used") as caught:
        load("p, alice, orders, Publish\n", model)
    assert "\n" not in str(caught.value)


def test_casbin_tells_nobody_of_its_decisions(load: _Load, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    authorizer = load("p, alice, orders, Publish\n", ROLES_MODEL)
    authorizer.allows("alice", "Publish", "orders")
    authorizer.allows("eve", "Publish", "orders")
    assert [record.name for record in caplog.records] == ["liftbridge_authorization_policy.authorizer"]


def test_the_library_is_wanted_only_where_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "policy.csv").write_text("p, alice, orders, Publish\n")
    (tmp_path / "plain.conf").write_text(PLAIN_MODEL)
    (tmp_path / "roles.conf").write_text(ROLES_MODEL)
    program = (
        "import asyncio, sys, pathlib; sys.modules['casbin'] = None;"
        "from liftbridge_authorization_policy.authorizer import PolicyAuthorizer;"
        "policy = pathlib.Path('policy.csv');"
        "asyncio.run(PolicyAuthorizer(policy).load());"
        "asyncio.run(PolicyAuthorizer(policy, pathlib.Path('plain.conf')).load());"
        "print('plain', flush=True);"
        "asyncio.run(PolicyAuthorizer(policy, pathlib.Path('roles.conf')).load())"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout == "plain\n"
    assert ran.stderr.splitlines()[-1].endswith("pip install 'liftbridge[casbin]'")
