"""`mlserve serve` as TensorFlow Serving's clients see it: the requests that the documentation of its REST API shows, with Python's own HTTP client, plain
and gzip; numbers compared with ONNX Runtime's. Then schemathesis on the OpenAPI document: whatever it makes up, answers are as documented."""
import base64
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import support
from support import check, same


def save(base, name, version, nodes, inputs, outputs, initializers=(), metadata=None):
    """A model in TensorFlow Serving's layout; its ONNX Runtime session."""
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    folder = os.path.join(base, name, str(version))
    os.makedirs(folder)
    onnx.save(model, os.path.join(folder, "model.onnx"))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def value(name, dtype, *shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name, *values):
    return helper.make_tensor(name, TensorProto.FLOAT, [] if len(values) == 1 else [len(values)], values)


def make_models(base):
    sessions = {}
    for name, offset in (("half_plus_two", 2.0), ("half_plus_three", 3.0)):
        # the model of TensorFlow Serving's tutorials: y = x / 2 + 2 (3)
        metadata = {"mlserve.signatures": json.dumps({
            "serving_default": {"inputs": {"x": "x"}, "outputs": {"y": "y"}},
            "tensorflow/serving/regress": {"inputs": {"x": "x"}, "outputs": {"outputs": "y"}, "method_name": "tensorflow/serving/regress"}})}
        sessions[name] = save(base, name, 123, [helper.make_node("Mul", ["x", "half"], ["h"]), helper.make_node("Add", ["h", "offset"], ["y"])],
                              [value("x", TensorProto.FLOAT, "n")], [value("y", TensorProto.FLOAT, "n")],
                              [constant("half", 0.5), constant("offset", offset)], metadata)
    # three inputs of different types and ranks, as in the documentation's examples of rows and columns
    sessions["sensors"] = save(
        base, "sensors", 1,
        [helper.make_node("Identity", ["tag"], ["name"]), helper.make_node("ReduceSum", ["signal", "one"], ["total"], keepdims=0),
         helper.make_node("Tanh", ["sensor"], ["squashed"])],
        [value("tag", TensorProto.STRING, "n"), value("signal", TensorProto.INT64, "n", 5), value("sensor", TensorProto.FLOAT, "n", 2, 2)],
        [value("name", TensorProto.STRING, "n"), value("total", TensorProto.INT64, "n"), value("squashed", TensorProto.FLOAT, "n", 2, 2)],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])])
    # bytes in, bytes and text out
    sessions["images"] = save(base, "images", 1, [helper.make_node("Identity", ["image"], ["image_bytes"]), helper.make_node("Identity", ["caption"], ["title"])],
                              [value("image", TensorProto.STRING, "n"), value("caption", TensorProto.STRING, "n")],
                              [value("image_bytes", TensorProto.STRING, "n"), value("title", TensorProto.STRING, "n")])
    # four columns, three classes
    rng = np.random.default_rng(3)
    weights, bias = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    sessions["iris"] = save(
        base, "iris", 1, [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["scores"], axis=1)],
        [value("x", TensorProto.FLOAT, "n", 4)], [value("scores", TensorProto.FLOAT, "n", 3)],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(bias, "b")],
        {"mlserve.features": json.dumps(["sepal_length", "sepal_width", "petal_length", "petal_width"]),
         "mlserve.classes": json.dumps(["setosa", "versicolor", "virginica"])})
    for dtype, name in ((TensorProto.FLOAT, "float"), (TensorProto.DOUBLE, "double"), (TensorProto.INT32, "int32"), (TensorProto.UINT8, "uint8"),
                        (TensorProto.INT16, "int16"), (TensorProto.INT8, "int8"), (TensorProto.INT64, "int64"), (TensorProto.BOOL, "bool"),
                        (TensorProto.UINT32, "uint32"), (TensorProto.UINT64, "uint64"), (TensorProto.FLOAT16, "half")):
        sessions["echo_" + name] = save(base, "echo_" + name, 1, [helper.make_node("Identity", ["x"], ["y"])], [value("x", dtype, "n", "m")],
                                        [value("y", dtype, "n", "m")])
    return sessions


class Server:
    def __init__(self, base, names):
        command = ["lua5.4", os.path.join(support.ROOT, "bin", "mlserve"), "serve", "--rest-port", "0"]
        for name in names:
            command += ["--model", f"{name}={os.path.join(base, name)}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=support.environment(), cwd=support.ROOT)
        self.url = None
        for line in self.process.stdout:
            found = re.search(r"listening on (http://[0-9.]+:[0-9]+)", line)
            if found:
                self.url = found[1]
                break
        if not self.url:
            raise RuntimeError("mlserve serve did not listen")

    def stop(self):
        self.process.terminate()
        self.process.stdout.read()
        return self.process.wait(10)

    def call(self, path, body=None, **headers):
        """Status, headers and the JSON document of the answer; body: text or bytes of a POST."""
        data = body.encode() if isinstance(body, str) else body
        request = urllib.request.Request(self.url + path, data=data, headers={name.replace("_", "-"): each for name, each in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, fields, text = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            status, fields, text = error.code, error.headers, error.read()
        if fields.get("Content-Encoding") == "gzip":
            text = gzip.decompress(text)
        elif fields.get("Content-Encoding") == "deflate":
            text = zlib.decompress(text)
        return status, fields, json.loads(text)


def equal(got, expected, tolerance=1e-6):
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(equal(a, b, tolerance) for a, b in zip(got, expected))
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(equal(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, float):
        return isinstance(got, float) and same(got, expected, tolerance)
    return type(got) is type(expected) and got == expected


def expect(server, path, body, expected, **headers):
    status, _, document = server.call(path, body, **headers)
    check(status == 200 and equal(document, expected), f"{path} {str(body)[:80]}: {status} {str(document)[:200]}, expected {str(expected)[:200]}")


def refuse(server, path, body, status, message, **headers):
    got, fields, document = server.call(path, body, **headers)
    check(got == status and document.get("error") == message and fields["Content-Type"] == "application/json", f"{path}: {got} {document}")


def documentation(server, sessions):
    halves = sessions["half_plus_three"].run(None, {"x": np.array([1, 2, 5], np.float32)})[0].tolist()
    expect(server, "/v1/models/half_plus_three", None, {"model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]})
    expect(server, "/v1/models/half_plus_three:predict", '{"instances": [1.0,2.0,5.0]}', {"predictions": halves})
    check(halves == [3.5, 4.0, 5.5], "the documentation's numbers")
    expect(server, "/v1/models/half_plus_three/versions/123:predict", '{"instances": [1.0, 2.0, 5.0]}', {"predictions": halves})
    expect(server, "/v1/models/half_plus_three:regress", '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}',
           {"results": halves[:2]})
    expect(server, "/v1/models/half_plus_two:predict", '{"instances": [1.0, 2.0, 5.0]}', {"predictions": [2.5, 3.0, 4.5]})
    refuse(server, "/v1/models/half:predict", '{"instances": [1.0]}', 404, "Servable not found for request: Latest(half)")
    status, _, document = server.call("/v1/models/half_plus_three/metadata")
    signatures = document["metadata"]["signature_def"]["signature_def"]
    check(status == 200 and document["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "123"}, "model_spec of the metadata")
    check(signatures["tensorflow/serving/regress"]["method_name"] == "tensorflow/serving/regress" and
          signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT" and
          signatures["serving_default"]["inputs"]["x"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}], "signatures of the metadata")

    rows = [{"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]}, {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    name, total, squashed = sessions["sensors"].run(None, {"tag": np.array(columns["tag"], dtype=object), "signal": np.array(columns["signal"], np.int64),
                                                           "sensor": np.array(columns["sensor"], np.float32)})
    answers = {"name": name.tolist(), "total": total.tolist(), "squashed": squashed.tolist()}
    expect(server, "/v1/models/sensors:predict", json.dumps({"inputs": columns}), {"outputs": answers})
    expect(server, "/v1/models/sensors:predict", json.dumps({"signature_name": "serving_default", "instances": rows}),
           {"predictions": [{key: answers[key][i] for key in answers} for i in range(2)]})
    pictures = [b"image bytes", b"awesome image bytes", bytes(range(256))]
    encoded = [{"b64": base64.b64encode(each).decode()} for each in pictures]
    captions = ["seaside", "mountains", "Straße"]
    expect(server, "/v1/models/images:predict", json.dumps({"instances": [{"image": a, "caption": b} for a, b in zip(encoded, captions)]}),
           {"predictions": [{"image_bytes": a, "title": b} for a, b in zip(encoded, captions)]})

    data = np.random.default_rng(4).normal(size=(5, 4)).astype(np.float32)
    scores = sessions["iris"].run(None, {"x": data})[0]
    expected = {"results": [[[label, float(score)] for label, score in zip(["setosa", "versicolor", "virginica"], row)] for row in scores]}
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    # JSON's text of a float is that of the double nearest to it, which reads back to the same float
    expect(server, "/v1/models/iris:classify", json.dumps({"examples": [{"x": [float(each) for each in row]} for row in data]}), expected)
    expect(server, "/v1/models/iris:classify", json.dumps({"examples": [dict(zip(names, map(float, row))) for row in data]}), expected)
    expect(server, "/v1/models/iris:classify", json.dumps({"context": {"petal_width": 0.5}, "examples": [
        dict(zip(names[:3], map(float, row))) for row in data[:, :3]]}), {"results": [
            [[label, float(score)] for label, score in zip(["setosa", "versicolor", "virginica"], row)]
            for row in sessions["iris"].run(None, {"x": np.concatenate([data[:, :3], np.full((5, 1), 0.5, np.float32)], axis=1)})[0]]})


def dtypes(server, sessions):
    extremes = {
        "float": [[1.5, -0.1, 3.4028234663852886e38, 1e-45, float("nan"), float("inf"), float("-inf")]], "double": [[0.1, 1.7976931348623157e308, 5e-324, -2.0]],
        "int32": [[-2 ** 31, 2 ** 31 - 1]], "uint8": [[0, 255]], "int16": [[-2 ** 15, 2 ** 15 - 1]], "int8": [[-128, 127]],
        "int64": [[-2 ** 63, 2 ** 63 - 1]], "bool": [[True, False]], "uint32": [[0, 2 ** 32 - 1]], "uint64": [[0, 2 ** 64 - 1]],
    }
    for name, rows in extremes.items():
        dtype = {"float": np.float32, "double": np.float64}.get(name) or np.dtype(name)
        expected = sessions["echo_" + name].run(None, {"x": np.array(rows, dtype)})[0]
        status, _, document = server.call(f"/v1/models/echo_{name}:predict", json.dumps({"instances": rows}))
        got = np.array(document.get("predictions"), dtype) if status == 200 else None
        check(got is not None and got.tobytes() == expected.tobytes(), f"{name}: {status} {document}")
    refuse(server, "/v1/models/echo_int32:predict", '{"instances": [[1.0]]}', 400,
           "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1.0 Type: Number is not of expected type: int32")
    refuse(server, "/v1/models/echo_half:predict", '{"inputs": [[1.0]]}', 501, "Conversion of JSON Value: 1.0 to type: half")


def compression(server, sessions):
    data = np.random.default_rng(5).normal(size=3000).astype(np.float32)
    expected = {"predictions": sessions["half_plus_two"].run(None, {"x": data})[0].tolist()}
    body = json.dumps({"instances": [float(each) for each in data]}).encode()
    path = "/v1/models/half_plus_two:predict"
    for coding, encode in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        status, fields, document = server.call(path, encode(body), Content_Encoding=coding, Accept_Encoding=coding)
        check(status == 200 and fields["Content-Encoding"] == coding and equal(document, expected, 1e-5), f"{coding} both ways: {status}")
    status, fields, document = server.call(path, body, Accept_Encoding="identity")
    check(status == 200 and fields["Content-Encoding"] is None and equal(document, expected, 1e-5), "plain both ways")
    status, fields, _ = server.call(path, '{"instances": [1.0]}', Accept_Encoding="gzip")
    check(status == 200 and fields["Content-Encoding"] is None, "a tiny answer is not compressed")
    status, _, document = server.call(path, body[:100], Content_Encoding="gzip")
    check(status == 400 and "gzip" in document["error"], f"no gzip: {status} {document}")
    status, _, document = server.call(path, gzip.compress(b" " * (64 << 20)), Content_Encoding="gzip")
    check(status == 413 and "error" in document, f"a bomb: {status} {document}")
    expect(server, path, '{"instances": [1.0, 2.0, 5.0]}', {"predictions": [2.5, 3.0, 4.5]})


def openapi(server, base):
    """Requests that schemathesis makes up for every operation; a model that is there, so that they reach it."""
    tool = os.path.join(os.path.dirname(sys.executable), "schemathesis")
    begin = time.monotonic()
    settings = os.path.join(base, "schemathesis.toml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write('[parameters]\n"path.model" = "half_plus_two"\n"path.version" = "123"\n')
    command = [tool, "--config-file", settings, "run", server.url + "/openapi.json", "--phases", "fuzzing", "--max-examples",
               "15" if support.FULL else "5", "--no-shrink", "--request-timeout", "10", "--generation-deterministic", "--mode", "positive", "--warnings", "off",
               "--no-color", "--suppress-health-check", "all", "--checks",
               "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
               "--exclude-path-regex", "^/v2/repository"]  # administration is off
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=base)
    check(result.returncode == 0, "schemathesis: " + result.stdout[-3000:] + result.stderr[-500:])
    generated = re.search(r"(\d+) generated", result.stdout)
    check(generated is not None and int(generated[1]) > 60, "schemathesis tried enough")
    print(f"schemathesis: {generated[1] if generated else '?'} requests in {time.monotonic() - begin:.0f} s")


def main():
    with tempfile.TemporaryDirectory() as base:
        sessions = make_models(base)
        server = Server(base, sessions)
        try:
            documentation(server, sessions)
            dtypes(server, sessions)
            compression(server, sessions)
            openapi(server, base)
            expect(server, "/v1/models/half_plus_two:predict", '{"instances": [1.0]}', {"predictions": [2.5]})
        finally:
            code = server.stop()
        check(code == 0, f"mlserve serve ended with {code}")
    support.finish()


if __name__ == "__main__":
    main()
