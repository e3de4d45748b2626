"""Configuration: declared settings, and what the operator said about them, as one frozen mapping.

Precedence, lowest first: defaults, the file, environment variables, flags. The native file is INI-like, read with
configobj; sections nest and names join with dots, so these are the same::

    streams.retention.max.age = 7d          [streams]
                                            [[retention]]
                                            max.age = 7d

The original's YAML files are read too (its key names are accepted as aliases; decision page 2). Everything that is
wrong is reported at once, by name, with a suggestion.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tempfile import gettempdir
from types import MappingProxyType
from typing import Any

from liftbridge.errors import ConfigError
from liftbridge.interfaces.settings import Setting, SettingKind
from liftbridge.settings import KERNEL_SETTINGS, NOT_YET

_DURATION_UNITS_S = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE | re.ASCII)
_SIZE_STEPS = {"k": 1, "m": 2, "g": 3, "t": 4}
#: For how long a command waits, at most: more than anybody does, and every clock on the way can count it.
_LONGEST_TIMEOUT_S = 7 * 86_400.0
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_ENVIRONMENT_PREFIX = "LIFTBRIDGE_"
_TEMPLATES = "templates."
#: From here on, one name may be meant by another: "prot" by "port" just about.
_ALIKE = 0.7
_YAML_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class StreamTemplate:
    """Settings for streams whose names match a pattern (``*``, ``?``, ``[...]``)."""

    name: str
    match: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings(Mapping[str, Any]):
    """Every declared setting by its full name, converted. ``sources`` says where each value comes from, ``warnings`` what
    is probably not as the operator thinks."""

    values_by_name: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    templates: tuple[StreamTemplate, ...] = ()
    warnings: tuple[str, ...] = ()
    kinds: Mapping[str, SettingKind] = field(default_factory=dict)

    def written(self, name: str, value: Any) -> str:
        """A value of the setting as a config file has it."""
        match self.kinds.get(name), value:
            case _, None:
                return ""
            case SettingKind.DURATION, _:
                return format_duration(value)
            case SettingKind.SIZE, _:
                return format_size(value)
            case _, bool():
                return str(value).lower()
            case _, tuple():
                return ", ".join(value)
        return f'"{value}"' if any(sign in str(value) for sign in ",#'") else str(value)

    def __getitem__(self, name: str) -> Any:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as the operator wrote it, and where. ``yaml`` values follow the original's rules."""

    name: str
    value: Any
    source: str
    yaml: bool = False


def load(
    declared: Sequence[Setting],
    *,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    verify: Callable[[Mapping[str, Any]], None] | None = None,
) -> Settings:
    """Puts settings together. ``declared`` are the plugins'; the kernel's are always there. Raises ConfigError naming
    every mistake. ``verify`` sees the values before that: what it raises comes first, because settings are unknown when
    the plugin that declares them is missing."""
    book = _Book([*KERNEL_SETTINGS, *declared])
    given = _read_file(file) if file else []
    given += _from_environment(book, os.environ if environment is None else environment)
    given += [_Given(name, value, "command line") for name, value in (flags or {}).items()]
    return book.settle(given, verify or _accept)


class _Book:
    """The declared settings, by name and alias."""

    def __init__(self, declared: Sequence[Setting]) -> None:
        self._declared: dict[str, Setting] = {}
        self._by_name: dict[str, Setting] = {}
        for setting in declared:
            for name in (setting.name, *setting.aliases):
                if name in self._by_name:
                    raise ConfigError(f"setting {name} is declared twice; one of two plugins has to go")
                self._by_name[name] = setting
            self._declared[setting.name] = setting

    def names(self) -> Sequence[str]:
        return tuple(self._by_name)

    def settle(self, given: Sequence[_Given], verify: Callable[[Mapping[str, Any]], None]) -> Settings:
        """Converts and checks everything; later values win."""
        mistakes: list[str] = []
        warnings: list[str] = []
        values = {name: setting.default for name, setting in self._declared.items()}
        sources: dict[str, str] = {}
        templates: dict[str, dict[str, Any]] = {}
        for one in given:
            try:
                if one.name.startswith(_TEMPLATES):
                    self._settle_template(one, templates)
                else:
                    setting = self._find(one)
                    values[setting.name] = convert(setting, one.value, yaml=one.yaml)
                    sources[setting.name] = one.source
                    warnings += _warnings(setting, one, values[setting.name])
            except ConfigError as error:
                mistakes.append(f"{one.source}: {error}")
        for name, template in templates.items():
            if "match" not in template:
                mistakes.append(f'template "{name}" has no "match" that says which streams it is for')
        verify(values)
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        _fill_data_dir(values)
        return Settings(
            MappingProxyType(values),
            MappingProxyType(sources),
            tuple(
                StreamTemplate(name, template.pop("match"), MappingProxyType(template))
                for name, template in templates.items()
            ),
            tuple(warnings),
            {name: setting.kind for name, setting in self._declared.items()},
        )

    def _find(self, given: _Given) -> Setting:
        setting = self._by_name.get(given.name.lower())
        if setting is None:
            raise ConfigError(f'Unknown configuration setting "{given.name}"{self._hint(given.name.lower())}')
        return setting

    def _hint(self, unknown: str) -> str:
        nearest = get_close_matches(unknown, self._by_name, n=1, cutoff=_ALIKE)
        return f'; did you mean "{nearest[0]}"?' if nearest else ""

    def _settle_template(self, given: _Given, templates: dict[str, dict[str, Any]]) -> None:
        name, _, key = given.name.removeprefix(_TEMPLATES).partition(".")
        template = templates.setdefault(name, {})
        if key == "match":
            template["match"] = str(given.value)
            return
        if not key.startswith("streams."):
            raise ConfigError(f'template "{name}": only "match" and settings of "streams." go here, not "{key}"')
        setting = self._find(_Given(key, given.value, given.source))
        template[setting.name] = convert(setting, given.value, yaml=given.yaml)


def _accept(values: Mapping[str, Any]) -> None:
    """Nothing to verify."""


def _warnings(setting: Setting, given: _Given, value: Any) -> Iterator[str]:
    if setting.name in NOT_YET and value != setting.default:
        yield f"{given.source}: {setting.name} has no effect yet"
    if setting.kind is SettingKind.DURATION and given.yaml and isinstance(given.value, int) and given.value != 0:
        yield f"{given.source}: {setting.name} is {given.value} nanoseconds, because it has no unit"


def _fill_data_dir(values: dict[str, Any]) -> None:
    """The default depends on the namespace."""
    if values["data.dir"] is None:
        values["data.dir"] = Path(gettempdir()) / "liftbridge" / str(values["clustering.namespace"])


# --- where values come from -------------------------------------------------------------------------------------------


def _read_file(path: Path) -> list[_Given]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Failed to load configuration file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Failed to load configuration file {path}: it isn't text in UTF-8") from error
    if path.suffix.lower() in _YAML_SUFFIXES or _looks_like_yaml(text):
        tree, yaml = _parse_yaml(path, text), True
    else:
        tree, yaml = _parse_ini(path, text), False
    return [_Given(name, value, f"{path}{_line_of(name, text)}", yaml) for name, value in _flatten(tree)]


def _line_of(name: str, text: str) -> str:
    """ ", line 3" for the line that says ``name`` or the end of it, or nothing when several lines could be it."""
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.match(r"\s*[\"']?([\w.\-]+)[\"']?\s*[=:]", line)) and f".{name}".endswith(f".{match[1]}")
    ]
    return f", line {lines[0]}" if len(lines) == 1 else ""


def _looks_like_yaml(text: str) -> bool:
    """The first line that says something decides: ``key: value``, against ``[section]`` or ``key = value``."""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith(("#", ";")):
            return stripped.startswith(("{", "---")) or bool(re.match(r"[\w.\-\"']+\s*:(\s|$)", stripped))
    return False


def _parse_yaml(path: Path, text: str) -> Mapping[str, Any]:
    import yaml

    try:
        parsed = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"Failed to load configuration file {path}{line}: {said}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"Failed to load configuration file {path}: {' '.join(str(error).split())}") from error
    if parsed is not None and not isinstance(parsed, dict):
        raise ConfigError(f"Failed to load configuration file {path}: it holds no settings, as port: 9292 is one")
    return parsed or {}


def _parse_ini(path: Path, text: str) -> Mapping[str, Any]:
    from configobj import ConfigObj, ConfigObjError

    try:
        parsed: Mapping[str, Any] = ConfigObj(text.splitlines(), raise_errors=True, interpolation=False)
    except ConfigObjError as error:
        raise ConfigError(f"Failed to load configuration file {path}: {error}") from error
    return parsed


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _from_environment(book: _Book, environment: Mapping[str, str]) -> list[_Given]:
    """``LIFTBRIDGE_CLUSTERING_NAMESPACE`` for ``clustering.namespace``; dots may stay dots. Other variables with the
    prefix are somebody else's."""
    names = {name.upper().replace(".", "_"): name for name in book.names()}
    found = []
    for variable, value in environment.items():
        if variable.startswith(_ENVIRONMENT_PREFIX):
            name = names.get(variable.removeprefix(_ENVIRONMENT_PREFIX).upper().replace(".", "_"))
            if name is not None:
                found.append(_Given(name, value, f"environment variable {variable}"))
    return found


# --- conversion -------------------------------------------------------------------------------------------------------


def convert(setting: Setting, value: Any, *, yaml: bool = False) -> Any:
    """The value as its kind has it, checked. Raises ConfigError that names the setting, the value and what is right."""
    try:
        converted = _CONVERTERS[setting.kind](value, yaml)
    except ValueError as error:
        raise ConfigError(f'Invalid {setting.name} setting "{_shown(value)}": {error}') from None
    if setting.choices:
        if str(converted).lower() not in setting.choices:
            raise ConfigError(
                f'Invalid {setting.name} setting "{_shown(value)}": must be one of {", ".join(setting.choices)}'
            )
        converted = str(converted).lower()
    problem = setting.check(converted) if setting.check else None
    if problem:
        raise ConfigError(f'Invalid {setting.name} setting "{_shown(value)}": {problem}')
    return converted


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _text(value: Any, yaml: bool) -> str:
    if isinstance(value, list | tuple | dict):
        raise ValueError("must be one value, not a list")
    return "" if value is None else str(value)


def _integer(value: Any, yaml: bool) -> int:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    try:
        return int(_text(value, yaml).replace("_", ""))
    except ValueError:
        raise ValueError("must be a whole number") from None


def _boolean(value: Any, yaml: bool) -> bool:
    text = _text(value, yaml).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError("must be true or false")
    return text in _TRUE


def parse_duration(text: str) -> float:
    """``1h30m``, ``500ms``, ``7d``: seconds. A bare number other than 0 has no unit, and so no meaning."""
    text = text.strip()
    if text == "0":
        return 0.0
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a duration with a unit, like 500ms, 10s or 7d")
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def parse_seconds(text: str) -> float:
    """``2.5`` or ``500ms``; more than nothing, a week at most."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = parse_duration(text)
    if not 0 < seconds < float("inf"):
        raise ValueError("must be more than 0 seconds")
    return min(seconds, _LONGEST_TIMEOUT_S)


def format_duration(seconds: float) -> str:
    """As :func:`parse_duration` reads it, in the largest unit that makes it a whole number."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0"
    units = {unit: round(unit_s * 1e9) for unit, unit_s in _DURATION_UNITS_S.items()}
    unit = max((one for one in units if nanoseconds % units[one] == 0), key=units.__getitem__)
    return f"{nanoseconds // units[unit]}{unit}"


def _duration(value: Any, yaml: bool) -> float:
    if yaml and isinstance(value, int) and not isinstance(value, bool):
        return value * 1e-9  # the original reads a bare number as nanoseconds
    return parse_duration(_text(value, yaml))


def parse_size(text: str) -> int:
    """``64KiB``, ``1MB``, ``1048576``: bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a size, like 64KiB, 1MB or 1048576")
    number, unit = match.groups()
    factor = 1
    if unit:
        factor = (1024 if unit.lower().endswith("i") else 1000) ** _SIZE_STEPS[unit[0].lower()]
    return int(float(number) * factor) if "." in number else int(number) * factor


def format_size(size: int) -> str:
    """As :func:`parse_size` reads it."""
    for steps, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**steps == 0:
            return f"{size // 1024**steps}{unit}"
    return str(size)


def _size(value: Any, yaml: bool) -> int:
    return parse_size(_text(value, yaml))


def _list(value: Any, yaml: bool) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else [_text(value, yaml)]
    return tuple(part.strip() for item in items for part in str(item).split(",") if part.strip())


def _path(value: Any, yaml: bool) -> Path | None:
    text = _text(value, yaml)
    return Path(text).expanduser() if text else None


_CONVERTERS = {
    SettingKind.STRING: _text,
    SettingKind.INTEGER: _integer,
    SettingKind.BOOLEAN: _boolean,
    SettingKind.DURATION: _duration,
    SettingKind.SIZE: _size,
    SettingKind.LIST: _list,
    SettingKind.PATH: _path,
}
