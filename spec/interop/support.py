"""What the checks share: counting, and running our side (Lua 5.4 with this checkout's modules)."""
import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
DATA = os.path.join(ROOT, "examples", "data")
FULL = os.environ.get("MLSERVE_INTEROP_FULL", "") != ""

passed = failed = 0


def check(condition, what):
    """Counts one check; prints only what does not hold."""
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"not ok - {what}", flush=True)
    return bool(condition)


def add(more_passed, more_failed):
    """Counts the checks of somebody else."""
    global passed, failed
    passed += more_passed
    failed += more_failed


def finish():
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


def same(a, b, tolerance):
    """Scalars equal up to tolerance, relative where they are larger than 1; NaN equals NaN."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))


def environment():
    return dict(os.environ, LUA_PATH=f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;;", LUA_CPATH=f"{BUILD}/lua5.4/?.so;;")


def lua(script, *arguments):
    """Runs a Lua file of this checkout; its output."""
    command = ["lua5.4", os.path.join(ROOT, script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with code {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def ask(script, question, *arguments):
    """Runs spec/interop/SCRIPT with the question as a JSON file; what it prints is JSON, the answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(question, file)
        file.flush()
        return json.loads(lua(os.path.join("spec", "interop", script), file.name, *arguments))
