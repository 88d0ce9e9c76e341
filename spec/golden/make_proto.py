"""Writes proto/cases.lua and proto/descriptors.pb: what Google's protobuf makes of messages and of .proto files.

Needs protoc and Python's protobuf (Debian: protobuf-compiler, python3-protobuf).
"""
import math, os, random, subprocess, sys, tempfile

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"  # fields in the order of their numbers
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "proto"))
OURS = "../../../lua/mlserve/proto"

files = sorted(os.path.relpath(os.path.join(d, f), OURS) for d, _, fs in os.walk(OURS) for f in fs if f.endswith(".proto"))
subprocess.check_call(["protoc", "-I", ".", "-I", OURS, "--include_imports", "--descriptor_set_out=descriptors.pb", "kinds.proto"] + files)
generated = tempfile.mkdtemp()
subprocess.check_call(["protoc", "-I", ".", "-I", OURS, "--python_out=" + generated, "kinds.proto"])
sys.path.insert(0, generated)
import kinds_pb2 as k  # noqa: E402

rng = random.Random(7)
out = []


def quoted(data):
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else "\\%03d" % b for b in data) + '"'


def literal(value, field=None):
    if isinstance(value, bool):
        return "true" if value else "false"
    if field is not None and field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return quoted(known.name.encode()) if known else str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 2 ** 31 else '"%d"' % value
    if isinstance(value, float):
        if math.isnan(value):
            return "0/0"
        if math.isinf(value):
            return "1/0" if value > 0 else "-1/0"
        return "-0.0" if value == 0 and math.copysign(1, value) < 0 else "%.17g" % value
    if isinstance(value, str):
        return quoted(value.encode())
    if isinstance(value, bytes):
        return quoted(value)
    return table(value)


def table(message):
    items = []
    for field, value in message.ListFields():
        name = field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            items.append("%s = { %s }" % (name, ", ".join("[%s] = %s" % (literal(key), literal(value[key], inner)) for key in sorted(value))))
        elif isinstance(value, (str, bytes, int, float)) or hasattr(value, "ListFields"):
            items.append("%s = %s" % (name, literal(value, field)))
        else:
            items.append("%s = { %s }" % (name, ", ".join(literal(each, field) for each in value)))
    return "{ " + ", ".join(items) + " }"


def hexed(data):
    return '"' + data.hex() + '"'


def case(message):
    data = message.SerializeToString(deterministic=True)
    out.append("  { %s, %s, %s }," % (quoted(message.DESCRIPTOR.full_name.encode()), hexed(data), table(message)))


def decoding(kind, data):
    """Bytes that no encoder makes: only what they are read as."""
    message = kind()
    message.ParseFromString(data)
    out.append("  { %s, %s, %s, true }," % (quoted(message.DESCRIPTOR.full_name.encode()), hexed(data), table(message)))


EDGES = {
    "an_int32": [1, -1, 127, 128, 2147483647, -2147483648], "an_int64": [1, -1, 2 ** 31, 2 ** 53, 2 ** 53 + 1, -2 ** 53 - 1, 2 ** 63 - 1, -2 ** 63, 2 ** 32, -2 ** 32],
    "a_uint32": [1, 4294967295], "a_uint64": [1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 + 1, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1, 10 ** 19],
    "a_sint32": [1, -1, 2147483647, -2147483648], "a_sint64": [1, -1, 2 ** 63 - 1, -2 ** 63, 2 ** 40, -2 ** 40],
    "a_fixed32": [1, 4294967295], "a_fixed64": [1, 2 ** 64 - 1, 2 ** 53 + 1], "a_sfixed32": [1, -1, -2147483648], "a_sfixed64": [-1, 2 ** 63 - 1, -2 ** 63],
    "a_double": [1.0, -0.0, 0.1, -1e308, 5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, float("inf"), float("-inf"), float("nan"), 1.7976931348623157e308],
    "a_float": [1.0, -0.0, 0.1, 3.4028234663852886e38, 1.401298464324817e-45, 1.1754943508222875e-38, 1.1754942106924411e-38, float("inf"), float("nan"), -2.5],
    "a_bool": [True], "a_string": ["x", "\u00e9\u20ac\U0001f600", "a\0b", "y" * 200], "some_bytes": [b"\x00\xff", b"z" * 300], "colour": [1, -3, 99, -99],
}
case(k.Scalars())
for name, values in EDGES.items():
    for value in values:
        case(k.Scalars(**{name: value}))

LIST_OF = {"doubles": "a_double", "floats": "a_float", "int32s": "an_int32", "int64s": "an_int64", "uint32s": "a_uint32", "uint64s": "a_uint64", "sint32s": "a_sint32",
           "sint64s": "a_sint64", "fixed32s": "a_fixed32", "fixed64s": "a_fixed64", "sfixed32s": "a_sfixed32", "sfixed64s": "a_sfixed64",
           "strings": "a_string", "several_bytes": "some_bytes", "colours": "colour", "loose": "an_int32", "loose_floats": "a_float"}
for name, kind in LIST_OF.items():
    case(k.Lists(**{name: EDGES[kind]}))
case(k.Lists(bools=[True, False, True], strings=["", "a", ""], int32s=[0, 0], trees=[k.Tree(), k.Tree(name="t")]))

deep = k.Tree(name="root")
for i in range(30):
    deep = k.Tree(name="n%d" % i, children=[deep, k.Tree(leaf=k.Tree.Leaf(shape=5, colour=1))])
case(deep)
case(k.Tree(leaf=k.Tree.Leaf()))
case(k.Maps(by_string={"": 0, "a": 1, "\u00e9": -1}, by_int32={0: "", -5: "x", 7: "y"}, by_int64={-1: k.Tree(), 3: k.Tree(name="q")}, by_bool={False: 0, True: 1},
            by_uint64={0: b"", 9: b"\xff"}, by_sint32={-2: 0.5, 2: 0.0}, by_fixed32={1: True, 2: False}, by_sfixed64={-3: 1.5}))
for choice in ({"text": ""}, {"text": "a"}, {"number": 0}, {"number": -1}, {"tree": k.Tree()}, {"flag": False}, {"colour": 0}, {"maybe": 0}, {"maybe": 5},
               {"maybe_text": ""}, {"maybe_tree": k.Tree()}):
    case(k.Choices(**choice))
packed = k.Choices()
packed.any.Pack(k.Tree(name="inside"))
case(packed)

for _ in range(40):  # all at once, at random
    message = k.Scalars()
    for name, values in EDGES.items():
        if rng.random() < 0.6:
            setattr(message, name, rng.choice(values))
    case(message)

decoding(k.Lists, bytes.fromhex("1801 1802 1a020304 18ffffffffffffffffff01"))  # packed and unpacked mixed
decoding(k.Lists, bytes.fromhex("8a0103010203"))                              # packed where it is declared unpacked
decoding(k.Lists, bytes.fromhex("0a080000000000000040 09000000000000f03f 1500002040"))
decoding(k.Scalars, bytes.fromhex("1801 1802 6800 6802 188180808000"))         # the last counts; numbers longer than they need to be
decoding(k.Scalars, bytes.fromhex("18ffffffffffffffff7f 28ffffffffffffffffff01 800180808080f0ffffffff01"))  # more bits than there is room for
decoding(k.Tree, bytes.fromhex("1a020805 1a021001 0a0161 0a0162"))             # parts of a message put together
decoding(k.Choices, bytes.fromhex("0a0161 1005"))                             # the last of a oneof counts
decoding(k.Choices, bytes.fromhex("1a030a0161 1a0512030a0162"))
decoding(k.Choices, bytes.fromhex("1a030a0161 0a00 1a021a00"))
decoding(k.Maps, bytes.fromhex("0a00 0a020a00 0a021005 0a050a01611001 0a050a01611002 0a0710020a016210031201"[:-4]))  # half entries, keys again
decoding(k.Tree, bytes.fromhex("a0060a a1060102030405060708 a50601020304 a2060161 a306 0801 a406 0a0178 a306ab0608 01ac06a406"))  # unknown, groups too
decoding(k.Tree, bytes.fromhex("0801 0a0161 0d01020304"))                     # known numbers in other wire types

with open("cases.lua", "w") as file:
    file.write("-- Written by make_proto.py: full name of the type, its bytes in hexadecimal, the value; true: bytes that only decoding meets.\nreturn {\n")
    file.write("\n".join(out) + "\n}\n")
