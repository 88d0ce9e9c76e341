"""Against Pillow: ImageDecoder on every format, kind of pixel and odd sizes gives what Pillow's convert("RGB") and convert("L") give; and on the
data that ONNX's own cases keep for machines without Pillow. Lossless formats must be equal; JPEG and lossy WebP may differ by a level
where Pillow brings another version of the library."""
import io
import os
import struct
import tempfile

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import _image_decoder_data
from PIL import Image

from support import ask, check, finish

SIZES = [(1, 1), (7, 5), (16, 16), (33, 18), (61, 40)]  # width, height
LOSSY = 1
rng = np.random.default_rng(20)
scratch = tempfile.TemporaryDirectory()
cases, names = [], []


def case(name, encoded, expected, pixel_format, atol):
    """One case in the layout of ONNX's backend tests."""
    directory = os.path.join(scratch.name, str(len(cases)))
    os.makedirs(os.path.join(directory, "test_data_set_0"))
    node = helper.make_node("ImageDecoder", ["data"], ["image"], pixel_format=pixel_format)
    graph = helper.make_graph([node], "image", [helper.make_tensor_value_info("data", TensorProto.UINT8, [None])],
                              [helper.make_tensor_value_info("image", TensorProto.UINT8, [None, None, None])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    arrays = {"input_0": np.frombuffer(encoded, np.uint8), "output_0": np.ascontiguousarray(expected)}
    with open(os.path.join(directory, "model.onnx"), "wb") as file:
        file.write(model.SerializeToString())
    for stem, array in arrays.items():
        with open(os.path.join(directory, "test_data_set_0", stem + ".pb"), "wb") as file:
            file.write(numpy_helper.from_array(array).SerializeToString())
    cases.append(dict(path=directory, atol=atol))
    names.append(f"{name} {pixel_format}")


def compare(name, encoded, atol=0):
    """Pillow's reading of the bytes in every pixel format."""
    image = Image.open(io.BytesIO(encoded))
    rgb = np.array(image.convert("RGB"))
    case(name, encoded, rgb, "RGB", atol)
    case(name, encoded, rgb[:, :, ::-1], "BGR", atol)
    case(name, encoded, np.array(Image.open(io.BytesIO(encoded)).convert("L"))[:, :, np.newaxis], "Grayscale", atol)


def picture(mode, size):
    """Smooth colours with noise on them, so that both sides of every codec work."""
    y, x = np.mgrid[0:size[1], 0:size[0]]
    planes = [(x * (3 + c) + y * (7 - c) * 2 + rng.integers(0, 40, x.shape)) % 256 for c in range(4)]
    image = Image.fromarray(np.stack(planes[:4], axis=2).astype(np.uint8), "RGBA")
    if mode == "LA":
        return Image.merge("LA", image.split()[:2])
    if mode == "CMYK":
        return Image.merge("CMYK", image.split())
    if mode == "P":
        return image.convert("RGB").quantize(17)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def saved(image, format, **options):
    with io.BytesIO() as file:
        image.save(file, format, **options)
        return file.getvalue()


FORMATS = [
    # format, modes, options, tolerance
    ("BMP", ["1", "L", "P", "RGB", "RGBA"], {}, 0),
    ("PNG", ["1", "L", "LA", "P", "RGB", "RGBA"], {}, 0),
    ("PPM", ["1", "L", "RGB"], {}, 0),
    ("TIFF", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"], {}, 0),
    ("TIFF", ["1", "L", "P", "RGB", "RGBA", "CMYK"], dict(compression="tiff_lzw"), 0),
    ("TIFF", ["L", "RGB"], dict(compression="tiff_adobe_deflate"), 0),
    ("TIFF", ["RGB"], dict(compression="packbits"), 0),
    ("TIFF", ["1"], dict(compression="group4"), 0),
    ("TIFF", ["L", "RGB"], dict(compression="jpeg"), LOSSY),
    ("JPEG2000", ["L", "LA", "RGB", "RGBA"], {}, 0),
    ("JPEG2000", ["RGB"], dict(no_jp2=True), 0),
    ("JPEG", ["L", "RGB", "CMYK"], dict(quality=90), LOSSY),
    ("JPEG", ["RGB"], dict(quality=60, progressive=True), LOSSY),
    ("JPEG", ["RGB"], dict(subsampling=0), LOSSY),
    ("JPEG", ["RGB"], dict(subsampling=1), LOSSY),
    ("WEBP", ["RGB", "RGBA"], {}, LOSSY),
    ("WEBP", ["RGB", "RGBA"], dict(lossless=True, exact=True), 0),
]
for format, modes, options, atol in FORMATS:
    for mode in modes:
        for size in SIZES:
            name = f"{format} {mode} {size[0]}x{size[1]} {options or ''}"
            compare(name, saved(picture(mode, size), format, **options), atol)

# Orientation: of a TIFF it turns the picture, of a JPEG it does not.
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    compare(f"JPEG turned {orientation}", saved(picture("RGB", (12, 8)), "JPEG", exif=exif), LOSSY)
    compare(f"TIFF turned {orientation}", saved(picture("RGB", (12, 8)), "TIFF", tiffinfo={274: orientation}))

# What Pillow reads but does not write, made from bytes. Scaled samples may differ by one where halves are rounded.
w, h = 9, 6
noise = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
text = " ".join(str(v) for v in noise.ravel())
compare("PNM P3", f"P3\n# a comment\n{w} {h}\n255\n{text}\n".encode())
compare("PNM P2", f"P2 {w} {h} 255\n{' '.join(str(v) for v in noise[:, :, 0].ravel())}".encode())
compare("PNM P1", f"P1\n{w} {h}\n{''.join(str(v & 1) for v in noise[:, :, 0].ravel())}".encode())
compare("PNM P6 maximum 100", b"P6 %d %d 100\n" % (w, h) + (noise % 101).tobytes(), 1)
compare("PNM P6 maximum 1000", b"P6 %d %d 1000\n" % (w, h) + (noise.astype(np.uint16) * 3).astype(">u2").tobytes(), 1)


def bmp(bits, compression, data, palette=b"", masks=b"", colours=0, height=h):
    offset = 54 + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + struct.pack(
        "<IiiHHIIiiII", 40, w, height, 1, bits, compression, len(data), 2835, 2835, colours, 0) + masks + palette + data


def rows(array, bytes_each):
    return b"".join(row.tobytes().ljust((w * bytes_each + 3) // 4 * 4, b"\0") for row in array)


palette = rng.integers(0, 256, 64, dtype=np.uint8).tobytes()
five = rng.integers(0, 65536, (h, w), dtype=np.uint16)
compare("BMP top down", bmp(24, 0, rows(noise, 3), height=-h))
compare("BMP 5-5-5", bmp(16, 0, rows(five, 2)))
compare("BMP 5-6-5", bmp(16, 3, rows(five, 2), masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)))
wide = rng.integers(0, 2**32, (h, w), dtype=np.uint32)
compare("BMP 32 bits by masks", bmp(32, 3, rows(wide, 4), masks=struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00)))
compare("BMP 4 bits", bmp(4, 0, rng.integers(0, 256, (h, 8), dtype=np.uint8).tobytes(), palette, colours=16))
runs8 = [4, 1, 0, 5, 2, 3, 4, 5, 6, 0, 0, 0, 9, 7, 0, 0, 0, 2, 2, 1, 7, 11, 0, 0, 3, 3, 0, 0, 9, 4, 0, 1]
runs4 = [4, 0x12, 0, 5, 0x34, 0x56, 0x70, 0, 0, 0] + [9, 0x7A, 0, 0] * 5 + [0, 1]
compare("BMP RLE8", bmp(8, 1, bytes(runs8), palette, colours=16))
compare("BMP RLE4", bmp(4, 2, bytes(runs4), palette, colours=16))

# The high byte of 16-bit samples: of colour as Pillow, of grey by definition (Pillow cuts at 255).
deep = rng.integers(0, 65536, (h, w), dtype=np.uint16)
for format in ("PNG", "TIFF", "PPM", "JPEG2000"):
    encoded = saved(Image.fromarray(deep), format)
    high = (deep >> 8).astype(np.uint8)
    case(f"{format} 16-bit grey", encoded, np.repeat(high[:, :, np.newaxis], 3, axis=2), "RGB", 1 if format == "PPM" else 0)
    case(f"{format} 16-bit grey", encoded, high[:, :, np.newaxis], "Grayscale", 1 if format == "PPM" else 0)

# Pictures that ONNX keeps with its cases.
for name in sorted(vars(_image_decoder_data)):
    kept = getattr(_image_decoder_data, name)
    if name.startswith("image_decoder_decode_"):
        pixel_format = {"rgb": "RGB", "bgr": "BGR", "grayscale": "Grayscale"}[name.split("_")[-1]]
        case(name, kept.data.tobytes(), kept.output, pixel_format, LOSSY if "jpeg_" in name or "webp" in name else 0)

for name, result in zip(names, ask("images.lua", cases)):
    check(result["passed"], f"{name}: {result.get('error')}")
check(len(cases) > 500, f"{len(cases)} images were compared")
scratch.cleanup()
finish()
