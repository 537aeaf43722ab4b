"""tests/RFC.md names only tests that there are."""

import re

from harness import ROOT
from test_http2_frames import FRAMES, REQUESTS

CASES = {"test_frames": [case[0] for case in FRAMES], "test_requests": [case[0] for case in REQUESTS]}


def test_every_test_of_the_table_exists():
    here = {p.stem: set(re.findall(r"^def (test_\w+)", p.read_text(), re.M))
            for p in (ROOT / "tests/e2e").glob("test_*.py")}
    rows = [line for line in (ROOT / "tests/RFC.md").read_text().splitlines() if line.startswith("| ")]
    named = 0
    for row in rows:
        file = None
        for at, name in re.findall(r"(?:(unit/\w+/test_\w+|test_\w+)::)?(\brfc\w+|\btest_\w+|(?<=::)\w+)", row):
            file = at or file
            if name in here:  # a whole file
                continue
            assert file is not None, row
            if file.startswith("unit/"):
                assert f"static void {name}(" in (ROOT / "tests" / f"{file}.c").read_text(), (file, name)
            else:
                assert name in here[file], (file, name)
            named += 1
    assert named > 100


def test_every_frame_of_the_table_is_sent():
    """A row names cases by how they begin, as test_frames[5.1-idle, 5.1-closed]; and each case belongs to a row."""
    rows = [line for line in (ROOT / "tests/RFC.md").read_text().splitlines() if line.startswith("| ")]
    named = [(test, begin) for row in rows for test, list_ in re.findall(r"(test_frames|test_requests)\[([^\]]+)\]", row)
             for begin in list_.split(", ")]
    for test, begin in named:
        assert any(case.startswith(begin) for case in CASES[test]), (test, begin)
    for test, cases in CASES.items():
        for case in cases:
            assert any(t == test and case.startswith(begin) for t, begin in named), (test, case)
