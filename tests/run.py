#!/usr/bin/env python3
"""Runs what `make check` and `make soak` have built, and says in one line each how it went.

    tests/run.py check|soak [WORD...]     only what has one of the words in its name, such as asan, e2e or test_url

A test program, a file of pytest, a fuzz target and `make tidy` count as one each, and their own closing line stands
beside them. What fails is shown whole, and its output stays in build/check/. Nothing runs for ever: each has a
timeout, after which it and all that it started are killed. SIM_SEEDS and FUZZ_SECONDS change how long it takes.
"""
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "check"
CLOSING = [re.compile(p, re.MULTILINE) for p in (
    r"^\[  PASSED  \] (\d+ test\(s\))\.$",                    # cmocka
    r"^=* ?(\d+ passed.*?)(?: in [\d.]+s.*)?=*$",             # pytest
    r"^Done (\d+ runs in \d+ second\(s\))$",                  # libFuzzer
    r"^tidy: (.*)$",
)]


@dataclasses.dataclass
class Job:
    name: str
    command: list
    seconds_max: int
    env: dict = dataclasses.field(default_factory=dict)
    alone: bool = False   # no other of its group runs beside it: it uses several cores itself
    must_say: bool = True # without a closing line it did not do its work, whatever its exit status


@dataclasses.dataclass
class Result:
    job: Job
    passed: bool
    seconds: float
    said: str
    output: bytes


def found(pattern, what):
    paths = sorted(ROOT.glob(pattern))
    if not paths:
        sys.exit(f"run.py: no {what} found ({pattern}); that cannot be right")
    return paths


def programs(variant, soak):
    for source in found("tests/unit/*/test_*.c", "unit tests"):
        path = source.relative_to(ROOT).with_suffix("")
        yield Job(f"{variant} {path}", [ROOT / "build" / variant / path], 120)
    seeds = os.environ.get("SIM_SEEDS") or str({"release": 1000, "asan": 150}[variant] * (50 if soak else 1))
    for source in found("tests/sim/test_*.c", "simulation tests"):
        path = source.relative_to(ROOT).with_suffix("")
        yield Job(f"{variant} {path}", [ROOT / "build" / variant / path], 7200 if soak else 300, {"SIM_SEEDS": seeds})


def end_to_end(variant):
    for path in found("tests/e2e/test_*.py", "end-to-end tests"):
        if variant == "asan" and path.name == "test_demo.py":
            continue # A browser that plays music shows nothing about memory that the others do not.
        env = {"SEGUE_BUILD": f"build/{variant}"}
        command = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
        yield Job(f"{variant} {path.relative_to(ROOT)}", command, 600, env, alone=True)


def fuzz_targets():
    seconds = int(os.environ.get("FUZZ_SECONDS", "30"))
    for source in found("tests/fuzz/fuzz_*.c", "fuzz targets"):
        path = source.relative_to(ROOT).with_suffix("")
        name = source.stem.removeprefix("fuzz_")
        seeds = ROOT / "tests/fuzz/corpus" / name
        if not any(seeds.glob("*")):
            sys.exit(f"run.py: {source.name} has no seeds in {seeds.relative_to(ROOT)}/")
        grown = ROOT / "build/fuzz/corpus" / name # What libFuzzer finds goes here; the seeds stay as they are.
        grown.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                   "-verbosity=1", f"-artifact_prefix={ROOT}/build/fuzz/{name}-"]
        yield Job(f"fuzz {path}", [ROOT / "build/fuzz" / path, *options, grown, seeds], seconds + 90)


def stop(process):
    """Ends what the job started: its session, which a test program has no reason to leave."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(job):
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1",
           "PYTHONDONTWRITEBYTECODE": "1", **job.env}
    env.pop("MAKEFLAGS", None)
    path = OUT / (job.name.replace("/", "_").replace(" ", "-") + ".log")
    began, late = time.monotonic(), False
    with open(path, "wb") as log:
        try:
            process = subprocess.Popen(job.command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            return Result(job, False, 0, f"cannot be run: {error.strerror}", b"")
        try:
            status = process.wait(job.seconds_max)
        except subprocess.TimeoutExpired:
            late, status = True, None
        stop(process)
        process.wait()
    output = path.read_bytes()
    said = [m[1].strip() for p in CLOSING for m in p.finditer(output.decode(errors="replace"))]
    if late:
        why = f"not done after {job.seconds_max} s"
    elif status:
        why = f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
    else:
        why = said[-1] if said else "ended without its closing line"
    passed = status == 0 and bool(said)
    return Result(job, passed, time.monotonic() - began, why, output)


def tell(result):
    word = "ok  " if result.passed else "FAIL"
    print(f"{word} {result.job.name:<52} {result.seconds:6.1f} s  {result.said}", flush=True)
    if not result.passed:
        print(*("    | " + line for line in result.output.decode(errors="replace").splitlines()), sep="\n", flush=True)


def run_all(jobs):
    """Two at a time, or as many as there are processors; what must be alone among its kind runs after the others."""
    results = []
    with concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run, job) for job in jobs if not job.alone]):
            results.append(done.result())
            tell(results[-1])
    for job in jobs:
        if job.alone:
            results.append(run(job))
            tell(results[-1])
    return results


def main(kind, *words):
    soak = kind == "soak"
    OUT.mkdir(parents=True, exist_ok=True)
    # End-to-end tests wait more than they compute, one after another: what they leave of the machine is tidy's.
    tidy = Job("make tidy", ["nice", "-n", "15", "make", "--no-print-directory", "tidy"], 1200)
    groups = [
        [[*programs("release", soak), *programs("asan", soak)]],
        [[*end_to_end("release"), *end_to_end("asan")], [tidy]],
        [[*fuzz_targets()]],
    ]
    began, results = time.monotonic(), []
    for group in groups:
        wanted = [[job for job in jobs if not words or any(word in job.name for word in words)] for jobs in group]
        with concurrent.futures.ThreadPoolExecutor(len(wanted)) as pool:
            for found_out in pool.map(run_all, wanted):
                results += found_out
    failed = [r for r in results if not r.passed]
    if failed:
        print("\nFailed:", *(f"    {r.job.name}: {r.said}" for r in failed), sep="\n")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"\nmake {kind}: {minutes} min {seconds} s. Test programs, files of pytest, fuzz targets and tidy:")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("check", "soak"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
