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
    path, _, heading = target.partition("#")
    linked = page.parent / path if path else page
    assert linked.exists(), f"{page.relative_to(_ROOT)} links to {target}"
    if heading:
        assert heading in _headings(linked), f"{page.relative_to(_ROOT)} links to {target}"


def _headings(page: Path) -> set[str]:
    """As GitHub names them in links."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [_ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in reached and page.suffix == ".md" and page.is_file():
            reached.add(page)
            targets = (target.partition("#")[0] for target in _LINK.findall(page.read_text()) if "://" not in target)
            left += [(page.parent / target).resolve() for target in targets if target]
    assert set((_ROOT / "docs").rglob("*.md")) - reached == set()


def test_there_are_links_to_check() -> None:
    assert len(list(_links())) > 10
