"""The part of check_grpc_clients.py's table that KServe's gRPC client can run. Argument: the configuration (a JSON file). Prints one JSON object per case."""
import asyncio
import hashlib
import json
import logging
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

with open(sys.argv[1], encoding="utf-8") as file:
    CONFIG = json.load(file)
TIMEOUT = 30
X = np.array(CONFIG["x"], np.float32)
HALVES = np.array(CONFIG["halves"], np.float32)
logging.disable(logging.CRITICAL)  # it logs what it raises


async def run(name, call):
    try:
        print(json.dumps({"case": name, "value": await call}), flush=True)
    except grpc.RpcError as error:
        print(json.dumps({"case": name, "code": error.code().name, "message": error.details()}), flush=True)


def request(model, x, name="x", datatype="FP32", raw=True):
    tensor = InferInput(name, list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=raw)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="r1")


async def output(client, *given, timeout=TIMEOUT, headers=None, **options):
    response = await client.infer(request(*given, **options), timeout=timeout, headers=headers)
    return response.outputs[0].as_numpy()


async def values(*given, **options):
    return (await output(*given, **options)).ravel().tolist()


async def infer_raw(client):
    response = await client.infer(request("linear", X))
    first = response.outputs[0]
    return {"scores": first.as_numpy().ravel().tolist(), "shape": list(first.shape), "datatype": first.datatype, "output": first.name, "id": response.id,
            "model": response.model_name, "version": response.model_version}


async def infer_words(client):
    words = np.array([word.encode() for word in CONFIG["words"]], np.object_)
    return [word.decode() if isinstance(word, bytes) else word for word in await values(client, "words", words, "w", "BYTES")]


async def large(client):
    numbers = ((np.arange(CONFIG["large"], dtype=np.int64) * 7919 % 10007) - 5000).astype(np.float32).reshape(1, -1)
    got = await output(client, "negate", numbers)
    return [list(got.shape), hashlib.sha256(got.tobytes()).hexdigest()]


async def streams(client):
    return await asyncio.gather(*(values(client, "half_plus_two", np.array([i], np.float32)) for i in range(CONFIG["streams"])))


def slow(client, timeout):
    return values(client, "slow", np.array([CONFIG["iterations"]], np.int64), "n", "INT64", timeout=timeout)


async def deadline(client):
    try:
        await slow(client, CONFIG["deadline"])
    except grpc.RpcError as error:
        return {"code": error.code().name, "after": await values(client, "half_plus_two", HALVES)}
    return "no deadline"


async def cancelled(client):
    task = asyncio.ensure_future(slow(client, TIMEOUT))
    await asyncio.sleep(0.05)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return {"code": "CANCELLED", "after": await values(client, "half_plus_two", HALVES)}
    return "not cancelled"


async def live(client):
    return [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("linear"), await client.is_model_ready("none")]


async def main():
    async with InferenceGRPCClient(CONFIG["target"]) as client:
        await run("live", live(client))
        await run("infer_raw", infer_raw(client))
        await run("infer_typed", values(client, "linear", X, raw=False))
        await run("infer_words", infer_words(client))
        await run("infer_metadata", values(client, "half_plus_two", HALVES, headers=(("x-note", "plain"), ("x-note-bin", bytes(range(256))))))
        await run("infer_large", large(client))
        await run("infer_streams", streams(client))
        await run("deadline", deadline(client))
        await run("cancelled", cancelled(client))
        await run("infer_error_invalid_argument", values(client, "linear", X[:, :2]))
        await run("infer_error_not_found", values(client, CONFIG["unknown"], X))
        await run("infer_error_resource_exhausted", values(client, "negate", np.zeros((1, CONFIG["too_large"]), np.float32)))
    async with InferenceGRPCClient(CONFIG["target"], channel_args=[("grpc.default_compression_algorithm", grpc.Compression.Gzip.value)]) as client:
        await run("infer_gzip", values(client, "half_plus_two", HALVES))


asyncio.run(main())
