"""tests/RFC.md names only tests that there are."""

import re

from harness import ROOT


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
