"""Asks a running server with KServe's own inference client and prints what it gets as JSON: health, and the scores of the rows on standard input in
every form that the client can send and take. Run by check_kserve.py with the Python that has the client. Argument: the server's address."""
import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(address):
    rows = np.array(json.load(sys.stdin), dtype=np.float32)
    client = InferenceRESTClient(config=RESTConfig(protocol="v2"))
    answers = {}
    for binary_in in (False, True):
        for binary_out in (False, True):
            given = InferInput("x", list(rows.shape), "FP32")
            given.set_data_from_numpy(rows, binary_data=binary_in)
            wanted = [RequestedOutput("scores", parameters={"binary_data": binary_out})]
            request = InferRequest(model_name="linear", infer_inputs=[given], request_outputs=wanted, request_id="k1")
            response = await client.infer(address, request, model_name="linear")
            answers[f"{binary_in} {binary_out}"] = response.outputs[0].as_numpy().tolist() if response.id == "k1" else "no id"
    ready = [await client.is_server_live(address), await client.is_server_ready(address), await client.is_model_ready(address, "linear")]
    print(json.dumps({"ready": ready, "scores": answers}))


asyncio.run(main(sys.argv[1]))
