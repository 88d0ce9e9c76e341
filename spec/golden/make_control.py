"""Writes spec/golden/control: models with subgraphs, functions, sparse initialisers, sequences, optionals and maps, in the layout of ONNX's own test
data. Expected values come from ONNX Runtime, those with functions, which it
does not take all of, from NumPy. Run: python3 spec/golden/make_control.py (needs onnx, onnxruntime, numpy)."""
import os
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "control")
ELEMENT = {"f": T.FLOAT, "i": T.INT64, "b": T.BOOL, "s": T.STRING}


def value(name, kind, shape=None):
    return h.make_tensor_value_info(name, ELEMENT[kind], shape)


def constant(name, array):
    return numpy_helper.from_array(np.array(array), name)


def fill_map(entry, item):
    keys = list(item)
    entry.key_type = T.STRING if isinstance(keys[0], str) else T.INT64
    for key in keys:
        entry.string_keys.append(key.encode()) if entry.key_type == T.STRING else entry.keys.append(key)
    entry.values.elem_type = onnx.SequenceProto.TENSOR
    for key in keys:
        scalar = np.array(item[key], object if isinstance(item[key], str) else np.float32)
        entry.values.tensor_values.append(numpy_helper.from_array(scalar))
    return entry


def proto(name, result):
    """A value of ONNX Runtime as TensorProto, MapProto, or a sequence of tensors or maps as SequenceProto."""
    if isinstance(result, dict):
        return fill_map(onnx.MapProto(name=name), result)
    if not isinstance(result, list):
        return numpy_helper.from_array(np.asarray(result), name)
    if result and isinstance(result[0], dict):
        sequence = onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.MAP)
        for item in result:
            fill_map(sequence.map_values.add(), item)
        return sequence
    return numpy_helper.from_list(result, name)


def save(name, nodes, inputs, outputs, data, initializers=(), functions=(), sparse=(), opset=17, domains=(), expected=None):
    graph = h.make_graph(nodes, name, inputs, outputs, list(initializers), sparse_initializer=list(sparse))
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid(d, v) for d, v in domains]
    model = h.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)
    onnx.checker.check_model(model)
    names = [i.name for i in inputs]
    if expected is None:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = session.run(None, dict(zip(names, data)))
    base = os.path.join(ROOT, name)
    os.makedirs(os.path.join(base, "test_data_set_0"))
    onnx.save(model, os.path.join(base, "model.onnx"))
    for kind, values, labels in (("input", data, names), ("output", expected, [o.name for o in outputs])):
        for i, (label, item) in enumerate(zip(labels, values)):
            with open(os.path.join(base, "test_data_set_0", f"{kind}_{i}.pb"), "wb") as f:
                f.write(proto(label, item).SerializeToString())


def branch(name, nodes, output, shape=None, initializers=(), kind="f"):
    return h.make_graph(nodes, name, [], [value(output, kind, shape)], list(initializers))


def if_models():
    x = np.array([[1, 2, 3], [-4, 5, 6]], np.float32)
    inner_else = branch("inner_else", [h.make_node("Neg", ["x"], ["n"])], "n", [2, 3])
    inner_then = branch("inner_then", [h.make_node("Sub", ["x", "S"], ["q"])], "q", [2, 3])
    outer_else = branch("outer_else", [h.make_node("If", ["c2"], ["e"], then_branch=inner_then, else_branch=inner_else)], "e", [2, 3])
    outer_then = branch("outer_then", [h.make_node("Add", ["x", "S"], ["t"])], "t", [2, 3])
    sparse = h.make_sparse_tensor(constant("S", np.array([1.5, -2], np.float32)), constant("S_indices", np.array([1, 5])), [2, 3])
    inputs = [value("c", "b", []), value("c2", "b", []), value("x", "f", [2, 3])]
    for c, c2 in ((1, 1), (0, 1), (0, 0)):
        save(f"if_nested_{c}{c2}", [h.make_node("If", ["c"], ["r"], then_branch=outer_then, else_branch=outer_else), h.make_node("Exp", ["r"], ["y"])],
             inputs, [value("y", "f", [2, 3])], [np.array(bool(c)), np.array(bool(c2)), x], sparse=[sparse])
    # branches of different shapes, which later nodes must follow
    short = branch("short", [h.make_node("ReduceSum", ["x", "axis"], ["a"], keepdims=1)], "a")
    whole = branch("whole", [h.make_node("Mul", ["x", "x"], ["b"])], "b")
    for c in (1, 0):
        save(f"if_shapes_{c}", [h.make_node("If", ["c"], ["r"], then_branch=short, else_branch=whole), h.make_node("Transpose", ["r"], ["y"], perm=[1, 0])],
             [value("c", "b", []), value("x", "f", ["n", 3])], [value("y", "f", ["p", "q"])], [np.array(bool(c)), x], [constant("axis", np.array([1]))])


def function_models():
    ops = [h.make_opsetid("", 17)]
    twice = h.make_function("own", "AddMul", ["a", "b"], ["c", "d"], [h.make_node("Add", ["a", "b"], ["t"]), h.make_node("Mul", ["t", "b"], ["c"]),
                                                                  h.make_node("Identity", ["a"], ["d"])], ops)
    leaky = h.make_function("own", "Leaky", ["x"], ["y"], [h.make_node("LeakyRelu", ["x"], ["y"])], ops, ["slope"])
    reference = leaky.node[0].attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    nested = h.make_function("own", "Both", ["a", "b"], ["y"], [h.make_node("AddMul", ["a", "b"], ["c", "d"], domain="own"), h.make_node("AddMul", ["c", "d"], ["y"], domain="own")],
                             ops + [h.make_opsetid("own", 1)])
    x, b = np.array([[-1, 2], [3, -4]], np.float32), np.array([0.5, 2], np.float32)
    first = (x + b) * b
    second = (first + x) * x
    y = np.where(second < 0, second * np.float32(0.25), second)
    save("function_nested", [h.make_node("Both", ["x", "b"], ["p"], domain="own"), h.make_node("Leaky", ["p"], ["y"], domain="own", slope=0.25),
                             h.make_node("AddMul", ["y", "b"], ["z"], domain="own")],
         [value("x", "f", [2, 2]), value("b", "f", [2])], [value("y", "f", [2, 2]), value("z", "f", [2, 2])], [x, b], functions=[twice, leaky, nested],
         domains=[("own", 1)], expected=[y, (y + b) * b])
    # a subgraph inside a function, reading the function's input and a value of its own
    clip = h.make_function("own", "Choose", ["c", "x"], ["y"], [
        h.make_node("Neg", ["x"], ["n"]),
        h.make_node("If", ["c"], ["y"], then_branch=branch("t", [h.make_node("Add", ["x", "x"], ["o"])], "o"), else_branch=branch("e", [h.make_node("Add", ["n", "n"], ["o2"])], "o2"))], ops)
    save("function_subgraph", [h.make_node("Choose", ["c", "x"], ["m"], domain="own"), h.make_node("Choose", ["c", "m"], ["y"], domain="own")],
         [value("c", "b", []), value("x", "f", [2, 2])], [value("y", "f", [2, 2])], [np.array(False), x], functions=[clip], domains=[("own", 1)],
         expected=[4 * x])


def loop_models():
    body = h.make_graph([
        h.make_node("Add", ["a", "b"], ["next"]), h.make_node("Identity", ["b"], ["a_out"]), h.make_node("Identity", ["next"], ["b_out"]),
        h.make_node("Less", ["next", "limit"], ["go"]), h.make_node("Mul", ["next", "scale"], ["seen"])],
        "body", [value("i", "i", []), value("on", "b", []), value("a", "f", [1]), value("b", "f", [1])],
        [value("go", "b", [1]), value("a_out", "f", [1]), value("b_out", "f", [1]), value("seen", "f", [2])])
    for most, name in ((100, "loop_until"), (4, "loop_bounded"), (0, "loop_never")):
        save(name, [h.make_node("Loop", ["M", "", "a0", "b0"], ["a", "b", "all"], body=body)],
             [value("M", "i", []), value("a0", "f", [1]), value("b0", "f", [1]), value("limit", "f", [1])],
             [value("a", "f", [1]), value("b", "f", [1]), value("all", "f", [None, 2])],
             [np.array(most), np.array([0], np.float32), np.array([1], np.float32), np.array([50], np.float32)], [constant("scale", np.array([1, -2], np.float32))])
    grow = h.make_graph([
        h.make_node("Identity", ["on"], ["go"]), h.make_node("Cast", ["i"], ["n"], to=T.FLOAT), h.make_node("Unsqueeze", ["n", "zero"], ["n1"]),
        h.make_node("Concat", ["v", "n1"], ["longer"], axis=0), h.make_node("SequenceInsert", ["s", "longer"], ["s2"])], "grow",
        [value("i", "i", []), value("on", "b", []), value("v", "f", None), h.make_tensor_sequence_value_info("s", T.FLOAT, None)],
        [value("go", "b", []), value("longer", "f", None), h.make_tensor_sequence_value_info("s2", T.FLOAT, None)])
    save("loop_growing", [h.make_node("SequenceEmpty", [], ["s0"]), h.make_node("Loop", ["M", "", "v0", "s0"], ["v", "s"], body=grow),
                          h.make_node("ConcatFromSequence", ["s"], ["joined"], axis=0), h.make_node("SequenceLength", ["s"], ["count"])],
         [value("M", "i", []), value("v0", "f", ["n"])], [value("v", "f", ["a"]), value("joined", "f", ["b"]), value("count", "i", [])],
         [np.array(4), np.array([7], np.float32)], [constant("zero", np.array([0]))])


def scan_models():
    body = h.make_graph([h.make_node("Add", ["state", "part"], ["state_out"]), h.make_node("Mul", ["state_out", "w"], ["element"])], "body",
                        [value("state", "f", [2]), value("part", "f", [2])], [value("state_out", "f", [2]), value("element", "f", [2])])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for direction in (0, 1):
        save(f"scan_axes_{direction}", [h.make_node("Scan", ["s0", "x"], ["s", "all"], body=body, num_scan_inputs=1, scan_input_axes=[1],
                                                    scan_input_directions=[direction], scan_output_axes=[-1], scan_output_directions=[1 - direction])],
             [value("s0", "f", [2]), value("x", "f", [2, 3])], [value("s", "f", [2]), value("all", "f", [2, 3])],
             [np.array([10, 20], np.float32), x], [constant("w", np.array([1, 0.5], np.float32))])
    batched = h.make_graph([h.make_node("Add", ["state", "part"], ["state_out"]), h.make_node("Identity", ["state_out"], ["element"])], "body",
                           [value("state", "f", [2]), value("part", "f", [2])], [value("state_out", "f", [2]), value("element", "f", [2])])
    x8 = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    save("scan_8", [h.make_node("Scan", ["", "s0", "x"], ["s", "all"], body=batched, num_scan_inputs=1, directions=[1])],
         [value("s0", "f", [2, 2]), value("x", "f", [2, 3, 2])], [value("s", "f", [2, 2]), value("all", "f", [2, 3, 2])],
         [np.ones((2, 2), np.float32), x8], opset=8)


def sequence_models():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    words = np.array(["b", "", "longer words", "a"], dtype=object)
    save("sequence_edit", [
        h.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=1), h.make_node("SequenceErase", ["parts", "first"], ["fewer"]),
        h.make_node("SequenceAt", ["fewer", "last"], ["tail"]), h.make_node("SequenceInsert", ["fewer", "tail", "first"], ["more"]),
        h.make_node("ConcatFromSequence", ["more"], ["y"], axis=-1), h.make_node("SequenceLength", ["more"], ["n"])],
        [value("x", "f", [3, 4])], [value("y", "f", ["a", "b"]), value("n", "i", [])], [x],
        [constant("sizes", np.array([1, 2, 1])), constant("first", np.array(0)), constant("last", np.array(-1))])
    save("sequence_strings", [
        h.make_node("SplitToSequence", ["w"], ["parts"], axis=0, keepdims=0), h.make_node("SequenceAt", ["parts", "two"], ["third"]),
        h.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0, new_axis=1)],
        [value("w", "s", [4])], [value("y", "s", ["a", "b"]), value("third", "s", [])], [words], [constant("two", np.array(2))])
    save("sequence_construct", [h.make_node("SequenceConstruct", ["x", "x", "x"], ["s"]), h.make_node("ConcatFromSequence", ["s"], ["y"], axis=1)],
         [value("x", "f", [3, 4])], [value("y", "f", [3, 12])], [x])
    save("sequence_out", [h.make_node("SplitToSequence", ["x", "two"], ["parts"], axis=0)], [value("x", "f", [3, 4])],
         [h.make_tensor_sequence_value_info("parts", T.FLOAT, None)], [x], [constant("two", np.array(2))])


def map_models():
    scores = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    for key, attribute, labels in (("int64", "classlabels_int64s", [7, -3]), ("string", "classlabels_strings", ["no", "yes"])):
        map_type = h.make_map_type_proto(T.STRING if key == "string" else T.INT64, h.make_tensor_type_proto(T.FLOAT, []))
        out = h.make_value_info("y", h.make_sequence_type_proto(map_type))
        save(f"zipmap_{key}", [h.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", **{attribute: labels})], [value("x", "f", [None, 2])], [out], [scores],
             domains=[("ai.onnx.ml", 1)])
    def map_input(key, element):
        return h.make_value_info("x", h.make_map_type_proto(key, h.make_tensor_type_proto(element, [])))
    ml = [("ai.onnx.ml", 1)]
    save("dictvectorizer", [h.make_node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "c", "b", "d"])],
         [map_input(T.STRING, T.FLOAT)], [value("y", "f", [1, 4])], [{"b": 2.5, "a": -1.0, "unknown": 7.0}], domains=ml)
    # by the definition: ONNX Runtime's Python interface takes no map of strings
    save("castmap_float", [h.make_node("CastMap", ["x"], ["y"], domain="ai.onnx.ml")], [map_input(T.INT64, T.STRING)], [value("y", "f", [1, None])],
         [{3: "1.5", 1: "-2", 10: "0.25"}], domains=ml, expected=[np.array([[-2, 1.5, 0.25]], np.float32)])
    save("castmap_sparse", [h.make_node("CastMap", ["x"], ["y"], domain="ai.onnx.ml", cast_to="TO_INT64", map_form="SPARSE", max_map=5)],
         [map_input(T.INT64, T.FLOAT)], [value("y", "i", [1, 5])], [{3: 1.5, 0: -2.0}], domains=ml)


def optional_models():
    x = np.array([1, 2], np.float32)
    save("optional_present", [h.make_node("Optional", ["x"], ["o"]), h.make_node("OptionalHasElement", ["o"], ["has"]), h.make_node("OptionalGetElement", ["o"], ["y"])],
         [value("x", "f", [2])], [value("has", "b", []), value("y", "f", [2])], [x])
    empty = h.make_node("Optional", [], ["o"])
    empty.attribute.append(h.make_attribute("type", h.make_tensor_type_proto(T.FLOAT, [2])))
    save("optional_empty", [empty, h.make_node("OptionalHasElement", ["o"], ["has"]), h.make_node("Not", ["has"], ["y"])], [value("x", "f", [2])],
         [value("y", "b", [])], [x])
    body = h.make_graph([h.make_node("Mul", ["e", "k"], ["twice"]), h.make_node("Shape", ["e"], ["size"])], "body", [value("e", "f", None), value("k", "f", [1])],
                        [value("twice", "f", None), value("size", "i", [1])])
    save("sequence_map", [h.make_node("SplitToSequence", ["x"], ["s"], axis=0), h.make_node("SequenceMap", ["s", "k"], ["t", "n"], body=body),
                          h.make_node("ConcatFromSequence", ["t"], ["y"], axis=0), h.make_node("ConcatFromSequence", ["n"], ["m"], axis=0)],
         [value("x", "f", [2]), value("k", "f", [1])], [value("y", "f", ["a"]), value("m", "i", ["b"])], [x, np.array([2], np.float32)])


if __name__ == "__main__":
    shutil.rmtree(ROOT, ignore_errors=True)
    for make in (if_models, function_models, loop_models, scan_models, sequence_models, map_models, optional_models):
        make()
