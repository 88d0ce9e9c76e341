"""OpenVINO's client of model servers, ovmsclient, over REST and gRPC: status, metadata, predictions of several types equal to ONNX Runtime's, versions, and the
errors it makes of ours. Runs with the packages of interop-kserve-requirements.txt; expected values come from a process with ONNX Runtime."""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from ovmsclient import make_grpc_client, make_http_client

from support import check, environment, finish

EXPECT = """
import json, sys
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save
path, version = sys.argv[1], int(sys.argv[2])
weights = np.random.default_rng(version).standard_normal((3, 2)).astype(np.float32)
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["n", "n"], ["twice"])], "g",
                          [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]), helper.make_tensor_value_info("n", TensorProto.INT64, ["N", 1])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2]), helper.make_tensor_value_info("twice", TensorProto.INT64, ["N", 1])],
                          [numpy_helper.from_array(weights, "w")])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
session = onnxruntime.InferenceSession(path)
x, n = np.arange(12, dtype=np.float32).reshape(4, 3) / 7, np.arange(4).reshape(4, 1)
print(json.dumps([part.tolist() for part in session.run(None, {"x": x, "n": n})]))
"""


def main():
    directory = tempfile.mkdtemp()
    expected = {}
    for version in (1, 2):
        os.makedirs(f"{directory}/m/{version}")
        run = subprocess.run([os.environ["INTEROP_PYTHON"], "-c", EXPECT, f"{directory}/m/{version}/model.onnx", str(version)], check=True,
                             stdout=subprocess.PIPE, text=True)
        expected[version] = json.loads(run.stdout)
    with open(directory + "/config", "w", encoding="utf-8") as file:
        file.write(f'model_config_list {{ config {{ name: "m" base_path: "{directory}/m" model_platform: "onnx" model_version_policy {{ all {{}} }} }} }}')
    server = subprocess.Popen(["lua5.4", "bin/mlserve", "serve", "--model_config_file", directory + "/config", "--rest-port", "0", "--grpc-port", "0"],
                              stdout=subprocess.PIPE, text=True, env=environment())
    try:
        addresses = server.stdout.readline().split()[2:]
        rest, grpc = (address.strip(",").replace("http://", "") for address in addresses[:2])
        inputs = {"x": np.arange(12, dtype=np.float32).reshape(4, 3) / 7, "n": np.arange(4).reshape(4, 1)}
        for name, client in (("grpc", make_grpc_client(grpc)), ("http", make_http_client(rest))):
            status = client.get_model_status("m")
            check({number: each["state"] for number, each in status.items()} == {1: "AVAILABLE", 2: "AVAILABLE"}, f"{name}: status {status}")
            check(list(client.get_model_status("m", 1)) == [1], f"{name}: status of a version")
            check("serving_default" in str(client.get_model_metadata("m")) or "x" in client.get_model_metadata("m")["inputs"], f"{name}: metadata")
            for version in (0, 1, 2):
                answer = client.predict(inputs, "m", version)
                y, twice = expected[version or 2]
                check(np.allclose(answer["y"], y, rtol=1e-5), f"{name}: y of version {version}")
                check(np.array_equal(answer["twice"], twice), f"{name}: twice of version {version}")
            for given, model, version, error in ((inputs, "none", 0, "ModelNotFoundError"), (inputs, "m", 9, "ModelNotFoundError"),
                                                 ({"x": inputs["x"]}, "m", 0, "InvalidInputError")):
                try:
                    client.predict(given, model, version)
                    check(False, f"{name}: {model} {version} is not refused")
                except Exception as problem:  # noqa: BLE001 - what comes is what is looked at
                    check(type(problem).__name__ == error, f"{name}: {model} {version}: {type(problem).__name__} {problem}")
    finally:
        server.terminate()
        check(server.wait(20) == 0, "the server ended well")
    finish()


if __name__ == "__main__":
    sys.exit(main())
