"""What is asked for: the objects on the origin's disk and files of signed request targets."""

import base64
import hashlib
import hmac
import json
import pathlib
import random
import time

SIZES_KIB = (4, 32, 400)
OBJECTS = 4096          # the working set, for each size
TOKENS = 100_000        # different signed targets in each file, so that no memo of tokens carries the figure
STORM_CLIENTS = 1000
STORM_OBJECTS = 16      # never asked for before their round
IDLE_CONNECTIONS = {"plain": 10_000, "tls": 5000, "h2": 5000}
TLS_SIZES_KIB = (32, 400)
H2_CONNECTIONS = 4      # each from a client of its own with its own share of the targets
H2_STREAMS = 64
HANDSHAKES_AT_ONCE = 32
BEHAVED_KIB = 32        # what the well-behaved client asks for while others attack
BEHAVED_PER_S = 500
# Operations a second of each attack: bounded by what leaves the load's core free for the client that is measured.
ATTACKS = {"handshakes": 1500, "resets": 10_000, "heads": 2000, "requests": 8000}
SEED = 2

KID = "k1"
SECRET = b"a key for measurements, 32 bytes"


def sign(secret, path, **params):
    """The string to sign of a signed URL, and its MAC (interfaces: Signed URLs)."""
    lines = ["segue1", f"path={path}"] + [f"{name}={params[name]}" for name in sorted(params)]
    mac = hmac.new(secret, "\n".join(lines).encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def signed_target(path, exp, uid):
    signature = sign(SECRET, path, exp=exp, kid=KID, uid=uid)
    return f"{path}?exp={exp}&kid={KID}&uid={uid}&sig={signature}"


def check_vectors(file):
    """Our signatures are worth nothing if they are not those of the contract. Returns the cases compared."""
    vectors = json.loads(pathlib.Path(file).read_text())
    compared = 0
    for case in vectors["cases"]:
        path, _, query = case["url"].partition("?")
        pairs = [pair.partition("=")[::2] for pair in query.split("&")]
        params = dict(pairs)
        signature = params.pop("sig", None)
        plain = path.startswith("/tracks/") and len(params) + 1 == len(pairs) and "%" not in query \
            and set(params) <= {"exp", "kid", "uid"} and params.get("kid") in vectors["keys"]
        if case["status"] != 200 or not plain:
            continue
        secret = base64.b64decode(vectors["keys"][params["kid"]])
        if sign(secret, path, **params) != signature:
            raise AssertionError(f"signature differs from the vector: {case['name']}")
        compared += 1
    if compared < 3:
        raise AssertionError(f"only {compared} vectors could be compared")
    return compared


class Catalogue:
    """The objects, as files below `root` and as bytes to compare with."""

    def __init__(self, root, sizes_kib):
        self.root = pathlib.Path(root)
        self.sizes_kib = sizes_kib
        self.noise = random.Random(SEED).randbytes((max(SIZES_KIB) << 10) + 64 * OBJECTS)

    def path(self, kib, index):
        track = hashlib.sha256(f"{kib} {index}".encode()).hexdigest()[:22]
        return f"/tracks/{track}/320/{index % 20 + 1}.ogg"

    def storm_path(self, index):
        return f"/tracks/storm{index:017}/320/1.ogg"

    def body(self, kib, index):
        """Every object has bytes of its own: a window of the noise that starts at its own offset."""
        return memoryview(self.noise)[64 * index:64 * index + (kib << 10)]

    def write(self):
        for kib in self.sizes_kib:
            for index in range(OBJECTS):
                self._write(self.path(kib, index), self.body(kib, index))
        for index in range(STORM_OBJECTS):
            self._write(self.storm_path(index), self.body(400, index))

    def _write(self, path, body):
        file = self.root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)

    def targets(self, paths, count):
        """`count` different signed targets over the paths, in an order without pattern."""
        expires = int(time.time()) + 6 * 3600
        order = random.Random(SEED)
        lines = [signed_target(paths[i % len(paths)], expires + i % 3600, f"u{i:07}") for i in range(count)]
        order.shuffle(lines)
        return lines

    def write_targets(self, directory):
        """{(kib, "hot"|"set"): file} for every size."""
        files = {}
        for kib in self.sizes_kib:
            everything = [self.path(kib, index) for index in range(OBJECTS)]
            for name, paths in (("hot", everything[:1]), ("set", everything)):
                file = pathlib.Path(directory) / f"targets-{kib}-{name}.txt"
                file.write_text("\n".join(self.targets(paths, TOKENS)) + "\n")
                files[kib, name] = file
        return files

    def write_shares(self, directory, kib, count):
        """`count` files that share the hot object's targets among them, for clients that begin at the first."""
        lines = self.targets([self.path(kib, 0)], TOKENS)
        files = []
        for i in range(count):
            files.append(pathlib.Path(directory) / f"targets-{kib}-hot-{i}.txt")
            files[-1].write_text("\n".join(lines[i::count]) + "\n")
        return files
