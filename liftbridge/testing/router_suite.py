"""What every subject router must do. Subclass :class:`RouterSuite` in a test module and give it ``router``."""

import pytest

from liftbridge.interfaces.routing import SubjectRouter


class RouterSuite:
    """The tests. ``router`` must be overridden."""

    @pytest.fixture
    def router(self) -> SubjectRouter:
        raise NotImplementedError("override the fixture router")

    @pytest.mark.parametrize(
        "subject", ["a", "a.b.c", "a.*", "*", "*.*.b", ">", "a.>", "ü.名前", "x*y", "a/b", "a>b.c"]
    )
    def test_a_good_subject_is_accepted(self, router: SubjectRouter, subject: str) -> None:
        assert router.validate(subject) is None

    @pytest.mark.parametrize(
        "subject",
        ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nb", "a\0", "a\x7f", "\u2003", ">.a", "a.>.b"],
    )
    def test_a_bad_subject_is_explained(self, router: SubjectRouter, subject: str) -> None:
        problem = router.validate(subject)
        assert problem is not None
        assert repr(subject) in problem

    def test_partition_0_listens_on_the_subject_itself(self, router: SubjectRouter) -> None:
        assert router.partition_subject("foo.*", 0) == "foo.*"

    def test_partitions_listen_on_different_valid_subjects(self, router: SubjectRouter) -> None:
        subjects = [router.partition_subject("foo.*", partition) for partition in range(20)]
        assert len(set(subjects)) == 20
        assert all(router.validate(subject) is None for subject in subjects)

    @pytest.mark.parametrize("subject", ["a", "a.b", "a*", "a>.b", "x*y.>z"])
    def test_a_subject_without_wildcards_is_literal_and_reaches_itself_only(
        self, router: SubjectRouter, subject: str
    ) -> None:
        assert router.is_literal(subject)
        assert router.matches(subject, subject)
        assert not router.matches(subject, subject + "x")
        assert not router.matches(subject, subject + ".x")

    @pytest.mark.parametrize("subject", ["*", ">", "a.*", "*.a", "a.*.b", "a.>"])
    def test_a_subject_with_wildcards_is_not_literal(self, router: SubjectRouter, subject: str) -> None:
        assert not router.is_literal(subject)

    @pytest.mark.parametrize(
        ("pattern", "subject", "matches"),
        [
            ("a", "a", True),
            ("a", "b", False),
            ("a", "a.b", False),
            ("a.b", "a", False),
            ("*", "a", True),
            ("*", "a.b", False),
            ("a.*", "a.b", True),
            ("a.*", "a", False),
            ("a.*", "a.b.c", False),
            ("a.*.c", "a.b.c", True),
            ("a.*.c", "a.b.d", False),
            (">", "a", True),
            (">", "a.b.c", True),
            ("a.>", "a.b", True),
            ("a.>", "a.b.c.d", True),
            ("a.>", "a", False),
            ("a.>", "b.c", False),
            ("*.>", "a.b.c", True),
            ("*.>", "a", False),
            ("a.*.1", "a.b.1", True),
            ("A", "a", False),
        ],
    )
    def test_wildcards_match_as_in_nats(self, router: SubjectRouter, pattern: str, subject: str, matches: bool) -> None:
        assert router.matches(pattern, subject) is matches
