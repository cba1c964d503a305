"""Dumps random values with PyYAML in every style, and says as JSON what they are."""
import json
import random
import struct
import sys

import yaml

WORDS = """n y N Y no yes on off true null ~ = << 1e3 1e-5 1.5e3 1.5e+3 0o7 0x1f 0b1 010 09 1_000 1:30
1:30.5 .5 -.5 . .. .inf -.inf .nan 2001-12-14 2001-12-14T21:59:43.10-05:00 12e03 +1 -1 0 -0 0.0
1. 1.e+2 __ _1 !x &a *a % @ ` | > - ? : , [ ] { } # --- ... "a: b" "a #b" "- a" "'" '"' {{$}}
{{$.inputs.parameters['x']}} \\n Infinity NaN None 0777 1,2 a\tb""".split()
LETTERS = "ab1.e+-:#'\"\\ \t\n\r,[]{}&*!|>%@`~=<_?\u00e9\u4e2d\U0001f600\x07\x7f\x85\u2028\ufeff\ud7ff\ufffd"


def text(random):
    if random.random() < 0.4:
        return random.choice(WORDS)
    return "".join(random.choice(LETTERS) for _ in range(random.randint(0, 12)))


def number(random):
    kind = random.randint(0, 5)
    if kind == 0:
        return random.randint(-(2**53), 2**53)
    if kind == 1:
        return random.randint(-1000, 1000)
    if kind == 2:
        return float(random.randint(-1000, 1000))
    if kind == 3:
        return random.uniform(-1e6, 1e6)
    while True:
        double = struct.unpack("<d", struct.pack("<Q", random.getrandbits(64)))[0]
        if double - double == 0:
            return double


def scalar(random):
    kind = random.randint(0, 9)
    if kind < 5:
        return text(random)
    if kind < 8:
        return number(random)
    return random.choice([True, False, None])


def value(random, depth):
    kind = random.randint(0, 9)
    if depth == 0 or kind < 5:
        return scalar(random)
    if kind < 8:
        return [value(random, depth - 1) for _ in range(random.randint(0, 6))]
    return {text(random): value(random, depth - 1) for _ in range(random.randint(0, 6))}


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    source = random.Random(seed)
    for _ in range(count):
        found = {"v": value(source, 5), "list": [scalar(source) for _ in range(20)]}
        # The compiler of the SDK writes with the defaults and sorted keys.
        options = source.choice(
            [
                {"sort_keys": True},
                {"allow_unicode": True},
                {"default_flow_style": True},
                {"width": 20},
                {"indent": 6, "explicit_start": True},
                {"default_style": '"'},
                {"default_style": "'"},
            ]
        )
        dumper = source.choice([yaml.Dumper, yaml.SafeDumper, getattr(yaml, "CSafeDumper", yaml.SafeDumper)])
        dumped = yaml.dump(found, Dumper=dumper, **options)
        # Line breaks of YAML 1.1 that YAML 1.2 takes for letters; with the defaults, which the compiler
        # of the SDK uses, PyYAML writes them as escapes.
        if options.get("allow_unicode") and any(char in dumped for char in "\x85\u2028\u2029"):
            continue
        # What PyYAML itself does not read back is not this test's.
        if yaml.safe_load(dumped) == found:
            print(json.dumps({"yaml": dumped, "value": found}))


main()
