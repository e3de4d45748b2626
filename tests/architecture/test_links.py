"""Every page's links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md")), *sorted(_ROOT.glob("plugins/*/README.md"))]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _links() -> Iterator[tuple[Path, str]]:
    for page in _PAGES:
        for target in _LINK.findall(page.read_text()):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(*one, id=f"{one[0].name}-{one[1]}") for one in _links()])
def test_link_leads_to_a_file(page: Path, target: str) -> None:
    path, _, _ = target.partition("#")
    assert not path or (page.parent / path).exists(), f"{page.relative_to(_ROOT)} links to {target}"


def test_there_are_links_to_check() -> None:
    assert len(list(_links())) > 10
