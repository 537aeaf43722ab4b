#!/usr/bin/env python3
"""House rules that no other tool knows (docs/style.md): layers, who may call what, lengths of files and functions.

    tests/rules.py FILE...        prints FILE:LINE: what is wrong; exit status 1 if anything is
    tests/rules.py --self-test    shows that each rule rejects what it should and lets pass what it should
"""
import re
import sys

LAYERS = ["util", "io", "net", "http", "cache", "node", "proxy"]
PROGRAMS = ["edge", "origin-shield", "router", "ctl"]
FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 80

BANNED = re.compile(r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca|system|popen)\s*\(")
RANDOM = re.compile(r"(?<![\w.>])(rand|srand|random|srandom)\s*\(")
CLOCK = re.compile(r"(?<![\w.>])(clock_gettime|gettimeofday|time)\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
LITERAL_OR_COMMENT = re.compile(r"""/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""", re.DOTALL)


def code_only(text):
    """The text with comments and what stands in quotes blanked; lines stay where they are."""
    return LITERAL_OR_COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def layer_of(path):
    parts = path.split("/")
    return parts[1] if parts[0] == "base" and len(parts) > 2 else None


def includes(path, text):
    layer, top = layer_of(path), path.split("/")[0]
    if top == "base" and layer not in LAYERS:
        yield 1, f"base/{layer} is not a layer"
        return
    for number, line in enumerate(text.split("\n"), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        quote, name = found.groups()
        if name == "liburing.h" and not re.fullmatch(r"base/io/io_\w+\.[ch]", path):
            yield number, "only base/io/io_*.[ch] may include liburing.h"
        if quote == "<":
            continue
        target = name.split("/")[0] if "/" in name else None
        if ".." in name.split("/") and top != "tests":
            yield number, f'"{name}": includes are relative to base/'
        elif layer and target is None:
            yield number, f'"{name}": includes in base/ name their layer'
        elif layer and target not in LAYERS:
            yield number, f'"{name}": base/ includes only base/'
        elif layer and LAYERS.index(target) > LAYERS.index(layer):
            yield number, f'"{name}": {layer} comes before {target}'
        elif top in PROGRAMS and target is not None and target not in LAYERS:
            yield number, f'"{name}": a program includes only base/ and its own folder'


def calls(path, code):
    product = path.split("/")[0] not in ("tests", "bench")
    for number, line in enumerate(code.split("\n"), 1):
        found = BANNED.search(line) or (product and RANDOM.search(line))
        if found:
            yield number, f"{found[1]}() is not used here"
        found = CLOCK.search(line)
        if found and product and path != "base/util/clock.c":
            yield number, f"{found[1]}(): only util/clock.c asks what time it is"


def lengths(code):
    lines = code.rstrip("\n").split("\n")
    if len(lines) > FILE_LINES_MAX:
        yield len(lines), f"the file has {len(lines)} lines, more than {FILE_LINES_MAX}"
    begin = None
    for number, line in enumerate(lines, 1):
        # A function's braces stand alone in the first column (BreakBeforeBraces: Linux).
        if line.rstrip() == "{":
            begin = number
        elif line.rstrip() == "}" and begin is not None:
            if number - begin - 1 > FUNCTION_LINES_MAX:
                yield begin, f"the function has {number - begin - 1} lines, more than {FUNCTION_LINES_MAX}"
            begin = None


def problems(path, text):
    code = code_only(text)
    found = [*includes(path, text), *calls(path, code), *lengths(code)]
    return [f"{path}:{number}: {what}" for number, what in sorted(found)]


def self_test():
    wrong = [
        ("base/util/a.c", '#include "io/io.h"\n', 1),
        ("base/io/a.c", '#include "net/address.h"\n', 1),
        ("base/net/a.h", '#include "http/url.h"\n', 1),
        ("base/http/a.c", 'int x;\n#include "cache/key.h"\n', 2),
        ("base/cache/a.c", '#include "node/admin.h"\n', 1),
        ("base/node/a.c", '  #  include "proxy/conn.h"\n', 1),
        ("base/proxy/a.c", '#include "edge/policy.h"\n', 1),
        ("base/proxy/a.c", '#include "../edge/policy.h"\n', 1),
        ("base/proxy/a.c", '#include "conn.h"\n', 1),
        ("base/misc/a.c", "\n", 1),
        ("edge/a.c", '#include "origin-shield/policy.h"\n', 1),
        ("base/net/a.c", "#include <liburing.h>\n", 1),
        ("tests/unit/io/a.c", "#include <liburing.h>\n", 1),
        ("edge/a.c", "t = time(NULL);\n", 1),
        ("base/io/a.c", "\nclock_gettime(id, &t);\n", 2),
        ("base/io/a.c", "gettimeofday(&t, NULL);\n", 1),
        ("base/io/a.c", "x = rand();\n", 1),
        *[("tests/unit/io/a.c", f"x = {name}(y);\n", 1)
          for name in "strcpy strcat sprintf gets strtok alloca system popen".split()],
        ("base/util/a.c", "\n" * 900 + "x\n", 901),
        ("base/util/a.c", "int f(void)\n{\n" + "    g();\n" * 81 + "}\n", 2),
    ]
    right = [
        ("base/proxy/a.c", '#include "util/str.h"\n#include "proxy/conn.h"\n#include <stdio.h>\n'),
        ("base/util/a.c", '#include "util/str.h"\n'),
        ("base/io/io_uring.c", "#include <liburing.h>\n"),
        ("edge/a.c", '#include "edge_policy.h"\n#include "proxy/program.h"\n'),
        ("base/util/clock.c", "clock_gettime(id, &t);\n"),
        ("tests/unit/io/a.c", "now = time(NULL) + rand();\n"),
        ("base/io/a.c", 'runtime(x); t->time(x); t.rand(x); snprintf(a, n, "system(1)"); // popen()\n/* gets()\n*/\n'),
        ("base/util/a.c", "\n" * 899 + "x\n"),
        ("base/util/a.c", "int f(void)\n{\n" + "    g();\n" * 80 + "}\n"),
    ]
    for path, text, line in wrong:
        found = problems(path, text)
        assert len(found) == 1 and found[0].startswith(f"{path}:{line}: "), (path, text[:60], found)
    for path, text in right:
        assert problems(path, text) == [], problems(path, text)


def main(paths):
    if paths == ["--self-test"]:
        self_test()
        return 0
    if not paths:
        print("rules.py: no files to look at")
        return 1
    found = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            found += problems(path, file.read())
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
