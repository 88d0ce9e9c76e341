"""Clients of gRPC in many languages against `mlserve serve`: all run one table of calls, each with its library's own code for HTTP/2, framing, deadlines and
compression; what they get is compared here, numbers with ONNX Runtime's on the same files. The programs are in spec/interop/grpc."""
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import check_kserve
import support
from support import HERE, ROOT, check, finish, same

CLIENTS = os.path.join(HERE, "grpc")
INTEROP = os.path.join(ROOT, ".interop")
PYTHON = os.environ.get("INTEROP_KSERVE_PYTHON", os.path.join(INTEROP, "kserve", "bin", "python"))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
TRANSPORTS = os.environ.get("INTEROP_TRANSPORTS", "http nginx").split()
FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
CLASSES = ["setosa", "versicolor", "virginica"]
DATATYPES = {datatype: kind for datatype, kind in check_kserve.DATATYPES.items() if datatype != "BYTES"}
STREAMS, LARGE, TOO_LARGE = 100, 750_000, 1_100_000  # 3 MB of floats; 4.4 MB
SERVICES = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService",
            "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"]
METHODS = ["ModelConfig", "ModelInfer", "ModelMetadata", "ModelReady", "ModelStatistics", "ModelStreamInfer", "RepositoryIndex", "RepositoryModelLoad",
           "RepositoryModelUnload", "ServerLive", "ServerMetadata", "ServerReady"]


# ---- models ----

def value(name, dtype, *shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(base, name, nodes, inputs, outputs, initializers=(), properties=None):
    model = helper.make_model(helper.make_graph(nodes, name, inputs, outputs, list(initializers)), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if properties:
        helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    folder = os.path.join(base, name, "1")
    os.makedirs(folder)
    onnx.save(model, os.path.join(folder, "model.onnx"))
    if name == "type_bf16":
        return None  # the one type that ONNX Runtime's Python has not
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def half_plus_two(base, name):
    """y = x / 2 + 2, the model of TensorFlow Serving's tutorials."""
    signatures = {"serving_default": {"inputs": {"x": "x"}, "outputs": {"y": "y"}},
                  "tensorflow/serving/regress": {"inputs": {"x": "x"}, "outputs": {"outputs": "y"}, "method_name": "tensorflow/serving/regress"}}
    return save(base, name, [helper.make_node("Mul", ["x", "half"], ["h"]), helper.make_node("Add", ["h", "two"], ["y"])],
                [value("x", TensorProto.FLOAT, "n")], [value("y", TensorProto.FLOAT, "n")],
                [helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]), helper.make_tensor("two", TensorProto.FLOAT, [], [2])],
                {"mlserve.signatures": json.dumps(signatures)})


def make_models(base, others):
    rng = np.random.default_rng(17)
    sessions = {"half_plus_two": half_plus_two(base, "half_plus_two"), "spare": half_plus_two(base, "spare"), "added": half_plus_two(others, "added")}
    weights, bias = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    sessions["linear"] = save(base, "linear", [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["scores"], axis=1)],
                              [value("x", TensorProto.FLOAT, "n", 4)], [value("scores", TensorProto.FLOAT, "n", 3)],
                              [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
                              {"mlserve.features": json.dumps(FEATURES), "mlserve.classes": json.dumps(CLASSES)})
    sessions["negate"] = save(base, "negate", [helper.make_node("Neg", ["x"], ["y"])], [value("x", TensorProto.FLOAT, "n", "m")],
                              [value("y", TensorProto.FLOAT, "n", "m")])
    sessions["words"] = save(base, "words", [helper.make_node("Identity", ["w"], ["same"])], [value("w", TensorProto.STRING, "n")],
                             [value("same", TensorProto.STRING, "n")])
    for datatype, (kind, _) in DATATYPES.items():
        nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE)]
        sessions[datatype] = save(base, "type_" + datatype.lower(), nodes, [value("x", kind, "n", 3)],
                                  [value("same", kind, "n", 3), value("wide", TensorProto.DOUBLE, "n", 3)])
    # takes as long as its input says
    step = (rng.normal(size=(128, 128)) * 0.05).astype(np.float32)
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["state", "step"], ["product"]),
                              helper.make_node("Tanh", ["product"], ["next"])], "body",
                             [value("i", TensorProto.INT64), value("go", TensorProto.BOOL), value("state", TensorProto.FLOAT, 128, 128)],
                             [value("on", TensorProto.BOOL), value("next", TensorProto.FLOAT, 128, 128)])
    save(base, "slow", [helper.make_node("ReduceMax", ["n"], ["count"], keepdims=0), helper.make_node("Loop", ["count", "", "step"], ["last"], body=body),
                        helper.make_node("ReduceSum", ["last"], ["sum"], keepdims=0), helper.make_node("Reshape", ["sum", "one"], ["y"])],
         [value("n", TensorProto.INT64, 1)], [value("y", TensorProto.FLOAT, 1)],
         [numpy_helper.from_array(step, "step"), helper.make_tensor("one", TensorProto.INT64, [1], [1])])
    return sessions


def numbers(count):
    """What all clients send where much is sent."""
    return ((np.arange(count, dtype=np.int64) * 7919 % 10007) - 5000).astype(np.float32)


# ---- what is expected ----

def near(expected, tolerance=2e-6):
    """A predicate: the same structure, numbers up to tolerance."""
    def fits(got, wanted):
        if isinstance(wanted, dict):
            return isinstance(got, dict) and got.keys() == wanted.keys() and all(fits(got[key], wanted[key]) for key in wanted)
        if isinstance(wanted, (list, tuple)):
            return isinstance(got, list) and len(got) == len(wanted) and all(fits(a, b) for a, b in zip(got, wanted))
        if isinstance(wanted, float):
            return isinstance(got, (int, float)) and not isinstance(got, bool) and same(float(got), wanted, tolerance)
        return got == wanted and isinstance(got, bool) == isinstance(wanted, bool)
    return lambda result: "value" in result and fits(result["value"], expected)


def status(code, *parts):
    return lambda result: result.get("code") == code and all(part in result["message"] for part in parts)


def expectations(config, sessions):
    """Name of a case -> whether its result is right."""
    x = np.array(config["x"], np.float32)
    scores = sessions["linear"].run(None, {"x": x})[0]
    flat, rows = scores.ravel().astype(float).tolist(), scores.astype(float).tolist()
    halves = sessions["half_plus_two"].run(None, {"x": np.array(config["halves"], np.float32)})[0].astype(float).tolist()
    large = sessions["negate"].run(None, {"x": numbers(LARGE).reshape(1, -1)})[0]
    digest = [[1, LARGE], hashlib.sha256(large.astype("<f4").tobytes()).hexdigest()]
    each = [[float(v)] for v in sessions["half_plus_two"].run(None, {"x": np.arange(STREAMS, dtype=np.float32)})[0]]
    words = sessions["words"].run(None, {"w": np.array(config["words"], object)})[0].tolist()
    classes = [[[label, score] for label, score in zip(CLASSES, row)] for row in rows]
    bad_shape = "unexpected shape for input 'x' for model 'linear'. Expected [-1,4], got [3,2]. "
    unknown = f"Request for unknown model: '{config['unknown']}' is not found"
    types = {}
    for datatype, (_, kind) in DATATYPES.items():
        given = np.frombuffer(base64.b64decode(config["types"][datatype]), kind).reshape(-1, 3)
        same, wide = sessions[datatype].run(None, {"x": given}) if sessions[datatype] else (given, given.astype(np.float64))
        types[datatype] = [base64.b64encode(same.tobytes()).decode(), wide.ravel().tolist()]
    best = [[[int(i), float(row[i])] for i in np.argsort(-row)[:2]] for row in scores]
    return {
        "predict_content": near({"scores": flat, "shape": [3, 3], "model": "linear", "version": 1, "signature": "serving_default"}),
        "predict_typed": near(flat), "predict_words": near(words), "classify": near(classes), "regress": near(halves), "multi_inference": near([halves]),
        "model_metadata": near({"inputs": {"x": ["DT_FLOAT", [-1, 4]]}, "outputs": ["scores"], "method": "tensorflow/serving/predict"}),
        "model_status": near([[1, "AVAILABLE", ""]]), "reload_config": near([halves, "NOT_FOUND"]),
        "predict_gzip": near(halves), "predict_metadata": near(halves), "predict_large": near(digest), "predict_streams": near(each),
        "deadline": near({"code": "DEADLINE_EXCEEDED", "after": halves}), "cancelled": near({"code": "CANCELLED", "after": halves}),
        "error_invalid_argument": status("INVALID_ARGUMENT"),
        "error_not_found": status("NOT_FOUND", f"Servable not found for request: Latest({config['unknown']})"),
        "error_failed_precondition": status("FAILED_PRECONDITION", "none"), "error_permission_denied": status("PERMISSION_DENIED"),
        "error_unknown": status("UNKNOWN", "1 model(s) did not become available"), "error_resource_exhausted": status("RESOURCE_EXHAUSTED", "larger than max"),
        "live": near([True, True, True, False]),
        "metadata": near({"server": "mlserve", "model": "linear", "versions": ["1"], "input": ["x", "FP32", [-1, 4]], "output": ["scores", "FP32", [-1, 3]]}),
        "infer_raw": near({"scores": flat, "shape": [3, 3], "datatype": "FP32", "output": "scores", "id": "r1", "model": "linear", "version": "1"}),
        "infer_typed": near(flat), "infer_words": near(words), "config": near({"name": "linear", "input": "x", "dims": [4], "output": "scores"}),
        "statistics": near(3), "repository": near([["READY"], False, "NOT_FOUND", halves]), "stream": near([flat, "[request id: r1] " + bad_shape, flat]),
        "stream_metadata": status("NOT_FOUND", "Request for unknown model: 'none' is not found"), "stream_gzip": near([flat, flat]),
        "stream_cancelled": near({"code": "CANCELLED", "first": flat, "after": halves}), "stream_deadline": near([[], "DEADLINE_EXCEEDED"]),
        "infer_large": near(digest), "infer_streams": near(each),
        "infer_error_invalid_argument": status("INVALID_ARGUMENT", bad_shape.strip()), "infer_error_not_found": status("NOT_FOUND", unknown),
        "error_unavailable": status("UNAVAILABLE", "explicit model load / unload is not allowed"), "error_internal": status("INTERNAL"),
        "error_unimplemented": status("UNIMPLEMENTED"), "error_unimplemented_service": status("UNIMPLEMENTED"),
        "health": near(["SERVING"] * 4), "health_unknown": status("NOT_FOUND"), "health_watch": near(["SERVING", "NOT_SERVING", "SERVING"]),
        "version_of_http": near(["h2" if config["scheme"] == "https" else "http/1.1"]), "infer_gzip": near(halves), "infer_deflate": near(halves),
        "infer_metadata": near(halves), "datatypes": near(types), "classification": near(best),
        "infer_error_resource_exhausted": status("RESOURCE_EXHAUSTED", "larger than max"),
        "reflection": near({"services": SERVICES, "methods": METHODS}),
    }


SERVING_CASES = ["predict_content", "predict_typed", "predict_words", "classify", "regress", "multi_inference", "model_metadata", "model_status",
                 "reload_config", "predict_gzip", "predict_metadata", "predict_large", "predict_streams", "deadline", "cancelled", "error_invalid_argument",
                 "error_not_found", "error_failed_precondition", "error_permission_denied", "error_unknown", "error_resource_exhausted"]

TRITON_CASES = ["live", "metadata", "infer_raw", "infer_words", "datatypes", "classification", "config", "statistics", "repository", "infer_gzip",
                "infer_deflate", "infer_metadata", "stream", "stream_gzip", "stream_metadata", "infer_large", "infer_streams", "deadline", "cancelled",
                "infer_error_invalid_argument", "infer_error_not_found", "infer_error_resource_exhausted", "error_unavailable", "error_unimplemented"]
KSERVE_CASES = ["live", "infer_raw", "infer_typed", "infer_words", "infer_metadata", "infer_large", "infer_streams", "deadline", "cancelled",
                "infer_error_invalid_argument", "infer_error_resource_exhausted", "infer_error_not_found", "infer_gzip"]
BROWSER_CASES = ["version_of_http", "predict_content", "classify", "model_status", "predict_metadata", "predict_large", "predict_streams", "metadata",
                 "infer_raw", "infer_words", "infer_large", "deadline", "cancelled", "health", "health_unknown", "error_invalid_argument",
                 "error_not_found", "error_failed_precondition", "error_resource_exhausted", "error_permission_denied",
                 "infer_error_invalid_argument", "infer_error_not_found", "error_unavailable", "error_unimplemented_service"]
OF_OTHERS = {"version_of_http", "datatypes", "classification", "infer_gzip", "infer_deflate", "infer_metadata", "infer_error_resource_exhausted"}


# ---- servers ----

class Server:
    def __init__(self, models, transport, *more):
        command = ["lua5.4", os.path.join(ROOT, "bin", "mlserve"), "serve", "--rest-port", "0", "--grpc-port", "0", "--cors", "--transport", transport, *more]
        for name, base in models.items():
            command += ["--model", f"{name}={base}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=support.environment(), cwd=ROOT)
        self.ports, seen = [], []
        watchdog = threading.Timer(60, self.process.kill)
        watchdog.start()
        for line in self.process.stdout:
            seen.append(line)
            if "listening on" in line:
                self.ports = re.findall(r"https?://([0-9.]+:[0-9]+)", line)
                break
        watchdog.cancel()
        self.log = seen
        if len(self.ports) != 2:
            raise RuntimeError(f"mlserve serve ({transport}) did not listen on two ports: {''.join(seen)}")
        self.reader = threading.Thread(target=lambda: seen.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(20)
        self.reader.join(10)
        return code


def seconds_for(address, iterations):
    body = json.dumps({"inputs": {"n": [iterations]}}).encode()
    begin = time.monotonic()
    with urllib.request.urlopen(f"http://{address}/v1/models/slow:predict", body, timeout=60) as response:
        json.load(response)
    return time.monotonic() - begin


# ---- clients ----

def run_client(name, command, expected, cases, environment=None, seconds=120):
    """Runs a client and checks what it reports: every case that it must run, right."""
    begin, found, what = time.monotonic(), {}, f"{name}: "
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=dict(os.environ, **(environment or {})), cwd=INTEROP, check=False)
        output, problem = result.stdout, f"ended with code {result.returncode}: {result.stderr[-2000:]}"
        fine = result.returncode == 0
    except subprocess.TimeoutExpired as stuck:
        output, problem, fine = (stuck.stdout or b"").decode(), f"does not end: {(stuck.stderr or b'').decode()[-2000:]}", False
    check(fine, what + problem)
    for line in output.splitlines():
        try:
            result = json.loads(line)
        except ValueError:
            check(False, f"{what}{line}")
            continue
        found[result.pop("case")] = result
    for case in cases:
        result = found.pop(case, None)
        if result is None:
            check(False, f"{what}{case} was not run")
        else:
            check(expected[case](result), f"{what}{case}: {json.dumps(result)[:600]}")
    check(not found, f"{what}not expected: {sorted(found)}")
    print(f"  {name}: {len(cases)} cases ({time.monotonic() - begin:.1f} s)", flush=True)


def tool(name, *arguments, given=None, seconds=30):
    """Runs grpcurl or grpc-health-probe: its exit code, output and errors."""
    result = subprocess.run([os.path.join(INTEROP, "go", "bin", name), *arguments], input=given, capture_output=True, text=True, timeout=seconds, check=False)
    return result.returncode, result.stdout, result.stderr


def documents(text):
    """The JSON documents that follow each other in a text."""
    found, decoder = [], json.JSONDecoder()
    while text.strip():
        document, end = decoder.raw_decode(text.lstrip())
        found.append(document)
        text = text.lstrip()[end:]
    return found


def check_grpcurl(transport, config, expected):
    """Everything by reflection alone."""
    begin, what, target = time.monotonic(), f"{transport}, grpcurl: ", config["target"]
    infer = "inference.GRPCInferenceService/"

    def call(method, message, *options, address=target):
        """What the client's programs report: a value or a status."""
        code, output, errors = tool("grpcurl", "-plaintext", "-max-time", "30", *options, "-d", "@", address, method,
                                    given=message if isinstance(message, str) else json.dumps(message))
        if code == 0:
            return {"value": documents(output)}
        status = re.search(r"Code: (\w+)\s+Message: (.*)", errors, re.DOTALL)
        return {"code": re.sub(r"(?<!^)(?=[A-Z])", "_", status[1]).upper(), "message": status[2]} if status else {"code": str(code), "message": errors}

    def case(name, result):
        check(expected[name](result), f"{what}{name}: {json.dumps(result)[:600]}")

    def one(result, pick):
        return {"value": pick(result["value"][0])} if result.get("value") else result

    def floats(text):
        return np.frombuffer(base64.b64decode(text), "<f4").astype(float).tolist()

    def request(model, values, shape):
        return {"model_name": model, "id": "r1", "inputs": [{"name": "x", "datatype": "FP32", "shape": shape}],
                "raw_input_contents": [base64.b64encode(np.array(values, "<f4").tobytes()).decode()]}

    flat = np.array(config["x"], np.float32).ravel()
    linear, bad = request("linear", flat, [3, 4]), request("linear", flat[:6], [3, 2])
    proto = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 3}]}, "float_val": config["halves"]}
    services = tool("grpcurl", "-plaintext", target, "list")[1].split()
    methods = [line.rsplit(".", 1)[1] for line in tool("grpcurl", "-plaintext", target, "list", "inference.GRPCInferenceService")[1].split()]
    case("reflection", {"value": {"services": sorted(services), "methods": sorted(methods)}})
    described = tool("grpcurl", "-plaintext", target, "describe", "tensorflow.serving.PredictRequest")[1]
    check("map<string, .tensorflow.TensorProto> inputs = 2;" in described, what + described)
    case("regress", one(call("tensorflow.serving.PredictionService/Predict", {"model_spec": {"name": "half_plus_two"}, "inputs": {"x": proto}}),
                        lambda answer: answer["outputs"]["y"].get("floatVal") or floats(answer["outputs"]["y"]["tensorContent"])))
    case("model_status", one(call("tensorflow.serving.ModelService/GetModelStatus", {"model_spec": {"name": "linear"}}),
                             lambda answer: [[int(each["version"]), each["state"], each["status"].get("errorMessage", "")] for each in answer["model_version_status"]]))
    case("infer_typed", one(call(infer + "ModelInfer", linear), lambda answer: floats(answer["rawOutputContents"][0])))
    case("infer_metadata", one(call(infer + "ModelInfer", request("half_plus_two", config["halves"], [3]), "-H", "x-note: plain", "-H",
                                    "x-note-bin: " + base64.b64encode(bytes(range(256))).decode()), lambda answer: floats(answer["rawOutputContents"][0])))
    large = call(infer + "ModelInfer", request("negate", numbers(LARGE), [1, LARGE]))
    case("infer_large", one(large, lambda answer: [[int(size) for size in answer["outputs"][0]["shape"]],
                                                   hashlib.sha256(base64.b64decode(answer["rawOutputContents"][0])).hexdigest()]))
    answers = call(infer + "ModelStreamInfer", "\n".join(json.dumps(each) for each in (linear, bad, linear)))
    case("stream", {"value": [each.get("errorMessage") or floats(each["inferResponse"]["rawOutputContents"][0]) for each in answers["value"]]}
         if "value" in answers else answers)
    case("stream_metadata", call(infer + "ModelStreamInfer", request("none", flat, [3, 4]), "-H", "triton_grpc_error: true"))
    case("infer_error_invalid_argument", call(infer + "ModelInfer", bad))
    case("infer_error_not_found", call(infer + "ModelInfer", request(config["unknown"], flat, [3, 4])))
    case("infer_error_resource_exhausted", call(infer + "ModelInfer", request("negate", np.zeros(TOO_LARGE), [1, TOO_LARGE])))
    case("error_unavailable", call(infer + "RepositoryIndex", {}))
    case("error_permission_denied", call("tensorflow.serving.ModelService/HandleReloadConfigRequest", {"config": {"model_config_list": {}}}))
    slow = {"model_name": "slow", "inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [config["iterations"]]}}]}
    late = call(infer + "ModelInfer", slow, "-max-time", str(config["deadline"]))
    check(late.get("code") == "DEADLINE_EXCEEDED", f"{what}deadline: {late}")
    states = [call("grpc.health.v1.Health/Check", {"service": name}) for name in ("", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "linear")]
    case("health", {"value": [one(each, lambda answer: answer["status"]).get("value") for each in states]})
    case("health_unknown", call("grpc.health.v1.Health/Check", {"service": "none"}))
    watched = call("grpc.health.v1.Health/Watch", {"service": "none"}, "-max-time", "0.5")
    check(watched.get("code") == "DEADLINE_EXCEEDED", f"{what}watch: {watched}")
    print(f"  {what}({time.monotonic() - begin:.1f} s)", flush=True)


def check_health_probe(transport, config):
    """Its exit code is the answer: 0 serving, 3 the call failed, 4 not serving."""
    what = f"{transport}, grpc-health-probe: "
    probes = [((), config["target"], 0), (("-service=linear",), config["target"], 0), (("-gzip",), config["target"], 0),
              (("-service=tensorflow.serving.PredictionService", "-rpc-header=x-note: plain"), config["target"], 0), (("-service=none",), config["target"], 3)]
    if transport == "http":  # nginx 1.22 speaks one version of HTTP on a port without TLS
        probes.append(((), config["rest"], 0))
    for options, address, expected in probes:
        code, _, errors = tool("grpc-health-probe", f"-addr={address}", *options)
        check(code == expected, f"{what}{' '.join(options)}: {code}, {errors}")
    for verb, expected in (("Unload", 4), ("Load", 0)):
        tool("grpcurl", "-plaintext", "-d", '{"model_name": "spare"}', config["admin"], f"inference.GRPCInferenceService/RepositoryModel{verb}")
        code, _, errors = tool("grpc-health-probe", f"-addr={config['admin']}", "-service=spare")
        check(code == expected, f"{what}after {verb}: {code}, {errors}")


def run_clients(transport, config_path, expected):
    program = os.path.join(CLIENTS, "python_client.py")
    everything = sorted(expected.keys() - OF_OTHERS)
    run_client(f"{transport}, Python", [PYTHON, program, config_path, "all"], expected, everything, {"PYTHONPATH": os.path.join(INTEROP, "python")})
    run_client(f"{transport}, Python, tensorflow-serving-api", [PYTHON, program, config_path, "tfserving"], expected, SERVING_CASES,
               {"PYTHONPATH": os.path.join(INTEROP, "python-tensorflow")})
    run_client(f"{transport}, Go", [os.path.join(INTEROP, "go", "bin", "client"), config_path], expected, everything)
    run_client(f"{transport}, Node", ["node", os.path.join(INTEROP, "node", "client.js"), config_path], expected, everything)
    run_client(f"{transport}, Triton's client", [PYTHON, os.path.join(CLIENTS, "triton_client.py"), config_path], expected, TRITON_CASES)
    run_client(f"{transport}, KServe's client", [PYTHON, os.path.join(CLIENTS, "kserve_client.py"), config_path], expected, KSERVE_CASES)


def run_browser(transport, config_path, expected):
    for kind, what, more in (("connect", "Connect", ["health_watch"]), ("text", "grpc-web", ["health_watch"]), ("binary", "grpc-web, binary", [])):
        command = ["node", os.path.join(INTEROP, "node", "browser.js"), config_path, kind, BROWSER]
        run_client(f"{transport}, Chromium with {what}", command, expected, BROWSER_CASES + more)


# ---- the document ----

def sections(text):
    """Of docs/grpc.md's part on clients: titles and their blocks, each a kind and a text."""
    part = re.search(r"^## Clients\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]
    for section in re.split(r"^### ", part, flags=re.MULTILINE)[1:]:
        yield section.split("\n", 1)[0], re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def programs(directory, python):
    """A folder with the programs that the document takes for granted."""
    folder = os.path.join(directory, "bin")
    os.makedirs(folder, exist_ok=True)
    environment = support.environment()
    lua = " ".join(f"{name}='{environment[name]}'" for name in ("LUA_PATH", "LUA_CPATH"))
    for name, command in (("mlserve", f"{lua} exec lua5.4 '{ROOT}/bin/mlserve'"), ("protoc", f"exec '{python}' -m grpc_tools.protoc"), ("python3", f"exec '{python}'")):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\n{command} "$@"\n')
        os.chmod(path, 0o755)
    go = os.path.join(INTEROP, "go", "bin")
    return dict(os.environ, PATH=f"{folder}:{go}:{os.environ['PATH']}", GOPATH=os.path.join(INTEROP, "gopath"), GOCACHE=os.path.join(INTEROP, "gocache"),
                GOFLAGS="-modcacherw -buildvcs=false -mod=readonly", GOTOOLCHAIN="local", PYTHONPATH="")


def check_document(directory, transport, config, python):
    """Writes the document's files, runs its commands, and compares what they print with what it says."""
    with open(os.path.join(ROOT, "docs", "grpc.md"), encoding="utf-8") as file:
        text = file.read().replace("127.0.0.1:8500", config["target"]).replace("127.0.0.1:8501", config["rest"])
    found, environment = 0, programs(directory, python)
    for title, blocks in sections(text):
        begin, folder, output = time.monotonic(), tempfile.mkdtemp(dir=directory), None
        what = f"{transport}, docs/grpc.md, {title}: "
        os.symlink(os.path.join(INTEROP, "node", "node_modules"), os.path.join(folder, "node_modules"))
        with open(os.path.join(CLIENTS, "go", "go.mod"), encoding="utf-8") as file, open(os.path.join(folder, "go.mod"), "w", encoding="utf-8") as copy:
            copy.write(file.read().replace("mlserve.interop", "example.com/client", 1))
        shutil.copy(os.path.join(CLIENTS, "go", "go.sum"), folder)
        for kind, block in blocks:
            if kind == "sh":
                result = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
                check(result.returncode == 0, f"{what}{block}: {result.stdout[-1000:]}{result.stderr[-2000:]}")
                output = result.stdout
                if os.path.exists(os.path.join(folder, "index.html")):
                    shown = subprocess.run(["node", os.path.join(INTEROP, "node", "open.js"), folder, BROWSER], capture_output=True, text=True, timeout=60, check=False)
                    output = shown.stdout
                    check(shown.returncode == 0 and shown.stderr == "", f"{what}{shown.stderr[-2000:]}")
            elif kind == "text":
                check(output == block, f"{what}it printed {output!r}, not {block!r}")
            else:
                name = re.match(r"(?:#|//|<!--) (\S+\.\w+)", block)[1]
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(block)
        found += sum(kind == "text" for kind, _ in blocks)
        print(f"  {what}({time.monotonic() - begin:.1f} s)", flush=True)
    check(found == 7, f"docs/grpc.md: {found} clients")


def configuration(directory, bases, server, admin, iterations):
    """What the programs are told."""
    return {
        "target": server.ports[1], "admin": admin.ports[1], "rest": server.ports[0], "admin_rest": admin.ports[0], "scheme": "http", "models": bases,
        "added": os.path.join(directory, "others", "added"), "missing": os.path.join(directory, "others", "missing"), "unknown": "m\u00f6del 100%",
        "features": FEATURES, "streams": STREAMS, "large": LARGE, "too_large": TOO_LARGE, "iterations": iterations, "deadline": 0.15,
        "x": [[5.125, 3.5, 1.375, 0.25], [6.25, 2.875, 4.5, 1.5], [7.125, 3.0, 5.875, 2.125]], "halves": [1.0, 2.0, 5.0],
        "words": ["", "plain", "\u00e9\u4e2d\U0001f600", 'quote " and\nline'],
        "types": {name: base64.b64encode(check_kserve.values_for(name, 4).tobytes()).decode() for name in DATATYPES},
    }


def check_transport(transport, directory, bases, sessions):
    server, admin = Server(bases, transport), None
    try:
        admin = Server(bases, transport, "--admin")
        elapsed = seconds_for(server.ports[0], 500)
        config = configuration(directory, bases, server, admin, max(500, int(0.6 / elapsed * 500)))
        path = os.path.join(directory, f"{transport}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        expected = expectations(config, sessions)
        run_clients(transport, path, expected)
        run_browser(transport, path, expected)
        check_grpcurl(transport, config, expected)
        check_health_probe(transport, config)
        check_document(directory, transport, config, PYTHON)
        return config["iterations"]
    finally:
        for each in (server, admin):
            if each:
                code = each.stop()
                check(code == 0, f"{transport}: mlserve serve ended with code {code}: {''.join(each.log)[-2000:]}")


def check_http2_page(transport, directory, bases, sessions, iterations):
    """With TLS a browser takes HTTP/2 by itself."""
    certificate, key = os.path.join(directory, "certificate.pem"), os.path.join(directory, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    server = admin = None
    try:
        server = Server(bases, transport, "--tls-cert", certificate, "--tls-key", key)
        admin = Server(bases, transport, "--admin", "--tls-cert", certificate, "--tls-key", key)
        config = dict(configuration(directory, bases, server, admin, iterations), scheme="https")
        path = os.path.join(directory, f"{transport}-tls.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        run_client(f"{transport}, Chromium with Connect over HTTP/2", ["node", os.path.join(INTEROP, "node", "browser.js"), path, "connect", BROWSER],
                   expectations(config, sessions), BROWSER_CASES + ["health_watch"])
    finally:
        for each in (server, admin):
            if each:
                code = each.stop()
                check(code == 0, f"{transport}: mlserve serve ended with code {code}: {''.join(each.log)[-2000:]}")


def main():
    with tempfile.TemporaryDirectory() as directory:
        base, others = os.path.join(directory, "models"), os.path.join(directory, "others")
        sessions = make_models(base, others)
        bases = {name: os.path.join(base, name) for name in sorted(os.listdir(base))}
        for transport in TRANSPORTS:
            iterations = check_transport(transport, directory, bases, sessions)
            check_http2_page(transport, directory, bases, sessions, iterations)
    finish()


if __name__ == "__main__":
    main()
