"""Which models need no library: those that compare client, resource and method for equality, as the original's example does.

A model is a file in four sections, which Casbin defines; here is read only what tells the plain one from others.
"""

import configparser
from pathlib import Path

from liftbridge_authorization_policy.policy_file import read_text

_EFFECT = "some(where(p.eft==allow))"


def is_plain(path: Path) -> bool:
    """Whether the model allows what a rule names literally, and nothing else. Raises ConfigError for a file that can't be
    read; what makes no sense isn't plain."""
    text = read_text(path, "failed to initialize authorization policy enforcer")
    parser = configparser.RawConfigParser(delimiters=("=",), strict=True)
    try:
        parser.read_string(text)
        request = _names(parser["request_definition"]["r"])
        policy = _names(parser["policy_definition"]["p"])
        effect = _compact(parser["policy_effect"]["e"])
        matcher = _compact(parser["matchers"]["m"])
    except (configparser.Error, KeyError):
        return False
    definitions = sum(len(parser[section]) for section in parser.sections())
    return (
        definitions == len(request) + 1 == len(policy) + 1 == 4
        and effect == _EFFECT
        and _equal_all(matcher, request, policy)
    )


def _names(definition: str) -> list[str]:
    return [name.strip() for name in definition.split(",")]


def _compact(expression: str) -> str:
    return "".join(expression.split())


def _equal_all(matcher: str, request: list[str], policy: list[str]) -> bool:
    """Whether the matcher compares each value of the request with that of the rule, whatever the order."""
    wanted = {frozenset((f"r.{ours}", f"p.{theirs}")) for ours, theirs in zip(request, policy, strict=True)}
    terms = [frozenset(term.split("==")) for term in matcher.split("&&")]
    return set(terms) == wanted and len(terms) == len(wanted)
