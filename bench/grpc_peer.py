"""PredictionService/Predict with grpcio and ONNX Runtime: grpc_peer.py DESCRIPTORS MODEL. Prints "port N". DESCRIPTORS: a FileDescriptorSet."""
import sys
from concurrent import futures

import grpc
import numpy as np
import onnxruntime
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

pool = descriptor_pool.DescriptorPool()
with open(sys.argv[1], "rb") as file:
    for each in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
        pool.Add(each)
Request, Response = (message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving." + name))
                     for name in ("PredictRequest", "PredictResponse"))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[2], options)


def predict(request, context):
    given = request.inputs["x"]
    shape = [dim.size for dim in given.tensor_shape.dim]
    y, = session.run(None, {"x": np.frombuffer(given.tensor_content, np.float32).reshape(shape)})
    response = Response()
    response.model_spec.CopyFrom(request.model_spec)
    answer = response.outputs["y"]
    answer.dtype = given.dtype
    for size in y.shape:
        answer.tensor_shape.dim.add().size = size
    answer.float_val.extend(y.ravel())
    return response


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(predict, Request.FromString, Response.SerializeToString)


server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
