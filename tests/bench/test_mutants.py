"""The list of mutations is of this code: each stands where it says, and the tests that are to notice it exist."""

from bench.mutants import MUTATIONS, ROOT, TESTS


def test_every_mutation_applies_once() -> None:
    assert len(MUTATIONS) >= 40
    for mutation in MUTATIONS:
        text = (ROOT / mutation.path).read_text()
        assert mutation.applied(text) != text
    assert all((ROOT / path).is_file() for path in TESTS)
