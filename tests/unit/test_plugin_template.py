"""New projects for plugins: they install as they are, their tests run, and nothing is overwritten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from liftbridge import cli
from liftbridge.errors import ConfigError
from liftbridge.plugin_template import SEAM_NAMES, write_project

#: Those that begin with an implementation in memory; the authors of the others write first.
WORKING = ("log_storage", "index_storage", "stable_store")


def install(project: Path, package: str) -> None:
    """As pip would, but for the copying."""
    info = project / f"{package}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[liftbridge]\n{package} = {package}.plugin\n")


def run_tests(projects: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", "-rs"]
    command += ["-o", "asyncio_mode=auto", "--rootdir", str(projects[0].parent), *map(str, projects)]
    path = os.pathsep.join([*map(str, projects), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


def test_projects_that_start_in_memory_pass_their_whole_suite(tmp_path: Path) -> None:
    projects = [write_project(f"acme-{name.replace('_', '-')}1", name, tmp_path) for name in WORKING]
    for project in projects:
        install(project, project.name.replace("-", "_"))
    ran = run_tests(projects)
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout.splitlines()[-1]


def test_other_projects_skip_what_is_not_written_and_say_where_to_begin(tmp_path: Path) -> None:
    projects = [write_project(f"acme-my{name.replace('_', '')}", name, tmp_path) for name in SEAM_NAMES]
    projects = [project for project, name in zip(projects, SEAM_NAMES, strict=True) if name not in WORKING]
    for project in projects:
        install(project, project.name.replace("-", "_"))
    ran = run_tests(projects)
    assert ran.returncode == 0, ran.stdout
    assert f"{len(projects)} passed" in ran.stdout
    assert "then remove this line" in ran.stdout


@pytest.mark.parametrize("seam", SEAM_NAMES)
def test_the_unwritten_class_can_be_made_only_because_every_method_is_there(tmp_path: Path, seam: str) -> None:
    project = write_project("acme-mine", seam, tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(project)!r}); import acme_mine.{seam} as module;"
        "print(*(name for name, one in vars(module).items() if getattr(one, '__module__', '') == module.__name__"
        " and isinstance(one, type) and getattr(one, '__abstractmethods__', None)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


@pytest.mark.parametrize(
    ("seam", "setting", "choice"),
    [
        ("log_storage", "storage.tape.size", "storage.log = tape"),
        ("consensus", "clustering.tape.size", "clustering.consensus = tape"),
        ("transport", "transport.tape.size", "transport = tape"),
        ("subject_router", "routing.tape.size", "routing = tape"),
        ("endpoint", "endpoint.tape.size", "endpoints = grpc, tape"),
    ],
)
def test_settings_are_named_after_the_seam_and_an_endpoint_stands_beside_grpc(
    tmp_path: Path, seam: str, setting: str, choice: str
) -> None:
    project = write_project("acme-tape", seam, tmp_path)
    assert f"``{setting}``" in (project / "acme_tape" / "plugin.py").read_text()
    assert f"    {choice}\n" in (project / "README.md").read_text()


@pytest.mark.parametrize("seam", SEAM_NAMES)
def test_imports_of_the_hooks_are_sorted(tmp_path: Path, seam: str) -> None:
    project = write_project("acme-tape", seam, tmp_path)
    lines = (project / "acme_tape" / "plugin.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith("from liftbridge")]
    assert len(imports) == 5
    assert imports == sorted(imports)


@pytest.mark.parametrize("seam", SEAM_NAMES)
def test_project_has_everything_and_no_placeholder_left(tmp_path: Path, seam: str) -> None:
    project = write_project("acme-tape", seam, tmp_path)
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert files == {
        "pyproject.toml", "tox.ini", "README.md", ".gitignore", "acme_tape/__init__.py", "acme_tape/py.typed",
        "acme_tape/plugin.py", f"acme_tape/{seam}.py", "tests/test_plugin.py", f"tests/test_{seam}.py",
    }  # fmt: skip
    for file in files:
        text = (project / file).read_text()
        assert "$" not in text, file
        if file.endswith(".py"):
            compile(text, file, "exec")


@pytest.mark.parametrize(
    "name",
    ["", "Acme", "acme_tape", "acme--tape", "-acme", "acme-", "1acme", "../acme", "a/b", "acme tape", "a" * 61, "ünd"],
)
def test_name_that_is_none_is_refused_with_an_example(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="acme-storage-tape"):
        write_project(name, "log_storage", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["class", "asyncio", "json", "liftbridge"])
def test_name_that_would_hide_another_package_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="taken"):
        write_project(name, "log_storage", tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "acme-tape").mkdir()
    (tmp_path / "acme-tape" / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="already"):
        write_project("acme-tape", "log_storage", tmp_path)
    assert [path.read_text() for path in (tmp_path / "acme-tape").iterdir()] == ["mine"]


def test_the_command_writes_the_project_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plugin", "new", "acme-tape", "--seam", "stable_store", "--directory", str(tmp_path)]
    assert cli.run(arguments) == 0
    assert "pip install -e" in capsys.readouterr().out
    assert cli.run(arguments) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
