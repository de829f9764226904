"""The README's example runs and gives what it says."""

import doctest
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_example_runs() -> None:
    failed, attempted = doctest.testfile(str(README), module_relative=False)
    assert attempted > 5
    assert failed == 0
