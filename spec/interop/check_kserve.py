"""Against clients of KServe's v2 protocol: tritonclient and KServe's inference client (JSON and binary tensors) ask a running `mlserve serve`, and what
they get is compared with ONNX Runtime on the same files, with NumPy where ONNX Runtime's Python has no such type, and with the example of the
protocol's document."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import tritonclient.http as client
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from support import HERE, ROOT, check, environment, finish

DATATYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_), "UINT8": (TensorProto.UINT8, np.uint8), "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32), "UINT64": (TensorProto.UINT64, np.uint64), "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16), "INT32": (TensorProto.INT32, np.int32), "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16), "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16), "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64), "BYTES": (TensorProto.STRING, np.object_),
}
rng = np.random.default_rng(5)


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(base, name, nodes, inputs, outputs, initializers=()):
    model = helper.make_model(helper.make_graph(nodes, name, inputs, outputs, list(initializers)), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    directory = os.path.join(base, name, "1")
    os.makedirs(directory)
    onnx.save(model, os.path.join(directory, "model.onnx"))


def write_models(base):
    for datatype, (kind, _) in DATATYPES.items():
        nodes, outputs = [helper.make_node("Identity", ["x"], ["same"])], [tensor("same", kind, ["batch", 3])]
        if datatype != "BYTES":
            nodes.append(helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE))
            outputs.append(tensor("wide", TensorProto.DOUBLE, ["batch", 3]))
        save(base, datatype.lower(), nodes, [tensor("x", kind, ["batch", 3])], outputs)
    scores = helper.make_tensor("w", TensorProto.FLOAT, [4, 5], rng.normal(size=20).astype(np.float32).tolist())
    save(base, "linear", [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["scores"])],
         [tensor("x", TensorProto.FLOAT, ["batch", 4])], [tensor("scores", TensorProto.FLOAT, ["batch", 5])], [scores])
    # shapes and types of the document's example: UINT32 [2,2] and BOOL [3] in, FP32 [3,2] out
    save(base, "mymodel", [helper.make_node("Cast", ["input0"], ["a"], to=TensorProto.FLOAT), helper.make_node("Cast", ["input1"], ["b"], to=TensorProto.FLOAT),
                           helper.make_node("ReduceSum", ["a", "axes"], ["row"], keepdims=1), helper.make_node("Unsqueeze", ["b", "axes1"], ["column"]),
                           helper.make_node("Mul", ["column", "row"], ["output0"])],
         [tensor("input0", TensorProto.UINT32, [2, 2]), tensor("input1", TensorProto.BOOL, [3])], [tensor("output0", TensorProto.FLOAT, [3, 2])],
         [helper.make_tensor("axes", TensorProto.INT64, [1], [0]), helper.make_tensor("axes1", TensorProto.INT64, [1], [1])])
    os.makedirs(os.path.join(base, "penguins", "1"))
    shutil.copy(os.path.join(ROOT, "spec", "golden", "pipeline", "model.onnx"), os.path.join(base, "penguins", "1"))


def start(base):
    arguments = [f"--model={name}={os.path.join(base, name)}" for name in sorted(os.listdir(base))]
    log = open(os.path.join(base, "..", "log"), "w+", encoding="utf-8")
    process = subprocess.Popen(["lua5.4", os.path.join(ROOT, "bin", "mlserve"), "serve", *arguments, "--rest-port=0"], stdout=log, stderr=log,
                               env=environment(), cwd=ROOT)
    for _ in range(300):
        with open(log.name, encoding="utf-8") as file:
            text = file.read()
        found = re.search(r"listening on http://(127\.0\.0\.1:\d+)", text)
        if found:
            return process, found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"mlserve serve does not listen:\n{text}")


def values_for(datatype, rows):
    kind = DATATYPES[datatype][1]
    if datatype == "BYTES":
        words = [b"", b"plain", "\u00e9\u4e2d\U0001f600".encode(), b'quote " \\ and\nline', b"x" * 3000]
        return np.array([words[i] for i in rng.integers(0, len(words), rows * 3)], dtype=np.object_).reshape(rows, 3)
    if datatype == "BOOL":
        return rng.integers(0, 2, (rows, 3)).astype(kind)
    if np.issubdtype(kind, np.integer):
        info = np.iinfo(kind)
        x = rng.integers(info.min, info.max, (rows, 3), dtype=kind, endpoint=True)
        x[0, 0], x[0, 1] = info.min, info.max
        return x
    return (rng.normal(size=(rows, 3)) * 100).astype(kind)


def as_bytes(array):
    return [v if isinstance(v, bytes) else v.encode() for v in array.ravel()]


def same(datatype, got, expected):
    if got is None or got.shape != expected.shape:
        return False
    if datatype == "BYTES":
        return as_bytes(got) == as_bytes(expected)
    return got.dtype == expected.dtype and np.array_equal(got, expected)


def check_datatypes(server, base):
    for datatype in DATATYPES:
        model = datatype.lower()
        session = None if datatype == "BF16" else onnxruntime.InferenceSession(os.path.join(base, model, "1", "model.onnx"), providers=["CPUExecutionProvider"])
        for rows in (1, 4):
            x = values_for(datatype, rows)
            if session is None:
                expected = {"same": x, "wide": x.astype(np.float64)}
            else:
                fed = np.vectorize(lambda v: v.decode(), otypes=[np.object_])(x) if datatype == "BYTES" else x
                expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": fed})))
            for binary_in in (True, False):
                if not binary_in and datatype in ("FP16", "BF16"):
                    continue  # the client refuses to write them as JSON
                for binary_out in (True, False):
                    given = client.InferInput("x", [rows, 3], datatype)
                    given.set_data_from_numpy(x, binary_data=binary_in)
                    wanted = [client.InferRequestedOutput(name, binary_data=binary_out) for name in expected]
                    what = f"{datatype}, {rows} rows, {'binary' if binary_in else 'JSON'} to {'binary' if binary_out else 'JSON'}"
                    try:
                        answer = server.infer(model, [given], outputs=wanted, request_id="r1")
                    except InferenceServerException as problem:
                        check(False, f"{what}: {problem}")
                        continue
                    check(answer.get_response()["id"] == "r1" and answer.get_response()["model_version"] == "1", f"{what}: id and version")
                    for name, value in expected.items():
                        if datatype == "BF16" and name == "same" and not binary_out:
                            got = np.array(answer.get_output(name)["data"]).astype(ml_dtypes.bfloat16).reshape(answer.get_output(name)["shape"])
                        else:
                            got = answer.as_numpy(name)
                        check(same(datatype if name == "same" else "FP64", got, value), f"{what}: output {name}")


def check_default_and_compressed(server, base):
    session = onnxruntime.InferenceSession(os.path.join(base, "linear", "1", "model.onnx"), providers=["CPUExecutionProvider"])
    x = rng.normal(size=(600, 4)).astype(np.float32)
    expected = session.run(None, {"x": x})[0]
    for coding in (None, "gzip", "deflate"):
        given = client.InferInput("x", [600, 4], "FP32")
        given.set_data_from_numpy(x)
        answer = server.infer("linear", [given], request_compression_algorithm=coding, response_compression_algorithm=coding, model_version="1")
        got = answer.as_numpy("scores")
        check(got is not None and np.allclose(got, expected, atol=1e-6), f"all outputs, compression {coding}")
    # classification: the largest three of each row, as NumPy orders ONNX Runtime's scores
    wanted = [client.InferRequestedOutput("scores", class_count=3)]
    got = server.infer("linear", [given], outputs=wanted).as_numpy("scores")
    check(got.shape == (600, 3), f"classification gives {got.shape}")
    for row in range(600):
        pairs = [text.decode().split(":") for text in got[row]]
        order = np.argsort(-expected[row], kind="stable")[:3]
        close = all(abs(float(value) - expected[row][int(index)]) <= 2e-6 for value, index in pairs)
        if not check(close and sorted(int(index) for _, index in pairs) == sorted(order.tolist()), f"classification of row {row}: {got[row]}"):
            break


def check_document(server):
    """The example request of the binary tensor data extension, byte by byte."""
    given = [client.InferInput("input0", [2, 2], "UINT32"), client.InferInput("input1", [3], "BOOL")]
    given[0].set_data_from_numpy(np.array([[1, 2], [3, 4]], np.uint32))
    given[1].set_data_from_numpy(np.array([True, False, True]), binary_data=False)
    answer = server.infer("mymodel", given, outputs=[client.InferRequestedOutput("output0", binary_data=True)])
    check(answer.get_output("output0") == {"name": "output0", "datatype": "FP32", "shape": [3, 2], "parameters": {"binary_data_size": 24}},
          f"the document's output: {answer.get_output('output0')}")
    check(np.array_equal(answer.as_numpy("output0"), [[4, 6], [0, 0], [4, 6]]), "the document's output in bytes")


def check_pipeline(server):
    session = onnxruntime.InferenceSession(os.path.join(ROOT, "spec", "golden", "pipeline", "model.onnx"), providers=["CPUExecutionProvider"])
    island, mass = np.array([["Biscoe"], ["Dream"], ["Torgersen"]], dtype=np.object_), np.array([[4725], [3675], [3750]], np.float32)
    labels, maps = session.run(None, {"island": island, "mass": mass})
    for binary in (True, False):
        given = [client.InferInput("island", [3, 1], "BYTES"), client.InferInput("mass", [3, 1], "FP32")]
        given[0].set_data_from_numpy(island, binary_data=binary)
        given[1].set_data_from_numpy(mass, binary_data=binary)
        wanted = [client.InferRequestedOutput(name, binary_data=binary) for name in ("output_label", "output_probability")]
        answer = server.infer("penguins", given, outputs=wanted)
        check(as_bytes(answer.as_numpy("output_label")) == as_bytes(labels), f"labels, binary {binary}")
        for row, text in enumerate(as_bytes(answer.as_numpy("output_probability"))):
            got = json.loads(text)
            check(got.keys() == maps[row].keys() and all(abs(got[key] - value) <= 1e-5 for key, value in maps[row].items()), f"probabilities of row {row}: {got}")


def check_kserve_client(address, base):
    """KServe's client has dependencies of its own, so it lives in another environment."""
    session = onnxruntime.InferenceSession(os.path.join(base, "linear", "1", "model.onnx"), providers=["CPUExecutionProvider"])
    x = rng.normal(size=(5, 4)).astype(np.float32)
    expected = session.run(None, {"x": x})[0]
    python = os.environ.get("INTEROP_KSERVE_PYTHON", os.path.join(ROOT, ".interop", "kserve", "bin", "python"))
    result = subprocess.run([python, os.path.join(HERE, "kserve_client.py"), f"http://{address}"], input=json.dumps(x.tolist()), capture_output=True,
                            text=True, check=False)
    if not check(result.returncode == 0, f"KServe's client: {result.stderr}"):
        return
    answer = json.loads(result.stdout)
    check(answer["ready"] == [True, True, True], f"KServe's client: {answer['ready']}")
    check(len(answer["scores"]) == 4, "KServe's client: four forms")
    for form, scores in answer["scores"].items():
        check(np.allclose(scores, expected, atol=1e-6), f"KServe's client, binary in and out {form}: {scores}")


def refused(call, status, message):
    try:
        call()
    except InferenceServerException as problem:
        check(problem.status() == status and message in problem.message(), f"refusal: {problem}")
    else:
        check(False, f"not refused: {message}")


def check_rest(server):
    check(server.is_server_live() and server.is_server_ready() and server.is_model_ready("linear") and server.is_model_ready("linear", "1"), "health")
    check(not server.is_model_ready("none") and not server.is_model_ready("linear", "9"), "health of what is not there")
    metadata = server.get_server_metadata()
    check(metadata["name"] == "mlserve" and "binary_tensor_data" in metadata["extensions"], f"metadata: {metadata}")
    for name in (None, "1"):
        metadata = server.get_model_metadata("linear", name or "")
        check(metadata["versions"] == ["1"] and metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
              and metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 5]}], f"metadata: {metadata}")
    config = server.get_model_config("linear")
    check(config["max_batch_size"] > 0 and config["input"][0]["dims"] == [4] and config["input"][0]["data_type"] == "TYPE_FP32", f"configuration: {config}")
    check(server.get_model_config("mymodel")["max_batch_size"] == 0, "a model without batches")
    before = server.get_inference_statistics("fp32")["model_stats"][0]
    given = client.InferInput("x", [2, 3], "FP32")
    given.set_data_from_numpy(np.zeros((2, 3), np.float32))
    server.infer("fp32", [given])
    after = server.get_inference_statistics("fp32")["model_stats"][0]
    check(after["inference_count"] == before["inference_count"] + 2 and after["execution_count"] == before["execution_count"] + 1, f"statistics: {after}")
    check(len(server.get_inference_statistics()["model_stats"]) == len(DATATYPES) + 3, "statistics of all")
    refused(lambda: server.infer("none", [given]), "404", "Request for unknown model: 'none' is not found")
    refused(lambda: server.infer("fp32", [given], model_version="7"), "404", "version 7 is not found")
    refused(lambda: server.infer("linear", [given]), "400", "unexpected shape for input 'x' for model 'linear'. Expected [-1,4], got [2,3]. ")
    refused(lambda: server.infer("int32", [given]), "400", "inference input 'x' data-type is 'FP32', but model 'int32' expects 'INT32'")
    refused(lambda: server.infer("fp32", [given], outputs=[client.InferRequestedOutput("z")]), "400", "unexpected inference output 'z' for model 'fp32'")
    refused(lambda: server.get_model_metadata("none"), "404", "Request for unknown model: 'none' is not found")
    refused(server.get_model_repository_index, "503", "explicit model load / unload is not allowed")


def main():
    with tempfile.TemporaryDirectory() as directory:
        base = os.path.join(directory, "models")
        os.makedirs(base)
        write_models(base)
        process, address = start(base)
        try:
            with client.InferenceServerClient(address) as server:
                check_rest(server)
                check_datatypes(server, base)
                check_default_and_compressed(server, base)
                check_document(server)
                check_pipeline(server)
            check_kserve_client(address, base)
        finally:
            process.terminate()
            check(process.wait(20) == 0, "mlserve serve ends well")
    finish()


if __name__ == "__main__":
    main()
