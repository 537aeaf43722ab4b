"""No secret, token or signature in anything that a program says: its log, its access log, its metrics, its answers,
and its complaints about a configuration. And no dump of a process that holds them."""

import base64
import pathlib
import subprocess

import pytest

from conftest import TRACK
from harness import *

# 33 bytes: no padding to be cut off. Parts of it count, too.
SECRET = base64.b64encode(b"SegueMARKERsecretMARKERsecret+/=3").decode()
TOKEN = "TokenMARKERtokenMARKERtoken-4711"


def holds_secret(text):
    parts = [SECRET[i:i + 12] for i in range(0, len(SECRET) - 11, 4)] + [TOKEN[i:i + 12] for i in range(0, 20, 4)]
    return any(part in text for part in parts) or "MARKER" in text


KEYS_FILES = {
    "no list": f"keys: {SECRET}\n",
    "no mapping": f"{SECRET}\n",
    "a list of texts": f"keys: [{SECRET}]\n",
    "no colon": f"keys: [{{kid: k1, secret {SECRET}}}]\n",
    "as a key": f"keys: [{{kid: k1, {SECRET}: x}}]\n",
    "as a top key": f"{SECRET}: []\n",
    "twice": f"keys: [{{kid: k1, secret: {SECRET}, secret: {SECRET}}}]\n",
    "another's name": f"keys: [{{kid: k1, sercet: {SECRET}}}]\n",
    "as the kid": f"keys: [{{kid: {SECRET}, secret: {SECRET}}}]\n",
    "as a kid that is too long": f"keys: [{{kid: \"{SECRET}{SECRET}\", secret: {SECRET}}}]\n",
    "as a time": f"keys: [{{kid: k1, secret: {SECRET}, not_after: {SECRET[:30]}}}]\n",
    "as the default": f"default_kid: {SECRET[:32]}\nkeys: [{{kid: k1, secret: {SECRET}}}]\n",
    "not base64": f"keys: [{{kid: k1, secret: {SECRET}!}}]\n",
    "too short": f"keys: [{{kid: k1, secret: {SECRET[:8]}}}]\n",
    "too long": f"keys: [{{kid: k1, secret: {SECRET * 20}}}]\n",
    "a list": f"keys: [{{kid: k1, secret: [{SECRET}]}}]\n",
    "an anchor": f"keys: [{{kid: k1, secret: &{SECRET[:20]} {SECRET}}}]\n",
    "an alias": f"keys: [{{kid: k1, secret: *{SECRET[:20]}}}]\n",
    "a tag": f"keys: [{{kid: k1, secret: !{SECRET[:20]} {SECRET}}}]\n",
    "open quote": f"keys: [{{kid: k1, secret: \"{SECRET}\n",
    "open bracket": f"keys: [{{kid: k1, secret: {SECRET}\n",
    "a tab": f"keys:\n\t- {{kid: k1, secret: {SECRET}}}\n",
    "not utf-8": f"keys: [{{kid: k1, secret: {SECRET}\udcff}}]\n",
    "others can read it": f"keys: [{{kid: k1, secret: {SECRET}}}]\n",
    "same kid": f"keys: [{{kid: k1, secret: {SECRET}}}, {{kid: k1, secret: {SECRET}}}]\n",
}

TOKEN_FILES = {"too short": TOKEN[:15], "a space": TOKEN + " " + TOKEN, "too long": TOKEN * 20, "not ascii": TOKEN + "\xfc"}


def complaints(folder, keys, token):
    (folder / "edge.yaml").write_text(
        "listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://127.0.0.1:2\", peer_token: token}]\n"
        "admin: {address: \"127.0.0.1:3\", token: token}\nsigning: {keys: keys.yaml}\n")
    (folder / "keys.yaml").write_bytes(keys.encode("utf-8", "surrogateescape"))
    (folder / "token").write_text(token)
    for argv in (["segue-edge", "-t", "-c"], ["segue-edge", "-c"], ["seguectl", "check"]):
        done = subprocess.run([BUILD / argv[0], *argv[1:], folder / "edge.yaml"], capture_output=True, timeout=PATIENCE,
                              errors="replace")
        assert done.returncode != 0, argv
        yield done.stdout + done.stderr


@pytest.mark.parametrize("how", KEYS_FILES)
def test_complaints_about_keys(tmp_path, how):
    (tmp_path / "keys.yaml").touch(0o644 if how.startswith("others") else 0o600)
    (tmp_path / "token").touch(0o600)
    for text in complaints(tmp_path, KEYS_FILES[how], TOKEN):
        assert "keys.yaml" in text and not holds_secret(text), text


@pytest.mark.parametrize("how", TOKEN_FILES)
def test_complaints_about_tokens(tmp_path, how):
    for name in ("keys.yaml", "token"):
        (tmp_path / name).touch(0o600)
    for text in complaints(tmp_path, f"keys: [{{kid: k1, secret: {SECRET}}}]\n", TOKEN_FILES[how]):
        assert "token" in text and not holds_secret(text), text


@pytest.fixture
def edge(start, origin, scripted):
    folder = start.folder / "secrets"
    folder.mkdir()
    for name, text in (("keys.yaml", f"keys: [{{kid: k1, secret: {SECRET}}}]\n"), ("token", TOKEN + "\n")):
        (folder / name).touch(0o600)
        (folder / name).write_text(text)
    scripted.on("/tracks/secrets/320/1.ogg", reply(500, b"broken"))
    return start.edge(
        [{"url": f"http://127.0.0.1:{scripted.port}", "peer_token": str(folder / "token")}], workers=1,
        admin={"socket": str(folder / "admin.sock"), "address": f"127.0.0.1:{free_port()}", "token": str(folder / "token")},
        signing={"keys": str(folder / "keys.yaml")}, access_log={"path": "access.log"})


def test_nothing_that_is_said(edge, scripted):
    path = "/tracks/secrets/320/1.ogg"
    url = sign(path, key=base64.b64decode(SECRET))
    sig = url.partition("sig=")[2][:43]
    said = [repr(edge.ask(url)), repr(edge.ask(url[:-1] + "!")), repr(edge.ask(path + f"?kid=k1&exp=1&sig={sig}"))]
    (asked,) = scripted.requests(path)
    assert TOKEN in str(asked.fields) and "sig" not in asked.target  # it is used
    bearer = [("Authorization", f"Bearer {TOKEN}")]
    said += [repr(ask(edge.admin_port, "/object?url=" + url.replace("&", "%26"), fields=bearer, host="localhost")),
             repr(ask(edge.admin_port, "/purge", "POST", [("Authorization", f"Bearer {TOKEN}x")], host="localhost")),
             repr(ask(edge.admin_port, "/nowhere?" + TOKEN, "PUT", bearer, host="localhost"))]
    said += [edge.admin(target).body.decode() for target in ("/metrics", "/stats")]
    (edge.folder / "bad").touch(0o600)
    (edge.folder / "bad").write_text(f"keys: [{{kid: {SECRET}{SECRET}, secret: {SECRET}}}]\n")
    before = edge.conf
    edge.allow("reload refused", "configuration not reloaded")
    edge.reload({**before, "signing": {"keys": "bad"}}, refused=True)
    edge.reload(before)
    edge.stop()
    text = "".join(said) + edge.log() + (edge.folder / "access.log").read_text()
    assert "/tracks/secrets/" in text and "reload refused" in text
    assert not holds_secret(text) and sig not in text, text


def test_the_memory_of_a_process_that_holds_keys_is_not_dumped(start, edge, origin):
    limits = lambda program: pathlib.Path(f"/proc/{program.pid}/limits").read_text()
    core = lambda program: next(line for line in limits(program).splitlines() if line.startswith("Max core file size"))
    assert core(edge).split()[4:6] == ["0", "0"]
    plain = start.edge(origin.port, signing=False)
    before = core(plain)
    (plain.folder / "token").touch(0o600)
    (plain.folder / "token").write_text(TOKEN)
    plain.reload({**plain.conf, "admin": {**plain.conf["admin"], "token": "token"}})
    assert core(plain).split()[4:6] == ["0", "0"], before
