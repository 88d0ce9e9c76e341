"""Writes spec/golden/image, ONNX's own backend cases of ImageDecoder (test_image_decoder_decode_*), which Debian's libonnx-testdata is too old to
have, in the layout of ONNX's test data (expected values come from Pillow, by the onnx package), and spec/fuzz/seeds/image, small files of every format.
Run: python3 spec/golden/make_image.py (needs onnx, Pillow)."""
import os
import shutil

import numpy as np
from PIL import Image
from onnx import numpy_helper
from onnx.backend.test.case.node.image_decoder import ImageDecoder  # noqa: F401, it registers its cases
from onnx.backend.test.case import node

SPEC = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT, SEEDS = os.path.join(SPEC, "golden", "image"), os.path.join(SPEC, "fuzz", "seeds", "image")

shutil.rmtree(ROOT, ignore_errors=True)
for case in node.collect_testcases("ImageDecoder"):
    directory = os.path.join(ROOT, case.name, "test_data_set_0")
    os.makedirs(directory)
    with open(os.path.join(ROOT, case.name, "model.onnx"), "wb") as file:
        file.write(case.model.SerializeToString())
    (inputs, outputs), = case.data_sets
    for kind, arrays, values in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
        for i, (array, value) in enumerate(zip(arrays, values)):
            with open(os.path.join(directory, f"{kind}_{i}.pb"), "wb") as file:
                file.write(numpy_helper.from_array(array, value.name).SerializeToString())

shutil.rmtree(SEEDS, ignore_errors=True)
os.makedirs(SEEDS)
y, x = np.mgrid[0:7, 0:9]
colours = Image.fromarray(np.stack([x * 25, y * 35, (x * y) % 7 * 40], axis=2).astype(np.uint8))
kinds = {"1": colours.convert("1"), "L": colours.convert("L"), "P": colours.quantize(5), "RGB": colours, "CMYK": colours.convert("CMYK")}
for name, format, mode, options in (
        ("bmp_1", "BMP", "1", {}), ("bmp_p", "BMP", "P", {}), ("bmp_rgb", "BMP", "RGB", {}), ("jpeg", "JPEG", "RGB", {}),
        ("jpeg_progressive", "JPEG", "L", dict(progressive=True)), ("jpeg_cmyk", "JPEG", "CMYK", {}), ("jp2", "JPEG2000", "RGB", {}),
        ("j2k", "JPEG2000", "L", dict(no_jp2=True)), ("png_p", "PNG", "P", {}), ("png_rgb", "PNG", "RGB", {}), ("pnm_1", "PPM", "1", {}),
        ("pnm_rgb", "PPM", "RGB", {}), ("tiff_p", "TIFF", "P", {}), ("tiff_lzw", "TIFF", "RGB", dict(compression="tiff_lzw")),
        ("tiff_g4", "TIFF", "1", dict(compression="group4")), ("tiff_jpeg", "TIFF", "RGB", dict(compression="jpeg")),
        ("webp", "WEBP", "RGB", {}), ("webp_lossless", "WEBP", "RGB", dict(lossless=True))):
    kinds[mode].save(os.path.join(SEEDS, name), format, **options)
for name, text in (("pnm_p3", "P3 2 1 7 # maximum\n0 1 2 7 6 5\n"), ("pnm_p1", "P1\n3 2\n010 1 1 0\n")):
    with open(os.path.join(SEEDS, name), "w", encoding="ascii") as file:
        file.write(text)
with open(os.path.join(SEEDS, "bmp_rle8"), "wb") as file:  # 4 by 2: two runs, then four pixels one by one
    file.write(b"BM" + bytes.fromhex("4e000000000000004200000028000000040000000200000001000800010000000c000000000000000000000003000000"
                                     "00000000ff00000000ff00000000ff00020102020000000400010201000000010000"))
