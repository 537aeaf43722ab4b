"""seguectl from the outside: the example configurations, signing, verifying, the vectors, exit statuses."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CTL = ROOT / os.environ.get("SEGUE_BUILD", "build") / "seguectl"
EXAMPLES = ROOT / "packaging" / "examples"
VECTORS = json.loads((ROOT / "tests" / "vectors" / "signed-urls.json").read_text())
PATH = "/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/7.ogg"


def ctl(*args, stdin=None):
    return subprocess.run([CTL, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=30)


def secret_file(path, text):
    path.write_text(text)
    path.chmod(0o640)
    return path


@pytest.fixture
def keys(tmp_path):
    """The vectors' two keys; as there, none is the default."""
    lines = [f"  - {{kid: {kid}, secret: {secret}}}" for kid, secret in VECTORS["keys"].items()]
    return secret_file(tmp_path / "keys.yaml", "\n".join(["keys:", *lines, ""]))


@pytest.fixture
def examples(tmp_path):
    """The examples as an operator would lay them out."""
    for name in ("edge.yaml", "shield.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    secret_file(tmp_path / "keys.yaml", (EXAMPLES / "keys.yaml.example").read_text())
    return tmp_path


# ---- check ----


@pytest.mark.parametrize("name,said", [("edge.yaml", "edge"), ("shield.yaml", "shield"), ("keys.yaml", "1 signing key")])
def test_examples_pass(examples, name, said):
    r = ctl("check", examples / name)
    assert (r.returncode, r.stderr) == (0, "")
    assert said in r.stdout


def test_check_all_and_one_wrong(examples):
    bad = examples / "bad.yaml"
    bad.write_text((examples / "edge.yaml").read_text().replace("ttl: 30d", "ttl: 30 days"))
    line = next(i for i, text in enumerate(bad.read_text().splitlines(), 1) if "30 days" in text)
    r = ctl("check", examples / "edge.yaml", bad, examples / "shield.yaml")
    assert r.returncode == 1
    assert len(r.stdout.splitlines()) == 2
    assert r.stderr == (f"seguectl: {bad}:{line}: rules[2].ttl: expected a duration such as 30s, 5m, 1h, 7d or 1y, "
                        'got "30 days"\n')


def test_check_type(examples):
    assert ctl("check", "--type", "edge", examples / "edge.yaml").returncode == 0
    r = ctl("check", "--type", "shield", examples / "edge.yaml")
    assert r.returncode == 1 and "a shield has `origins`" in r.stderr
    r = ctl("check", "--type", "nginx", examples / "edge.yaml")
    assert r.returncode == 2 and "nginx" in r.stderr


def test_check_says_what_it_cannot_read(tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("colour: blue\n")
    for path, said in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "is a directory"), (other, "--type")]:
        r = ctl("check", path)
        assert r.returncode == 1 and said in r.stderr and r.stdout == ""


def test_keys_others_can_read_are_refused(examples):
    (examples / "keys.yaml").chmod(0o644)
    for name in ("edge.yaml", "keys.yaml"):
        r = ctl("check", examples / name)
        assert r.returncode == 1 and "others can read it (mode 0644)" in r.stderr


def test_secrets_are_never_printed(examples):
    text = (examples / "keys.yaml").read_text()
    secret = re.search(r"secret: (\S+)", text).group(1)
    secret_file(examples / "keys.yaml", text.replace(secret, secret[:-1]))
    r = ctl("check", examples / "keys.yaml")
    assert r.returncode == 1 and "keys[0].secret" in r.stderr and secret[:-1] not in r.stderr


# ---- sign ----


def signature(path_line, kid, params):
    """The contract's string to sign, computed here."""
    lines = ["segue1", path_line, *(f"{name}={params[name]}" for name in sorted(params))]
    key = base64.b64decode(VECTORS["keys"][kid])
    mac = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def test_sign_exact_path(keys):
    r = ctl("sign", "--keys", keys, "--kid", "k1", "--uid", "u42", "--exp", "1890003600", PATH)
    sig = signature(f"path={PATH}", "k1", {"exp": 1890003600, "kid": "k1", "uid": "u42"})
    assert r.returncode == 0 and r.stderr == ""
    assert r.stdout == f"{PATH}?exp=1890003600&kid=k1&uid=u42&sig={sig}\n"


def test_sign_the_first_vector(keys):
    r = ctl("sign", "--keys", keys, "--kid", "k1", "--uid", "u42", "--exp", "1790003600", PATH)
    assert r.returncode == 0
    assert r.stdout.strip() == VECTORS["cases"][0]["url"]


def test_sign_everything_in_the_path(keys):
    prefix = PATH.rsplit("/", 1)[0] + "/"
    r = ctl("sign", "-k", keys, "--kid", "k2", "--exp", "2029-11-21T20:20:00Z", "--depth", 3, "--uid", "u42", "--geo",
            "-US,CA", "--ip", "192.0.2.0/24", "--rate", "64KiB/s", "--path", "--base", "https://a.example/", PATH)
    params = {"exp": 1889986800, "kid": "k2", "uid": "u42", "geo": "-US,CA", "ip": "192.0.2.0/24", "rate": 65536}
    sig = signature(f"pfx={prefix}", "k2", params)
    assert r.returncode == 0, r.stderr
    base, token, path = re.fullmatch(r"(https://a\.example)/~([^/]*)(/.*)\n", r.stdout).groups()
    given = dict(pair.split("=", 1) for pair in token.split(";"))
    assert given.pop("ip").upper() == "192.0.2.0%2F24"
    assert given.pop("sig") == sig
    assert given == {"depth": "3", "exp": "1889986800", "kid": "k2", "uid": "u42", "geo": "-US,CA", "rate": "65536"}
    assert path == PATH


def test_pfx_and_depth_are_the_same(keys):
    args = ["sign", "-k", keys, "--kid", "k1", "--exp", "1890003600"]
    depth = ctl(*args, "--depth", 2, "/a/b/c.ogg")
    assert depth.returncode == 0
    assert depth.stdout == ctl(*args, "--pfx", "/a/b/", "/a/b/c.ogg").stdout
    assert depth.stdout == ctl(*args, "--prefix", "/a/b/", "/a/b/c.ogg").stdout
    short = ctl(*args, "--depth", 1, "/a/b/c.ogg")
    assert short.returncode == 0 and "warning" in short.stderr


def test_sign_keeps_host_and_query(keys):
    r = ctl("sign", "-k", keys, "--kid", "k1", "--ttl", "1h", "https://a.example:8443/x/y?v=2&w")
    assert re.fullmatch(r"https://a\.example:8443/x/y\?exp=\d+&kid=k1&sig=[\w-]{43}&v=2&w\n", r.stdout)
    exp = int(re.search(r"exp=(\d+)", r.stdout).group(1))
    assert abs(exp - time.time() - 3600) < 5


def test_sign_lines(keys):
    r = ctl("sign", "-k", keys, "--kid", "k1", "--exp", "1890003600", "-", stdin="/a\n\n/b/../c\n/d\n")
    assert r.returncode == 1 and "400" in r.stderr
    assert [line.split("?")[0] for line in r.stdout.splitlines()] == ["/a", "/d"]


@pytest.mark.parametrize("args,said", [
    (["/a/../b"], "400"),
    (["/a//b"], "400"),
    (["/a%2Fb"], "400"),
    (["/a%zz"], "400"),
    (["/a b"], "400"),
    (["a/b"], "neither a path"),
    (["ftp://a/b"], "neither a path"),
    (["https://a.example"], "neither a path"),
    (["/a?exp=5"], "has a token already: exp"),
    (["/~exp=5/a"], "has a token already"),
    (["--uid", "a b", "/a"], "--uid"),
    (["--geo", "se", "/a"], "--geo"),
    (["--geo", "", "--ip", "192.0.2.0/33", "/a"], "--ip"),
    (["--pfx", "/b/c/", "/a/b/c"], "--pfx"),
    (["--pfx", "/a/b", "/a/b/c"], "--pfx"),
    (["--depth", "3", "/a/b/c"], "fewer than 3 segments"),
    (["--kid", "k3", "/a"], 'has no key "k3"'),
])
def test_sign_refuses(keys, args, said):
    r = ctl("sign", "-k", keys, "--ttl", "1h", "--kid", "k1", *args)
    assert r.returncode == 1 and said in r.stderr and r.stdout == ""


@pytest.mark.parametrize("args", [
    [], ["/a"], ["--ttl", "1h", "--exp", "5", "/a"], ["--ttl", "1 hour", "/a"], ["--ttl", "500ms", "/a"],
    ["--exp", "soon", "/a"], ["--ttl", "1h"], ["--ttl", "1h", "--depth", "0", "/a"],
    ["--ttl", "1h", "--depth", "2", "--pfx", "/a/", "/a/b"], ["--ttl", "1h", "--rate", "0", "/a"],
    ["--ttl", "1h", "--rate", "fast", "/a"], ["--ttl", "1h", "--frob", "/a"], ["--ttl", "1h", "--base", "a.example", "/a"],
])
def test_sign_usage(keys, args):
    r = ctl("sign", "-k", keys, *args)
    assert r.returncode == 2 and r.stdout == "" and r.stderr != ""


def test_sign_needs_a_key_to_choose(keys):
    r = ctl("sign", "-k", keys, "--ttl", "1h", "/a")
    assert r.returncode == 1 and "several keys" in r.stderr


def test_sign_with_a_key_of_another_time(tmp_path):
    secret = VECTORS["keys"]["k1"]
    ended = secret_file(tmp_path / "ended.yaml", f"keys: [{{kid: k1, secret: {secret}, not_after: 1000000000}}]\n")
    r = ctl("sign", "-k", ended, "--ttl", "1h", "/a")
    assert r.returncode == 1 and "not valid since 2001-09-09T01:46:40Z" in r.stderr
    later = secret_file(tmp_path / "later.yaml", f"keys: [{{kid: k1, secret: {secret}, not_before: 9000000000}}]\n")
    r = ctl("sign", "-k", later, "--ttl", "1h", "/a")
    assert r.returncode == 1 and "is not valid before 2255-03-14T16:00:00Z" in r.stderr


# ---- verify ----


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vectors(keys, case):
    args = ["verify", "-k", keys, "--now", case["now"], "--client", case["client"]]
    # no country stands for one that is not known
    args += ["--country", case["country"]] if case["country"] else []
    r = ctl(*args, case["url"])
    if case["status"] == 200:
        assert r.returncode == 0 and r.stdout.startswith("valid\n")
    elif not case["country"] and case.get("reason") == "geo":
        assert "country      not checked" in r.stdout
    else:
        assert r.returncode == 1
        reason = f", Segue-Reason: {case['reason']}: " if case["status"] == 403 else ", "
        assert r.stdout.startswith(f"not valid: {case['status']}{reason}")


def test_verify_says_when(keys):
    url = ctl("sign", "-k", keys, "--kid", "k1", "--exp", "1890003600", PATH).stdout.strip()
    r = ctl("verify", "-k", keys, "--now", 1890000000, url)
    assert r.returncode == 0 and "expiry       ok: 2029-11-22T01:00:00Z, in 1 h" in r.stdout
    r = ctl("verify", "-k", keys, "--now", 1890003600 + 7500, url)
    assert r.returncode == 1
    assert "expiry       WRONG: 2029-11-22T01:00:00Z, 2 h 5 min ago" in r.stdout
    assert "address      not reached" in r.stdout


@pytest.mark.parametrize("args,change,said", [
    ([], lambda url: url.replace("kid=k1", "kid=k9"), 'key          WRONG: .* has no key "k9"'),
    ([], lambda url: url.replace("kid=k1&", ""), "the URL has no kid"),
    ([], lambda url: url.replace("/320/", "/160/"), "signature    WRONG"),
    ([], lambda url: url + "A", "form of sig  WRONG"),
    ([], lambda url: url.replace("sig=", "gis="), "token        WRONG: there is no sig"),
    ([], lambda url: url.replace("exp=", "pxe="), "token        WRONG: exp is missing"),
    (["--now", 1889900000], lambda url: url, "lifetime     WRONG: exp is 2029-11-22T01:00:00Z, more than 1 d from now"),
])
def test_verify_says_what(keys, args, change, said):
    url = ctl("sign", "-k", keys, "--kid", "k1", "--exp", "1890003600", PATH).stdout.strip()
    r = ctl("verify", "-k", keys, *(args or ["--now", 1890000000]), change(url))
    assert r.returncode == 1 and re.search(said, r.stdout), r.stdout


def test_verify_client_and_country(keys):
    url = ctl("sign", "-k", keys, "--kid", "k1", "--ttl", "1h", "--ip", "192.0.2.0/24", "--geo", "-US", PATH).stdout.strip()
    r = ctl("verify", "-k", keys, url)
    assert r.returncode == 0 and r.stdout.count("not checked") == 2
    assert ctl("verify", "-k", keys, "--client", "192.0.2.9", "--country", "SE", url).returncode == 0
    r = ctl("verify", "-k", keys, "--client", "198.51.100.1", url)
    assert r.returncode == 1 and "Segue-Reason: address" in r.stdout
    r = ctl("verify", "-k", keys, "--client", "192.0.2.9", "--country", "US", url)
    assert r.returncode == 1 and "Segue-Reason: geo" in r.stdout


def test_verify_by_the_edges_own_file(examples):
    keys = examples / "keys.yaml"
    url = ctl("sign", "-k", keys, "--ttl", "2d", "--depth", 2, PATH).stdout.strip()
    r = ctl("verify", "-c", examples / "edge.yaml", url)
    assert r.returncode == 1 and "lifetime     WRONG" in r.stdout
    edge = examples / "edge.yaml"
    edge.write_text(edge.read_text().replace("lifetime_max: 1d", "lifetime_max: 3d"))
    assert ctl("verify", "-c", edge, url).returncode == 0


@pytest.mark.parametrize("args", [[], ["/a"], ["-k", "x"], ["-k", "x", "-c", "y", "/a"], ["-k", "x", "/a", "/b"],
                                  ["-k", "x", "--now", "soon", "/a"], ["-k", "x", "--client", "me", "/a"],
                                  ["-k", "x", "--country", "se", "/a"]])
def test_verify_usage(args):
    r = ctl("verify", *args)
    assert r.returncode == 2 and r.stdout == "" and r.stderr != ""


# ---- seguectl itself ----


def test_usage():
    assert ctl().returncode == 2
    assert ctl("purr").returncode == 2
    r = ctl("--help")
    assert r.returncode == 0 and r.stderr == ""
    assert re.findall(r"^  (\w+)  ", r.stdout, re.M) == ["sign", "verify", "check"]
    for command in ("sign", "verify", "check"):
        r = ctl(command, "--help")
        assert r.returncode == 0 and r.stdout.startswith(f"usage: seguectl {command}")


def test_the_man_page_knows_every_option():
    page = (ROOT / "ctl" / "seguectl.8").read_text().replace("\\-", "-")
    for command in ("sign", "verify", "check"):
        for option in re.findall(r"--[a-z]+", ctl(command, "--help").stdout):
            assert option in page, option


def test_a_full_disk_is_an_error(keys):
    with open("/dev/full", "w") as full:
        r = subprocess.run([CTL, "sign", "-k", keys, "--kid", "k1", "--ttl", "1h", "/a"], stdout=full,
                           stderr=subprocess.PIPE, timeout=30)
    assert r.returncode == 1 and b"cannot write" in r.stderr
