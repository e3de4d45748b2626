"""``liftbridge plugin new``: a project for a plugin of one's own, ready to be installed and tested.

Where there is a twin in memory, its source is the start: a small implementation that passes the suite. Where there is
none that would be a sensible start, the methods to write are taken from the interface.
"""

import ast
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from liftbridge.errors import ConfigError
from liftbridge.interfaces.provider import Seam
from liftbridge.plugin_manager import PROVIDER_HOOKS
from liftbridge.settings import PROVIDER_SETTINGS
from liftbridge.version import version

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_NAME_LENGTH = 60


@dataclass(frozen=True, slots=True)
class _Kit:
    """What differs between the seams: the module and class of the interface, the context that ``create`` gets, and the
    module of the suite. ``twin`` is the module in ``liftbridge.testing`` that the project begins with, "" for none.
    ``suffixes`` says how classes of the twin (or the interface) end in the project; the first is what ``create`` makes."""

    seam: Seam
    interface: str
    interface_class: str
    context: str
    suite: str
    twin: str
    suffixes: Mapping[str, str]


_KITS = {
    "log_storage": _Kit(
        Seam.LOG_STORAGE, "log", "LogStorage", "LogStorageContext", "log_suite",
        "memory_log", {"MemoryLogStorage": "Storage", "MemoryLog": "Log"},
    ),
    "index_storage": _Kit(
        Seam.INDEX_STORAGE, "index", "IndexStorage", "PluginContext", "index_suite",
        "memory_index", {"MemoryIndexStorage": "IndexStorage", "MemoryIndex": "Index"},
    ),
    "stable_store": _Kit(
        Seam.STABLE_STORE, "stable", "StableStore", "PluginContext", "stable_suite",
        "memory_stable", {"MemoryStableStore": "Store"},
    ),
    "consensus": _Kit(
        Seam.CONSENSUS, "consensus", "Consensus", "ConsensusContext", "consensus_suite", "", {"Consensus": "Consensus"}
    ),
    "transport": _Kit(
        Seam.TRANSPORT, "transport", "Transport", "PluginContext", "transport_suite", "", {"Transport": "Transport"}
    ),
    "subject_router": _Kit(
        Seam.SUBJECT_ROUTER, "routing", "SubjectRouter", "PluginContext", "router_suite", "", {"SubjectRouter": "Router"}
    ),
    "endpoint": _Kit(
        Seam.ENDPOINT, "endpoint", "Endpoint", "EndpointContext", "endpoint_suite", "", {"Endpoint": "Endpoint"}
    ),
    "authorizer": _Kit(
        Seam.AUTHORIZER, "authorizer", "Authorizer", "PluginContext", "authorizer_suite", "", {"Authorizer": "Authorizer"}
    ),
}  # fmt: skip

#: What ``--seam`` takes.
SEAM_NAMES = tuple(_KITS)


def write_project(name: str, seam_name: str, folder: Path) -> Path:
    """Writes the project ``folder/name`` and returns it. Raises ConfigError for a name that can't be used and for a
    project that is there already, and then nothing was written."""
    _check(name)
    project = folder / name
    files = _files(name, seam_name)
    try:
        project.mkdir()
    except FileExistsError:
        raise ConfigError(f"{project} is there already, and nothing is overwritten: choose another name") from None
    except OSError as error:
        raise ConfigError(f"{project}: {error.strerror}") from error
    for path, text in files.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")
    return project


def _check(name: str) -> None:
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_LENGTH:
        raise ConfigError(
            f'"{name}" is no name for a plugin: use up to {_MAX_NAME_LENGTH} lower case letters and digits, with single '
            'dashes between words, as in "acme-storage-tape"'
        )
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package == "liftbridge":
        raise ConfigError(f'"{name}" is taken by Python or by Liftbridge itself: choose another name')


def _files(name: str, seam_name: str) -> dict[str, str]:
    """Every file of the project, by its path."""
    kit = _KITS[seam_name]
    package = name.replace("-", "_")
    provider = name.rpartition("-")[2]
    prefix = provider.capitalize() if provider[0].isalpha() else f"P{provider}"
    classes = {old: prefix + new for old, new in kit.suffixes.items()}
    words = {
        "name": name,
        "package": package,
        "provider": provider,
        "kind": str(kit.seam),
        "seam_member": kit.seam.name,
        "hook": PROVIDER_HOOKS[kit.seam],
        "setting": PROVIDER_SETTINGS[kit.seam],
        "choice": f"grpc, {provider}" if kit.seam is Seam.ENDPOINT else provider,
        "prefix": _PREFIXES.get(kit.seam) or PROVIDER_SETTINGS[kit.seam].partition(".")[0],
        "imports": _plugin_imports(kit),
        "context_more": _CONTEXT_MORE.get(kit.context, ""),
        "interface": kit.interface,
        "interface_class": kit.interface_class,
        "context": kit.context,
        "module": seam_name,
        "class_name": next(iter(classes.values())),
        "suite": kit.suite,
        "version": version(),
        "state": _STATES[bool(kit.twin)],
    }

    def filled(template: str) -> str:
        return Template(_template(template)).substitute(words)

    return {
        "pyproject.toml": filled("pyproject.toml"),
        "tox.ini": filled("tox.ini"),
        "README.md": filled("README.md"),
        ".gitignore": filled("gitignore"),
        f"{package}/__init__.py": filled("init.py"),
        f"{package}/py.typed": "",
        f"{package}/plugin.py": filled("plugin.py"),
        f"{package}/{seam_name}.py": _from_twin(kit, classes) if kit.twin else _from_interface(kit, classes),
        "tests/test_plugin.py": filled("test_plugin.py"),
        f"tests/test_{seam_name}.py": filled(f"test_{seam_name}.py"),
    }


_STATES = {
    True: "It works already: everything is in memory, and its tests pass. Put your own storage in its place, step by step.",
    False: "Its methods are yet to be written. Until then the suite is skipped; the test says how to begin.",
}


#: What the settings of a seam's plugins begin with, where it isn't how the choice does.
_PREFIXES = {Seam.ENDPOINT: "endpoint"}
#: What a context has besides that of every seam.
_CONTEXT_MORE = {
    "LogStorageContext": " and the offset index",
    "ConsensusContext": ", the transport and the stable store",
    "EndpointContext": " and the broker to serve",
}


def _plugin_imports(kit: _Kit) -> str:
    """Of the module with the hooks, in the order that linters like."""
    names = {
        "context": kit.context, kit.interface: kit.interface_class, "provider": "Provider", "settings": "Setting"
    }  # fmt: skip
    return "\n".join(f"from liftbridge.interfaces.{module} import {name}" for module, name in sorted(names.items()))


def _template(name: str) -> str:
    return resources.files("liftbridge").joinpath("plugin_templates", name + ".tmpl").read_text(encoding="utf-8")


def _source(package: str, module: str) -> str:
    return resources.files("liftbridge").joinpath(package, module + ".py").read_text(encoding="utf-8")


def _from_twin(kit: _Kit, classes: Mapping[str, str]) -> str:
    """The twin's source under the plugin's names."""
    source = _source("testing", kit.twin)
    docstring = ast.parse(source).body[0]
    rest = "\n".join(source.splitlines()[docstring.end_lineno :])
    names = re.compile(rf"\b({'|'.join(classes)})\b")
    renamed = names.sub(lambda match: classes[match[0]], rest)
    return f'"""The {kit.seam}: in memory so far. Replace what is here, and let the tests tell what must hold."""\n{renamed}\n'


# --- methods to write, from the interface -----------------------------------------------------------------------------


def _from_interface(kit: _Kit, classes: Mapping[str, str]) -> str:
    """A class with every abstract method of the interface's, each of which says that it isn't written yet."""
    tree = ast.parse(_source("interfaces", kit.interface))
    interface, class_name = kit.interface_class, classes[kit.interface_class]
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == interface).body
    methods = [_unwritten(node) for node in body if _is_abstract(node)]
    used = {node.id for method in methods for node in ast.walk(method) if isinstance(node, ast.Name)}
    imports = _imports(tree, kit.interface, used | {interface})
    indented = "\n\n".join(_indented(ast.unparse(method)) for method in methods)
    return (
        f'"""The {kit.seam}: what each method promises is said in liftbridge.interfaces.{kit.interface}."""\n\n'
        f"{imports}\n\n\n"
        f"class {class_name}({interface}):\n"
        f'    """See :class:`liftbridge.interfaces.{kit.interface}.{interface}`."""\n\n'
        f"{indented}\n"
    )


def _is_abstract(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
        isinstance(one, ast.Name) and one.id == "abstractmethod" for one in node.decorator_list
    )


def _unwritten(node: ast.stmt) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The method with its signature and no body."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    node.decorator_list = [
        one for one in node.decorator_list if not (isinstance(one, ast.Name) and one.id == "abstractmethod")
    ]
    node.body = ast.parse(f'raise NotImplementedError("write {node.name}")').body
    return node


def _imports(tree: ast.Module, interface: str, used: set[str]) -> str:
    """Where the names come from that the signatures use: what the interface imports, or the interface itself."""
    lines = []
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assigned = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    own |= {target.id for target in assigned if isinstance(target, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in used]
            if names:
                lines.append(f"from {node.module} import {', '.join(names)}")
    lines.append(f"from liftbridge.interfaces.{interface} import {', '.join(sorted(own & used))}")
    standard = [line for line in lines if not line.startswith("from liftbridge")]
    ours = [line for line in lines if line.startswith("from liftbridge")]
    return "\n".join([*standard, *([""] if standard else []), *sorted(ours)])


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in code.splitlines())
