#!/usr/bin/python3
"""Real music through a Segue shield and edge on this machine, until Ctrl-C. `make demo` runs it.

    player ---HTTP(S)--- edge (signed URLs, cache) ---HTTPS--- shield (cache) --- folders: build/demo/media, the page

Everything listens on free loopback ports and lives in a folder of its own, so demos can run side by side. What a
run writes (keys, configuration, logs) is gone after it; the encoded music stays in build/demo.
"""
import argparse
import base64
import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import figures
import media

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build"
STATE = BUILD / "demo"
TOKEN_LIFETIME = "12h"  # Within the edge's lifetime_max of a day.
START_SECONDS = 15
STOP_SECONDS = 3
LOG_LINES = 20
PR_SET_PDEATHSIG = 1
COUNTRIES = pathlib.Path("@ip-location-db", "iptoasn-country-mmdb", "iptoasn-country.mmdb")
NORWAY, AMERICA = "193.212.1.1", "8.8.8.8"  # addresses that are in these countries in that database


class Stop(BaseException):
    """A signal asked for the end. Like KeyboardInterrupt, it passes through `except Exception`."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class Failure(Exception):
    """What keeps the demo from going on, told to the user without a traceback."""


def say(text=""):
    print(text, flush=True)


def free_ports(count):
    """Distinct ports that were free a moment ago. All are held until the last is known."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))
            ports.append(held.getsockname()[1])
        return ports


def write_private(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)


# ---- programs ----

class Children:
    """The programs that the demo started. None outlives it, however it ends."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        self.libc = ctypes.CDLL(None)  # Loaded before any fork.

    def start(self, name, *command):
        log = self.folder / f"{name}.log"
        parent = os.getpid()

        def die_with_parent():
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # Should this process be killed without a chance.
            if os.getppid() != parent:
                os._exit(1)

        with open(log, "wb") as out:
            # A session of its own: Ctrl-C at the terminal then reaches this process alone, which ends them in order.
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent)
        self.started.append((name, process, log))

    def check(self):
        for name, process, log in self.started:
            code = process.poll()
            if code is not None:
                how = f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
                lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise Failure(f"{name} ended {how}. Its last lines:\n" + "\n".join(f"    {line}" for line in lines))

    def stop(self):
        for _, process, _ in reversed(self.started):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for name, process, _ in self.started:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"demo: {name} did not end within {STOP_SECONDS} s of SIGTERM and was killed", file=sys.stderr)
                process.kill()
                process.wait()


def wait_healthy(name, port, authority, children):
    deadline = time.monotonic() + START_SECONDS
    problem = ""
    trusting = ssl.create_default_context(cafile=authority)
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                          urllib.request.HTTPSHandler(context=trusting))
    while time.monotonic() < deadline:
        children.check()
        try:
            with browser.open(f"https://127.0.0.1:{port}/.segue/health", timeout=1):
                return
        except OSError as error:  # URLError and HTTPError are of its kind.
            problem = str(error)
        time.sleep(0.05)
    raise Failure(f"{name} did not answer /.segue/health in {START_SECONDS} s: {problem}")


# ---- what the programs are given ----

def yaml(text):
    """A YAML scalar; JSON strings are such."""
    return json.dumps(str(text))


def file_url(folder):
    return "file://" + urllib.parse.quote(str(folder))


def openssl(*words):
    try:
        return subprocess.run(["openssl", *[str(word) for word in words]], stdin=subprocess.DEVNULL, check=True,
                              capture_output=True).stdout
    except FileNotFoundError as error:
        raise Failure("openssl is not there (apt-get install openssl)") from error
    except subprocess.CalledProcessError as error:
        raise Failure(f"openssl {words[0]} failed: {error.stderr.decode(errors='replace').strip()}") from error


def write_certificates(run):
    """An authority of this run, and a certificate of it by which both edge and shield are known on loopback. Returns
    the hash of the certificate's public key, by which a browser can be told to take it."""
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2")
    openssl(*new, "-subj", "/CN=Segue demo", "-keyout", run / "ca.key", "-out", run / "ca.pem",
            "-addext", "keyUsage=critical,keyCertSign")
    openssl(*new, "-subj", "/CN=localhost", "-keyout", run / "tls.key", "-out", run / "tls.pem",
            "-CA", run / "ca.pem", "-CAkey", run / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "extendedKeyUsage=serverAuth")
    (run / "ca.key").unlink()  # It signs nothing else.
    public = openssl("pkey", "-in", run / "tls.key", "-pubout", "-outform", "DER")
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


def write_configuration(run, media_folder, modules, ports):
    write_private(run / "keys.yaml",
                  "default_kid: k1\nkeys:\n"
                  f"  - {{kid: k1, secret: {base64.b64encode(secrets.token_bytes(32)).decode()}}}\n")
    (run / "rights").write_text("# PATH-PREFIX MARKETS, or `none`, or `all`; a change holds within seconds\n")
    rules = ('rules:\n'
             '  - {match: "/tracks/**", ttl: 1y, immutable: true, track: "/tracks/{track}/{quality}/{n}.{ext}"}\n'
             '  - {match: "/covers/**", ttl: 1d, signed: false}\n'
             '  - {match: "/api/**", ttl: 5m, signed: false}\n'
             '  - {match: "/demo/**", ttl: 1m, signed: false}\n')
    (run / "shield.yaml").write_text(
        f'listen:\n  - {{address: "127.0.0.1:{ports["shield"]}", tls: {{certificate: tls.pem, key: tls.key}}}}\n'
        f'admin: {{socket: {yaml(run / "shield.sock")}}}\n'
        'memory: {size: 256MiB}\n'
        f'origins:\n  - {{match: "/demo/**", url: {yaml(file_url(run / "www"))}}}\n'
        f'  - {{match: "/**", url: {yaml(file_url(media_folder))}}}\n' + rules)
    (run / "edge.yaml").write_text(
        f'listen:\n  - {{address: "127.0.0.1:{ports["edge"]}"}}\n'
        f'  - {{address: "127.0.0.1:{ports["https"]}", tls: {{certificate: tls.pem, key: tls.key}}}}\n'
        f'admin: {{socket: {yaml(run / "edge.sock")}, address: "127.0.0.1:{ports["admin"]}"}}\n'
        'memory: {size: 256MiB}\n'
        f'upstreams:\n  - {{url: "https://127.0.0.1:{ports["shield"]}", tls: {{ca: ca.pem}}}}\n'
        'signing: {required: true, keys: keys.yaml, clock_skew: 5s, lifetime_max: 1d, pfx_depth_min: 2}\n'
        f'geo: {{database: {yaml(modules / COUNTRIES)}}}\n'
        'rights: rights\n'
        # Loopback is in no country. What is asked from here may say whom it stands for, as behind a load balancer.
        'trusted_proxies: ["127.0.0.0/8"]\n'
        + rules)


def npm_modules(with_browser_driver):
    """hls.js, the country database, and for the headless check playwright-core, at the versions of package-lock.json,
    from the npm registry."""
    folder = STATE / ("npm-check" if with_browser_driver else "npm")
    modules, stamp = folder / "node_modules", folder / "installed"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "package-lock.json").read_text()
    with media.locked(folder):
        if stamp.is_file() and stamp.read_text() == wanted and (modules / COUNTRIES).is_file():
            return modules
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            subprocess.run(command + ([] if with_browser_driver else ["--omit=dev"]), cwd=folder, check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failure(f"npm could not install the page's player and the countries: {error}") from error
        stamp.write_text(wanted)
    return modules


class Signer:
    def __init__(self, seguectl, keys):
        self.seguectl, self.keys = seguectl, keys

    def __call__(self, path, uid, *options):
        command = [str(self.seguectl), "sign", "--keys", str(self.keys), "--kid", "k1", "--ttl", TOKEN_LIFETIME,
                   "--uid", uid, *options, path]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        lines = done.stdout.split()
        if done.returncode != 0 or len(lines) != 1 or not lines[0].startswith("/"):
            raise Failure(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.strip() or done.stdout!r}")
        return lines[0]

    def folder(self, track, uid):
        """A track's folder behind one path token that is good for all of it, with a slash at its end."""
        return self(f"/tracks/{track}/master.m3u8", uid, "--path", "--depth", "2").removesuffix("master.m3u8")


def write_page(run, modules, catalogue, sign):
    page = run / "www" / "demo"
    page.mkdir(parents=True)
    for file in (HERE / "page").iterdir():
        shutil.copy(file, page / file.name)
    shutil.copy(modules / "hls.js" / "dist" / "hls.min.js", page / "hls.min.js")
    tokens = {track["id"]: sign.folder(track["id"], "page") for track in catalogue["tracks"]}
    expires = min(int(re.search(r"\bexp=(\d+)", token).group(1)) for token in tokens.values())
    (page / "session.json").write_text(json.dumps({"expires": expires, "tracks": tokens}))


# ---- listeners ----

class Listener(threading.Thread):
    """Asks for a track's segments as a player does: two at once to fill its buffer, then one as each is played.
    After a track, or one time in three after its third segment, it goes on to another."""

    BUFFERED = 2

    def __init__(self, number, port, tracks, tokens, speed):
        super().__init__(daemon=True, name=f"listener-{number}")
        self.port, self.tracks, self.tokens, self.speed = port, tracks, tokens, speed
        self.random = random.Random(number)
        self.ended = threading.Event()

    def run(self):
        # Not all at the same instant.
        self.ended.wait(self.random.uniform(0, media.SEGMENT_SECONDS) / self.speed)
        while not self.ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                self.play(connection)
            except (OSError, http.client.HTTPException):
                self.ended.wait(1)  # A player tries again; the figures show what went wrong.
            finally:
                connection.close()

    def play(self, connection):
        track = self.random.choice(self.tracks)
        quality = self.random.choices(track["qualities"], weights=(40, 35, 25))[0]
        for number in range(quality["segments"]):
            connection.request("GET", f"{self.tokens[track['id']]}{quality['quality']}/{number}.ogg")
            connection.getresponse().read()
            if number + 1 >= self.BUFFERED and self.ended.wait(media.SEGMENT_SECONDS / self.speed):
                return
            if number == 2 and self.random.random() < 0.3:
                return


# ---- the demo ----

def relative(path):
    """Shorter where it can be, and right when pasted into the shell that this was started from."""
    with contextlib.suppress(ValueError):
        return str(pathlib.Path(path).relative_to(pathlib.Path.cwd()))
    return str(path)


def quoted(path):
    return f"'{path}'" if re.search(r"[^\w./-]", str(path)) else str(path)


def show(base, secure, catalogue, sign, seguectl, run):
    keys = run / "keys.yaml"
    track = catalogue["tracks"][0]["id"]
    segment = f"/tracks/{track}/160/3.ogg" if catalogue["tracks"][0]["qualities"][1]["segments"] > 3 else \
        f"/tracks/{track}/160/0.ogg"
    signed = sign(segment, "u42")
    one = base + signed
    authority = run / "ca.pem"
    nordic = base + sign(segment, "u42", "--geo", "SE,NO")
    hls = base + sign.folder(track, "u42") + "master.m3u8"
    say(f"""
  Segue demo. Open this page:

      {base}/demo/index.html

  One signed segment, good for {TOKEN_LIFETIME}; ask twice and see Cache-Status turn into a hit:
      curl -sS -D - -o /dev/null '{one}'
      ffplay -autoexit -nodisp '{one}'

  The same over TLS and HTTP/2; the certificate is of this run's own authority:
      curl --cacert {quoted(authority)} -sS -D - -o /dev/null '{secure}{signed}'

  A whole track as HLS, with one token in the path:
      ffplay -autoexit -nodisp '{hls}'

  Without a signature, 403:
      curl -i '{base}{segment}'

  Signed for Sweden and Norway. Heard from an address in Norway, and from one in America, 403:
      curl -sS -D - -o /dev/null -H 'X-Forwarded-For: {NORWAY}' '{nordic}'
      curl -i -H 'X-Forwarded-For: {AMERICA}' '{nordic}'

  Take the track down, whatever was signed; a few seconds later nobody hears it. Without the line they do again:
      echo '/tracks/{track} none' >>{quoted(run / "rights")}

  Sign your own:
      {quoted(relative(seguectl))} sign --keys {quoted(keys)} --kid k1 --ttl 1h --uid me {segment}

  Music: {"; ".join(catalogue["copyright"])}; {catalogue["licence"]}, from Debian's {catalogue["package"]}.
  Ctrl-C ends all of it.
""")


def open_browser(url):
    if (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and shutil.which("xdg-open"):
        with contextlib.suppress(OSError):
            # The browser is the user's: it is not ended with the demo.
            subprocess.Popen(["xdg-open", url], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)


def show_figures(admin, children, seconds):
    """One line a second; in place on a terminal, so that the URLs above stay in sight."""
    end = time.monotonic() + seconds if seconds else float("inf")
    shown, warned = None, False
    due = time.monotonic()
    while time.monotonic() < end:
        children.check()
        try:
            reading = figures.read(admin)
        except (OSError, ValueError) as error:
            line = f"no figures: {error}"
        else:
            if reading.missing and not warned:
                say(f"  the edge's /metrics has no {', '.join(reading.missing)}")
                warned = True
            if shown is None:
                shown, line = figures.Figures(reading), None
            else:
                shown.add(reading)
                line = shown.line()
        if line and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print("\r\033[K" + f"  {line}"[:width], end="", flush=True)
        elif line:
            say(f"  {line}")
        due = max(due + 1, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


def headless_check(page, modules, public_key, screenshot):
    command = ["node", str(HERE / "headless.mjs"), page, str(modules), public_key]
    command += [str(screenshot)] if screenshot else []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as node:
        try:
            return node.wait(180)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGTERM)  # Its browser is in its group; node ends it in order.
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failure("the headless check took more than 180 s") from error
            raise


def run_demo(options, run, children):
    programs = {name: options.bin / name for name in ("segue-shield", "segue-edge", "seguectl")}
    for path in programs.values():
        if not os.access(path, os.X_OK):
            raise Failure(f"{path} is not there; run `make`")
    modules = npm_modules(options.headless_check)
    folder = STATE / (f"media-{options.media_seconds}s" if options.media_seconds else "media")
    if not folder.is_dir():
        say("Cutting real music into segments (once; about a minute or two) ...")
    catalogue = media.ensure(folder, options.media_seconds)

    ports = dict(zip(("edge", "https", "shield", "admin"), free_ports(4)))
    base, secure = f"http://127.0.0.1:{ports['edge']}", f"https://127.0.0.1:{ports['https']}"
    public_key = write_certificates(run)
    write_configuration(run, folder, modules, ports)
    sign = Signer(programs["seguectl"], run / "keys.yaml")
    write_page(run, modules, catalogue, sign)
    for name, port in (("shield", ports["shield"]), ("edge", ports["https"])):
        children.start(f"segue-{name}", programs[f"segue-{name}"], "-c", run / f"{name}.yaml")
        wait_healthy(f"segue-{name}", port, run / "ca.pem", children)

    listeners = []
    for number in range(options.listeners):
        tokens = {track["id"]: sign.folder(track["id"], f"listener-{number}") for track in catalogue["tracks"]}
        listeners.append(Listener(number, ports["edge"], catalogue["tracks"], tokens, options.speed))
    if options.headless_check:
        code = headless_check(f"{secure}/demo/index.html", modules, public_key, options.screenshot)
        children.check()
        return code
    page = f"{base}/demo/index.html"  # Without TLS: a browser of the user's would warn of the certificate.
    show(base, secure, catalogue, sign, programs["seguectl"], run)
    if not options.no_browser:
        open_browser(page)
    for listener in listeners:
        listener.start()
    try:
        show_figures(f"127.0.0.1:{ports['admin']}", children, options.seconds)
    finally:
        for listener in listeners:
            listener.ended.set()
    return 0


def stop_on(number, _frame):
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # The end has begun; a second Ctrl-C must not cut it short.
    raise Stop(number)


def arguments():
    parser = argparse.ArgumentParser(description="Real music through a Segue shield and edge, until Ctrl-C.")
    parser.add_argument("--bin", type=pathlib.Path, default=BUILD, help="where the programs are (build/)")
    parser.add_argument("--listeners", type=int, default=5, help="simulated listeners (5)")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than music they listen (1)")
    parser.add_argument("--no-browser", action="store_true", help="only print the page's URL")
    parser.add_argument("--seconds", type=float, help="end by itself after so long")
    parser.add_argument("--media-seconds", type=int, help="only so much of each track, for a quick first run")
    parser.add_argument("--headless-check", action="store_true",
                        help="play the page in headless Chromium, say what was seen, and end")
    parser.add_argument("--screenshot", type=pathlib.Path, help="of that page, a PNG")
    options = parser.parse_args()
    if options.speed <= 0 or options.listeners < 0:
        parser.error("--speed is above 0, --listeners 0 or more")
    return options


def main():
    options = arguments()
    options.bin = options.bin.resolve()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_on)
    # A short path: a Unix socket's may have 107 bytes at most. Mode 0700, for it holds a key.
    run = pathlib.Path(tempfile.mkdtemp(prefix="segue-demo-"))
    children = Children(run)
    code = 1
    try:
        code = run_demo(options, run, children)
    except Stop as stop:
        if sys.stdout.isatty():
            say()
        # Ctrl-C is how a demo ends; any other signal is told to who sent it, as shells do.
        code = 0 if stop.number == signal.SIGINT else 128 + stop.number
    except (Failure, RuntimeError, OSError) as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        children.stop()
        shutil.rmtree(run, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
