/* BMP: Windows and OS/2 1.x bitmaps of 1, 2, 4, 8, 16, 24 and 32 bits, plain, with bit masks, and run-length encoded. Bits of a
 * mask are scaled to 255 by value * 255 / maximum. Pixels that runs leave out have colour 0. Strict: a colour the palette lacks is
 * black as everywhere, but a run over the edge of the picture, a mask with holes and a file that ends early are errors. Source:
 * Microsoft's documentation of BITMAPFILEHEADER to BITMAPV5HEADER and of bitmap compression. */
#include <string.h>
#include "image/decode.h"

enum { PLAIN = 0, RLE8 = 1, RLE4 = 2, MASKS = 3, ALPHA_MASKS = 6 };

typedef struct bitmap {
  const uint8_t *bytes;
  size_t size, data; /* offset of the pixels */
  size_t width, height;
  bool top_down;
  uint32_t bits, compression;
  uint32_t mask[3];           /* red, green, blue */
  uint8_t palette[256][3];    /* red, green, blue */
} bitmap;

static uint32_t u16(const uint8_t *p) { return (uint32_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }

static ml_status ends_early(ml_error *err) { return ml_fail(err, ML_INVALID_ARGUMENT, "ends early"); }

/* ---------------------------------------------------------------- header ---- */
static ml_status read_masks(bitmap *b, const uint8_t *at, ml_error *err) {
  for (int i = 0; i < 3; i++) {
    uint32_t mask = at ? u32(at + 4 * i) : b->bits == 16 ? 0x7C00u >> 5 * i : 0xFF0000u >> 8 * i;
    uint32_t low = mask & (~mask + 1);
    if (mask == 0 || (mask & (mask + low)) != 0 || (b->bits == 16 && mask > 0xFFFF))
      return ml_fail(err, ML_INVALID_ARGUMENT, "mask 0x%08x of %s", mask, i == 0 ? "red" : i == 1 ? "green" : "blue");
    b->mask[i] = mask;
  }
  return ML_OK;
}

static ml_status read_palette(bitmap *b, size_t at, uint32_t colours, size_t entry, ml_error *err) {
  uint32_t most = UINT32_C(1) << b->bits;
  if (colours == 0) colours = most;
  if (colours > 256) return ml_fail(err, ML_INVALID_ARGUMENT, "%u colours in the palette", colours);
  if (b->size < at || (b->size - at) / entry < colours) return ends_early(err);
  for (uint32_t i = 0; i < colours; i++)
    for (int c = 0; c < 3; c++) b->palette[i][c] = b->bytes[at + i * entry + 2 - (size_t)c];
  return ML_OK;
}

static ml_status read_header(bitmap *b, ml_error *err) {
  if (b->size < 18) return ends_early(err);
  uint32_t header = u32(b->bytes + 14), colours = 0;
  const uint8_t *h = b->bytes + 14;
  bool known = header == 12 || header == 40 || header == 52 || header == 56 || header == 64 || header == 108 || header == 124;
  if (!known) return ml_fail(err, ML_INVALID_ARGUMENT, "header of %u bytes", header);
  if (b->size < 14 + (size_t)header) return ends_early(err);
  size_t after = 14 + (size_t)header;
  b->data = u32(b->bytes + 10);
  if (header == 12) {
    b->width = u16(h + 4);
    b->height = u16(h + 6);
    b->bits = u16(h + 10);
  } else {
    uint32_t width = u32(h + 4), height = u32(h + 8);
    b->top_down = height >> 31;
    b->width = width;
    b->height = b->top_down ? (uint32_t)(~height + 1) : height;
    b->bits = u16(h + 14);
    b->compression = u32(h + 16);
    colours = u32(h + 32);
    if (width >> 31) return ml_fail(err, ML_INVALID_ARGUMENT, "width is negative");
  }
  const uint32_t bits = b->bits, how = b->compression;
  bool fits = how == PLAIN ? bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32
            : how == RLE8 ? bits == 8 && !b->top_down
            : how == RLE4 ? bits == 4 && !b->top_down
            : (how == MASKS || how == ALPHA_MASKS) && header != 64 && (bits == 16 || bits == 32);
  if (!fits) return ml_fail(err, ML_UNIMPLEMENTED, "%u bits for a pixel with compression %u", bits, how);
  const uint8_t *masks = NULL;
  if (how == MASKS || how == ALPHA_MASKS) { /* behind a short header, in a long one: the same place */
    size_t length = how == ALPHA_MASKS ? 16 : 12;
    if (b->size < 54 + length) return ends_early(err);
    masks = b->bytes + 54;
    if (header == 40) after += length;
  }
  if (bits == 16 || bits == 32) ML_TRY(read_masks(b, masks, err));
  if (bits <= 8) ML_TRY(read_palette(b, after, colours, header == 12 ? 3 : 4, err));
  if (b->data < after || b->data > b->size) return ml_fail(err, ML_INVALID_ARGUMENT, "pixels at byte %zu of %zu", b->data, b->size);
  return ML_OK;
}

/* ---------------------------------------------------------------- pixels ---- */
static uint8_t masked(uint32_t pixel, uint32_t mask) {
  uint32_t low = mask & (~mask + 1);
  return (uint8_t)((uint64_t)((pixel & mask) / low) * 255 / (mask / low));
}

static void plain_row(const bitmap *b, const uint8_t *from, uint8_t *rgb) {
  for (size_t x = 0; x < b->width; x++, rgb += 3) {
    if (b->bits <= 8) {
      size_t bit = x * b->bits;
      unsigned shift = (unsigned)(8 - b->bits - bit % 8), index = (unsigned)from[bit / 8] >> shift;
      memcpy(rgb, b->palette[index & ((1u << b->bits) - 1)], 3);
    } else if (b->bits == 24) {
      for (int c = 0; c < 3; c++) rgb[c] = from[3 * x + 2 - (size_t)c];
    } else {
      uint32_t pixel = b->bits == 16 ? u16(from + 2 * x) : u32(from + 4 * x);
      for (int c = 0; c < 3; c++) rgb[c] = masked(pixel, b->mask[c]);
    }
  }
}

static ml_status plain(const bitmap *b, const ml__canvas *canvas, uint8_t *rgb, ml_error *err) {
  size_t stride = (b->width * b->bits + 31) / 32 * 4; /* width < 2^27 */
  size_t last = (b->width * b->bits + 7) / 8;         /* the last row need not be filled up */
  size_t room = b->size - b->data;
  if (room < last || (b->height > 1 && (room - last) / (b->height - 1) < stride)) return ends_early(err);
  for (size_t y = 0; y < b->height; y++) {
    plain_row(b, b->bytes + b->data + y * stride, rgb);
    ml__canvas_put(canvas, 0, b->top_down ? y : b->height - 1 - y, rgb, b->width, 3);
  }
  return ML_OK;
}

/* Rows come from the bottom; every one is put down when the next begins. */
static ml_status runs(const bitmap *b, const ml__canvas *canvas, uint8_t *rgb, ml_error *err) {
  const uint8_t *at = b->bytes + b->data, *end = b->bytes + b->size;
  const size_t w = b->width, h = b->height;
  const bool nibbles = b->compression == RLE4;
  size_t x = 0, y = 0, filled = 0; /* filled: pixels of the row that are in rgb */
  while (y < h) {
    if (end - at < 2) return ends_early(err);
    size_t n = at[0], what = at[1], down = 0, right = 0;
    bool stop = false;
    at += 2;
    if (n == 0 && what == 0) {
      down = 1;
    } else if (n == 0 && what == 1) {
      stop = true;
    } else if (n == 0 && what == 2) {
      if (end - at < 2) return ends_early(err);
      right = x + at[0];
      down = at[1];
      at += 2;
      if (right > w || down > h - y) return ml_fail(err, ML_INVALID_ARGUMENT, "jumps out of the picture");
    } else {
      size_t count = n ? n : what, bytes = n ? 0 : nibbles ? (what + 1) / 2 : what;
      if (count > w - x) return ml_fail(err, ML_INVALID_ARGUMENT, "a run goes over the edge of the picture");
      if ((size_t)(end - at) < bytes) return ends_early(err);
      for (; filled < x; filled++) memcpy(rgb + 3 * filled, b->palette[0], 3);
      for (size_t i = 0; i < count; i++, filled++) {
        unsigned byte = n ? (unsigned)what : at[nibbles ? i / 2 : i];
        memcpy(rgb + 3 * filled, b->palette[nibbles ? (i % 2 ? byte & 15 : byte >> 4) : byte], 3);
      }
      x += count;
      at += bytes;
      if (bytes % 2 && at < end) at++; /* to a whole word */
      continue;
    }
    if (stop) down = h - y;
    for (size_t i = 0; i < down; i++) {
      for (; filled < w; filled++) memcpy(rgb + 3 * filled, b->palette[0], 3);
      ml__canvas_put(canvas, 0, h - 1 - y - i, rgb, w, 3);
      filled = 0;
    }
    y += down;
    x = right;
  }
  return ML_OK;
}

ml_status ml__decode_bmp(const ml_image_request *request, ml_error *err) {
  bitmap b = { .bytes = request->bytes, .size = request->size };
  ml__canvas canvas;
  ML_TRY(read_header(&b, err));
  ML_TRY(ml__canvas_open(&canvas, request, b.width, b.height, 1, err));
  uint8_t *rgb = ml_alloc(b.width * 3);
  if (!rgb) return ml_fail_memory(err, b.width * 3, "a row");
  ml_status status = (b.compression == RLE8 || b.compression == RLE4 ? runs : plain)(&b, &canvas, rgb, err);
  ml_free(rgb);
  return status;
}
