"""Runs spec/interop/check_*.py, each with the Python that has what it needs, and adds up what they say. Arguments: names of checks (onnxruntime,
sklearn, torch); without, all. The last line is "N passed, N failed"; the exit code is 0 when nothing failed."""
import glob
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
COUNTS = re.compile(r"^(\d+) passed, (\d+) failed$")


def python_for(name):
    """PyTorch comes from the distribution, so its checks run with the distribution's Python. TensorFlow, whose messages are the authority for ours, is
    large: None where it was not asked for (make interop-full)."""
    if name == "grpc":
        return os.environ.get("INTEROP_GRPC_PYTHON")
    if name == "ovmsclient":
        return os.environ["INTEROP_KSERVE_PYTHON"]
    return "/usr/bin/python3" if name in ("finetune", "torch") else sys.executable


def name_of(path):
    return os.path.basename(path)[len("check_"):-len(".py")]


def run(path):
    name = name_of(path)
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", INTEROP_PYTHON=sys.executable)
    begin = time.monotonic()
    process = subprocess.Popen([python_for(name), path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    counts = None
    for line in process.stdout:
        match = COUNTS.match(line.rstrip("\n"))
        if match:
            counts = match
        else:
            print(line, end="", flush=True)
    code = process.wait()
    passed, failed = (int(counts[1]), int(counts[2])) if counts else (0, 0)
    if not counts or (code != 0 and failed == 0):
        print(f"{name}: ended with code {code}" + ("" if counts else " without saying what it checked"))
        failed += 1
    print(f"{name:<20} {passed:5d} passed, {failed} failed ({time.monotonic() - begin:.0f} s)", flush=True)
    return passed, failed


def main():
    paths = sorted(glob.glob(os.path.join(HERE, "check_*.py")))
    if len(sys.argv) > 1:
        paths = [os.path.join(HERE, f"check_{name}.py") for name in sys.argv[1:]]
    results = [run(path) for path in paths if python_for(name_of(path))]
    passed, failed = sum(r[0] for r in results), sum(r[1] for r in results)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
