"""Imports point one way only: the contracts of ``[tool.importlinter]`` in pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_LINTER = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"


def test_every_import_contract_is_kept() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LINTER, "pyproject.toml"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 broken" in ran.stdout


def test_the_contracts_cover_every_plugin_of_the_distribution() -> None:
    import tomllib

    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    packages = {target.split(".")[0] for target in project["project"]["entry-points"]["liftbridge"].values()}
    assert packages <= set(project["tool"]["importlinter"]["root_packages"])


def test_what_no_page_offers_to_plugins_is_forbidden_to_ours() -> None:
    """A module that is new in the kernel is the kernel's own until the page for plugin authors names it."""
    import tomllib

    page = (_ROOT / "docs" / "how-to" / "write-a-plugin.md").read_text()
    section = page.split("## What a plugin may import")[1].split("\n## ")[0]
    offered = set(re.findall(r"`liftbridge\.(\w+)(?:\.\w+)?`", section))
    modules = {
        path.stem
        for path in (_ROOT / "liftbridge").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["name"].startswith("Plugins import only"))
    forbidden = {name.removeprefix("liftbridge.") for name in contract["forbidden_modules"]}
    assert modules - offered - forbidden == {"__init__", "addresses", "version"}  # which what is offered stands on
    assert offered & forbidden == {"broker"}  # for endpoints only, which have a contract of their own


def test_the_running_server_carries_no_heavy_library() -> None:
    """What ``liftbridge serve`` imports before it is told what to do stays small; yaml and rich come when needed."""
    program = (
        "import sys; import liftbridge.server, liftbridge.cli.parser;"
        "from liftbridge.plugin_manager import PluginManager;"
        "PluginManager(); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"rich", "typer", "click", "yaml", "grpc", "pydantic", "hypothesis", "pytest", "numpy", "requests"}
    heavy |= {"prometheus_client"}
    assert not heavy & set(ran.stdout.split())
