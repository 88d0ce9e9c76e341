"""The backend tests of the newest onnx package (build-aux/onnx_suite.py wrote them to .interop/suite) by `mlserve verify`, at every optimisation
level. Each case at each level is one check."""
import json
import os
import subprocess
import sys

from support import ROOT, add, environment, finish

SUITE = os.path.join(ROOT, ".interop", "suite")
LEVELS = ("none", "exact", "fast")


def verify(kind, level):
    command = ["lua5.4", os.path.join(ROOT, "bin", "mlserve"), "verify", "--json", "--level", level, os.path.join(SUITE, kind)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT)
    if not result.stdout:
        raise RuntimeError(f"mlserve verify {kind} at level {level} ended with code {result.returncode}: {result.stderr.strip()}")
    return json.loads(result.stdout)


def report(level, kind, answer):
    wrong = [case for case in answer["cases"] if not case["passed"]]
    print(f"{kind:<18} level {level:<5}  {answer['passed']:4d} passed, {len(wrong)} failed ({answer['random']} by distribution)", flush=True)
    for case in wrong:
        print(f"not ok - {kind}/{case['case']} at level {level}: {case['error']}")
    add(answer["passed"], len(wrong))


def main():
    if not os.path.isdir(SUITE):
        sys.exit(f"{SUITE} is not there: run make interop")
    worst = {}
    for kind in sorted(name for name in os.listdir(SUITE) if os.path.isdir(os.path.join(SUITE, name))):
        for level in LEVELS:
            answer = verify(kind, level)
            report(level, kind, answer)
            for row in answer["operators"]:
                worst[row["operator"]] = max(worst.get(row["operator"], 0), row["max_rel"])
    largest = sorted(worst.items(), key=lambda item: -item[1])[:5]
    print("largest relative errors: " + ", ".join(f"{name} {error:.2g}" for name, error in largest))
    finish()


if __name__ == "__main__":
    main()
