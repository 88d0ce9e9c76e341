"""The backend tests of the newest onnx package (build-aux/onnx_suite.py wrote them to .interop/suite) by `mlserve verify`, at every optimisation
level. Each case at each level is one check."""
import collections
import json
import os
import re
import subprocess
import sys

from support import ROOT, add, environment, finish

SUITE = os.path.join(ROOT, ".interop", "suite")
LEVELS = ("none", "exact", "fast")

# True: a case that is refused when it is loaded (an operator or a type that is not there) has failed. False: such cases are counted and printed
# by reason, and only wrong results fail.
REFUSED_IS_FAILURE = False


def verify(kind, level):
    command = ["lua5.4", os.path.join(ROOT, "bin", "mlserve"), "verify", "--json", "--level", level, os.path.join(SUITE, kind)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT)
    if not result.stdout:
        raise RuntimeError(f"mlserve verify {kind} at level {level} ended with code {result.returncode}: {result.stderr.strip()}")
    return json.loads(result.stdout)


def reasons(error):
    """What is missing, without the place: the operators of a list of them, else the message less names and shapes."""
    operators = re.findall(r"(\w+) \(domain ([\w.]+)", error) if error.startswith("unsupported operators") else []
    if operators:
        return sorted({f"operator {domain}.{name}" for name, domain in operators})
    return [re.sub(r"\([\d, -]*\)", "(…)", re.sub(r"\s*'[^']*'", "", error))]


def report(level, kind, answer):
    cases, wrong = answer["cases"], []
    refused = [case for case in cases if case["refused"]]
    wrong = [case for case in cases if not case["passed"] and (REFUSED_IS_FAILURE or not case["refused"])]
    print(f"{kind:<18} level {level:<5}  {answer['passed']:4d} passed, {len(cases) - answer['passed'] - len(refused)} wrong, {len(refused)} refused"
          f" ({answer['random']} by distribution)", flush=True)
    for case in wrong:
        print(f"not ok - {kind}/{case['case']} at level {level}: {case['error']}")
    add(answer["passed"], len(wrong))
    return refused


def main():
    if not os.path.isdir(SUITE):
        sys.exit(f"{SUITE} is not there: run make interop")
    counts, worst = collections.Counter(), {}
    for kind in sorted(name for name in os.listdir(SUITE) if os.path.isdir(os.path.join(SUITE, name))):
        for level in LEVELS:
            answer = verify(kind, level)
            refused = report(level, kind, answer)
            if level == LEVELS[-1]:
                counts.update(reason for case in refused for reason in reasons(case["error"]))
            for row in answer["operators"]:
                worst[row["operator"]] = max(worst.get(row["operator"], 0), row["max_rel"])
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"refused {count:4d}  {reason}")
    largest = sorted(worst.items(), key=lambda item: -item[1])[:5]
    print("largest relative errors: " + ", ".join(f"{name} {error:.2g}" for name, error in largest))
    finish()


if __name__ == "__main__":
    main()
