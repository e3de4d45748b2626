"""The settings as rows of docs/reference/config.md: written from the declarations, and read back by the tests.

Run it to see the rows: ``python tests/support/setting_docs.py``.
"""

from typing import NamedTuple

from liftbridge.interfaces.settings import Setting, SettingKind


class Row(NamedTuple):
    kind: str
    default: str
    meaning: str
    aliases: tuple[str, ...]


def shown_default(setting: Setting) -> str:
    """As a person would write it in the file."""
    value = setting.default
    if value is None or value in ("", ()):
        return "-"
    match setting.kind:
        case SettingKind.DURATION:
            return _with_unit(value, [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001)])
        case SettingKind.SIZE:
            return _with_unit(value, [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)])
        case SettingKind.BOOLEAN:
            return f"`{str(value).lower()}`"
        case SettingKind.LIST:
            return f"`{', '.join(value)}`"
    return f"`{value}`"


def _with_unit(value: float, units: list[tuple[str, float]]) -> str:
    if value == 0:
        return "`0`"
    for unit, length in units:
        count = value / length
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"`{round(count)}{unit}`"
    raise ValueError(f"no unit shows {value} exactly")


def written_row(setting: Setting) -> str:
    meaning = setting.help.replace("|", "\\|")
    if setting.choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}."
    aliases = ", ".join(f"`{alias}`" for alias in setting.aliases) or "-"
    return f"| `{setting.name}` | {setting.kind} | {shown_default(setting)} | {meaning} | {aliases} |"


def table_rows(page: str) -> dict[str, Row]:
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("| ").split(" | ")]
        if line.startswith("| `") and len(cells) == 5:
            name, kind, default, meaning, aliases = (cell.replace("\0", "\\|") for cell in cells)
            names = () if aliases == "-" else tuple(alias.strip("` ") for alias in aliases.split(","))
            rows[name.strip("`")] = Row(kind, default, meaning, names)
    return rows


if __name__ == "__main__":
    from liftbridge.plugin_manager import PluginManager
    from liftbridge.settings import KERNEL_SETTINGS

    for one in [*KERNEL_SETTINGS, *PluginManager().settings()]:
        print(written_row(one))
