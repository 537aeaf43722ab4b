"""`make demo` as a user meets it: the page plays in a real browser, the lines it prints work when pasted, Ctrl-C ends
all of it. Needs built programs (in SEGUE_BUILD, or build/) and what `packaging/install-deps.sh check` installs."""
import contextlib
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / os.environ.get("SEGUE_BUILD", "build")
DEMO = [str(ROOT / "demo" / "demo.py"), "--bin", str(BIN), "--media-seconds", "60", "--no-browser"]
FIRST_RUN_SECONDS = 240  # Encoding and npm, once; later runs take what they made.

sys.path.insert(0, str(ROOT / "demo"))
import figures  # noqa: E402


def children_of(pid):
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def gone(pids, within_s=5):
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


class Demo:
    def __init__(self, folder, *options):
        self.runs = folder / "runs"
        self.runs.mkdir()
        self.out = folder / "out"
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(DEMO + list(options), stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, cwd=folder,
                                            env={**os.environ, "TMPDIR": str(self.runs)})

    def text(self):
        return self.out.read_text()

    def wait_for(self, pattern, within_s):
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self.process.poll() is None:
            if re.search(pattern, self.text(), re.MULTILINE):
                return
            time.sleep(0.05)
        pytest.fail(f"no {pattern!r} in:\n{self.text()}")

    def lines(self, command):
        return re.findall(rf"^      (\S*{command} .*)$", self.text(), re.MULTILINE)


@pytest.fixture
def demo(tmp_path):
    started = []

    def start(*options):
        started.append(Demo(tmp_path, *options))
        started[-1].wait_for("Ctrl-C ends all of it", FIRST_RUN_SECONDS)
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.wait(15)


def paste(line, folder, timeout=20):
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=timeout, check=False,
                          env={**os.environ, "SDL_AUDIODRIVER": "dummy"})


def test_the_page_plays_in_a_browser(tmp_path):
    shot = ROOT / "build" / "demo" / "page.png"
    done = subprocess.run(DEMO + ["--headless-check", "--screenshot", str(shot)], cwd=tmp_path, capture_output=True,
                          text=True, timeout=FIRST_RUN_SECONDS + 180, check=False)
    found = re.search(r"^\{$.*^\}$", done.stdout, re.MULTILINE | re.DOTALL)
    assert found, done.stdout + done.stderr
    report = json.loads(found.group(0))
    assert [check for check in report["checks"] if not check["good"]] == []
    assert len(report["checks"]) >= 16  # It went through to the end.
    assert done.returncode == 0
    assert shot.stat().st_size > 10000


def test_what_it_prints_works_as_printed(demo, tmp_path):
    run = demo("--listeners", "0")
    signed, secure, unsigned, norway, america = run.lines("curl")
    first, second = paste(signed, tmp_path), paste(signed, tmp_path)
    for answer in (first, second):
        assert answer.returncode == 0 and re.match(r"HTTP/1\.1 200 ", answer.stdout), answer.stdout + answer.stderr
        assert re.search(r"^content-type: audio/ogg\s*$", answer.stdout, re.IGNORECASE | re.MULTILINE)
    status = [", ".join(re.findall(r"^cache-status: (.*?)\s*$", answer.stdout, re.IGNORECASE | re.MULTILINE))
              for answer in (first, second)] # one member a cache, the shield's first (RFC 9211, 2)
    assert "segue-edge; hit" not in status[0] and "segue-edge; hit" in status[1]
    answer = paste(secure, tmp_path)
    assert re.match(r"HTTP/2 200 ", answer.stdout), answer.stdout + answer.stderr
    assert re.search(r"^cache-status: .*segue-edge; hit", answer.stdout, re.MULTILINE), answer.stdout
    untrusted = paste(secure.replace("--cacert ", "--capath "), tmp_path)
    assert untrusted.returncode == 60 and untrusted.stdout == ""
    paste(signed.replace("/dev/null", "segment.ogg"), tmp_path)
    original = re.search(r"/(tracks/\S+?)\?", signed).group(1)
    media = ROOT / "build" / "demo" / "media-60s"
    assert (tmp_path / "segment.ogg").read_bytes() == (media / original).read_bytes()

    refused = paste(unsigned, tmp_path)
    assert re.match(r"HTTP/1\.1 403 ", refused.stdout)
    assert re.search(r"^segue-reason: signature\s*$", refused.stdout, re.IGNORECASE | re.MULTILINE)

    assert re.match(r"HTTP/1\.1 200 ", paste(norway, tmp_path).stdout)
    for line in (america, norway.replace("193.212.1.1", "127.0.0.1")): # and where no country is known
        refused = paste(line, tmp_path)
        assert re.match(r"HTTP/1\.1 403 ", refused.stdout)
        assert re.search(r"^segue-reason: geo\s*$", refused.stdout, re.IGNORECASE | re.MULTILINE)

    for line, codec in zip(run.lines("ffplay"), ("vorbis", "aac"), strict=True):
        # Long enough to hear something; ffplay itself plays in real time.
        heard = paste(f"timeout --preserve-status -s INT 4 {line}", tmp_path)
        assert f"Audio: {codec}" in heard.stderr, heard.stderr[-2000:]

    (sign,) = run.lines("seguectl")
    own = paste(sign, tmp_path)
    base = re.search(r"(http://[\d.:]+)/demo/", run.text()).group(1)
    answer = paste(f"curl -sS -o /dev/null -w '%{{http_code}}' '{base}{own.stdout.strip()}'", tmp_path)
    assert answer.stdout == "200", own.stdout + own.stderr

    (take_down,) = run.lines("echo")
    assert paste(take_down, tmp_path).returncode == 0
    deadline = time.monotonic() + 20
    while not (answer := paste(signed, tmp_path).stdout).startswith("HTTP/1.1 403 ") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert re.search(r"^segue-reason: rights\s*$", answer, re.IGNORECASE | re.MULTILINE), answer


def test_figures_move_and_ctrl_c_ends_all(demo):
    run = demo("--speed", "10")
    run.wait_for(r"requests/s +[1-9][\d.]* % hits .*p99 first byte +[\d.]+ ms", 30)
    assert "no figures" not in run.text() and "has no segue_edge" not in run.text()
    children = children_of(run.process.pid)
    assert len(children) == 2
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(10) == 0, run.text()
    assert gone(children)
    assert list(run.runs.iterdir()) == []  # keys, configuration and logs
    assert "Traceback" not in run.text() and "was killed" not in run.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_orphans_however_it_ends(demo, number):
    run = demo("--listeners", "0")
    children = children_of(run.process.pid)
    run.process.send_signal(number)
    run.process.wait(10)
    assert gone(children)


def test_a_program_that_dies_is_told(demo):
    run = demo("--listeners", "0")
    children = children_of(run.process.pid)
    edge = next(pid for pid in children if b"segue-edge" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(edge, signal.SIGKILL)
    assert run.process.wait(10) == 1
    assert "segue-edge ended by SIGKILL" in run.text()
    assert gone(children)


def test_without_programs_it_says_what_to_do(tmp_path):
    done = subprocess.run([DEMO[0], "--bin", str(tmp_path)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "run `make`" in done.stderr and "Traceback" not in done.stderr


def reading(text, at):
    return figures.Reading(figures.parse(text), at)


def test_figures_from_two_readings():
    name = "segue_edge_first_byte_seconds_bucket"
    before = reading(f'segue_edge_requests_total{{status="2xx",result="hit"}} 10\nsegue_edge_sent_bytes_total 1000\n'
                     f'{name}{{result="hit",le="0.001"}} 10\n{name}{{result="hit",le="+Inf"}} 10\n', 100.0)
    after = reading(f'segue_edge_requests_total{{status="2xx",result="hit"}} 13\n'
                    f'segue_edge_requests_total{{status="2xx",result="miss"}} 1\nsegue_edge_sent_bytes_total 5096\n'
                    f'{name}{{result="hit",le="0.001"}} 13\n{name}{{result="hit",le="+Inf"}} 13\n'
                    f'{name}{{result="miss",le="0.001"}} 0\n{name}{{result="miss",le="+Inf"}} 1\n', 102.0)
    shown = figures.Figures(before)
    shown.add(after)
    line = shown.line()
    assert "2.0 requests/s" in line and "75.0 % hits" in line and "2.0 KiB/s" in line
    assert before.missing == [] and reading("", 0).missing != []


def test_quantile_interpolates_within_its_bucket():
    buckets = {0.001: 0, 0.002: 100, 0.004: 100, math.inf: 100}
    assert figures.quantile(0.5, {}, buckets) == pytest.approx(0.0015)
    assert figures.quantile(0.5, buckets, buckets) is None
    assert figures.quantile(0.99, {}, {0.001: 0, math.inf: 1}) == 0.001
