/* JPEG 2000 by OpenJPEG: JP2 files and bare codestreams, grey and colour (sRGB or sYCC), with or without alpha, which is dropped.
 * Samples of up to 16 bits; of more than eight the high ones count. Components may be subsampled.
 *
 * OpenJPEG takes memory by what the header says before its caller sees it, and a codestream that ends early gives it half a picture:
 * the main header's size marker and the chain of tile-parts are looked at here first. Source: ISO/IEC 15444-1, annexes A and I. */
#include "image/decode.h"

#ifdef ML_IMAGE_WITH_JPEG2000
#include <stdio.h>
#include <string.h>
#include <openjpeg.h>

/* OpenJPEG keeps about 6 kB for a tile, 4 bytes for a sample, twice, and some hundred for a precinct or a code-block. */
#define MAX_TILES 16384
#define MAX_PIXELS (ML_IMAGE_MAX_PIXELS / 4)
#define MAX_PRECINCTS (UINT32_C(1) << 18)
#define MAX_BLOCKS (UINT32_C(1) << 19)

static uint32_t u16(const uint8_t *p) { return (uint32_t)(p[0] << 8 | p[1]); }
static uint32_t u32(const uint8_t *p) { return u16(p) << 16 | u16(p + 2); }

static ml_status ends_early(ml_error *err) { return ml_fail(err, ML_INVALID_ARGUMENT, "ends early"); }

/* ---------------------------------------------------------------- looking before OpenJPEG does ---- */
/* The codestream in the boxes of a JP2 file. A palette may give as many components as a codestream may have. */
static ml_status find_codestream(const uint8_t **bytes, size_t *size, ml_error *err) {
  const uint8_t *at = *bytes;
  size_t left = *size;
  while (left >= 8) {
    uint64_t length = u32(at);
    size_t header = 8;
    if (length == 1) {
      if (left < 16) return ends_early(err);
      length = (uint64_t)u32(at + 8) << 32 | u32(at + 12);
      header = 16;
    } else if (length == 0) {
      length = left;
    }
    if (length < header) return ml_fail(err, ML_INVALID_ARGUMENT, "a box of %llu bytes", (unsigned long long)length);
    if (length > left) return ends_early(err);
    if (memcmp(at + 4, "jp2c", 4) == 0) {
      *bytes = at + header;
      *size = (size_t)length - header;
      return ML_OK;
    }
    if (memcmp(at + 4, "jp2h", 4) == 0) length = header; /* holds boxes itself */
    if (memcmp(at + 4, "pclr", 4) == 0 && (length < header + 3 || at[header + 2] < 1 || at[header + 2] > 4))
      return ml_fail(err, ML_UNIMPLEMENTED, "its palette");
    at += length;
    left -= (size_t)length;
  }
  return left ? ends_early(err) : ml_fail(err, ML_INVALID_ARGUMENT, "holds no codestream");
}

typedef struct extent { uint64_t width, height, components; } extent;

static ml_status check_size(const uint8_t *siz, size_t length, extent *out, ml_error *err) {
  if (length < 36) return ml_fail(err, ML_INVALID_ARGUMENT, "size marker of %zu bytes", length);
  uint64_t x1 = u32(siz + 2), y1 = u32(siz + 6), x0 = u32(siz + 10), y0 = u32(siz + 14);
  uint64_t tile_w = u32(siz + 18), tile_h = u32(siz + 22), tile_x = u32(siz + 26), tile_y = u32(siz + 30);
  uint32_t components = u16(siz + 34);
  if (x1 <= x0 || y1 <= y0 || tile_w == 0 || tile_h == 0 || tile_x > x0 || tile_y > y0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "impossible sizes in its header");
  if (components < 1 || components > 4) return ml_fail(err, ML_UNIMPLEMENTED, "%u components", components);
  uint64_t across = (x1 - tile_x + tile_w - 1) / tile_w, down = (y1 - tile_y + tile_h - 1) / tile_h;
  if (across > MAX_TILES || down > MAX_TILES / across)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%llu by %llu tiles are over the limit of %d", (unsigned long long)across,
                   (unsigned long long)down, MAX_TILES);
  if (x1 - x0 > MAX_PIXELS || y1 - y0 > MAX_PIXELS / (x1 - x0))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%llu by %llu pixels are over the limit of %u", (unsigned long long)(x1 - x0),
                   (unsigned long long)(y1 - y0), (unsigned)MAX_PIXELS);
  *out = (extent){ x1 - x0, y1 - y0, components };
  return ML_OK;
}

/* What COD and COC share: levels, sizes of code-blocks, and (if it has them) of precincts. */
static ml_status check_coding(const uint8_t *p, size_t length, bool has_precincts, const extent *e, ml_error *err) {
  const uint32_t levels = length > 0 ? p[0] : 0;
  if (length < 5 || levels > 32 || (has_precincts && length < 6 + (size_t)levels))
    return ml_fail(err, ML_INVALID_ARGUMENT, "a bad coding style");
  uint64_t precincts = 0, blocks = e->width * e->height * e->components >> ((p[1] & 15) + 2 + (p[2] & 15) + 2);
  for (uint32_t r = 0; has_precincts && r <= levels; r++) {
    const uint32_t px = p[5 + r] & 15, py = p[5 + r] >> 4;
    precincts += ((e->width >> (levels - r) >> px) + 2) * ((e->height >> (levels - r) >> py) + 2) * e->components;
  }
  if (blocks > MAX_BLOCKS || precincts > MAX_PRECINCTS)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%llu code-blocks and %llu precincts are over the limits of %u and %u",
                   (unsigned long long)blocks, (unsigned long long)precincts, MAX_BLOCKS, MAX_PRECINCTS);
  return ML_OK;
}

/* Walks the markers of the main header and of every tile-part up to the end marker. */
static ml_status check_codestream(const uint8_t *bytes, size_t size, ml_error *err) {
  enum { SOC = 0xFF4F, SIZ = 0xFF51, COD = 0xFF52, COC = 0xFF53, SOT = 0xFF90, SOD = 0xFF93, EOC = 0xFFD9 };
  size_t at = 2, part_end = 0; /* 0: in the main header or between tile-parts */
  bool sized = false;
  extent e = { 0, 0, 0 };
  if (size < 2) return ends_early(err);
  if (u16(bytes) != SOC) return ml_fail(err, ML_INVALID_ARGUMENT, "no codestream where it should be");
  for (;;) {
    if (size - at < 2) return ends_early(err);
    const uint32_t marker = u16(bytes + at);
    if (marker == EOC && !part_end) break;
    if (marker == SOD && part_end) {
      at = part_end;
      part_end = 0;
      continue;
    }
    if (marker < 0xFF00 || marker == SOD || marker == EOC || marker == SOC)
      return ml_fail(err, ML_INVALID_ARGUMENT, "no marker segment at byte %zu of the codestream", at);
    if (size - at < 4) return ends_early(err);
    const size_t length = u16(bytes + at + 2);
    const uint8_t *body = bytes + at + 4;
    if (length < 2) return ml_fail(err, ML_INVALID_ARGUMENT, "a marker segment of %zu bytes", length);
    if ((part_end ? part_end : size) - at < length + 2) return ends_early(err);
    if (!sized && marker != SIZ) return ml_fail(err, ML_INVALID_ARGUMENT, "a codestream without sizes");
    switch (marker) {
      case SIZ:
        if (sized) return ml_fail(err, ML_INVALID_ARGUMENT, "sizes twice");
        ML_TRY(check_size(body, length - 2, &e, err));
        sized = true;
        break;
      case COD:
        if (length < 12) return ml_fail(err, ML_INVALID_ARGUMENT, "a bad coding style");
        ML_TRY(check_coding(body + 5, length - 7, body[0] & 1, &e, err));
        break;
      case COC:
        if (length < 9) return ml_fail(err, ML_INVALID_ARGUMENT, "a bad coding style");
        ML_TRY(check_coding(body + 2, length - 4, body[1] & 1, &e, err));
        break;
      case SOT: { /* the length of a tile-part counts from here; 0: the last one, up to the end marker */
        if (length != 10 || part_end) return ml_fail(err, ML_INVALID_ARGUMENT, "a bad tile-part at byte %zu of the codestream", at);
        const size_t part = u32(body + 2);
        if (part > size - at) return ends_early(err);
        if (part != 0 && part < 14) return ml_fail(err, ML_INVALID_ARGUMENT, "a tile-part of %zu bytes", part);
        part_end = part ? at + part : size - 2;
        if (part_end < at + 14) return ends_early(err);
        break;
      }
      default: break;
    }
    at += length + 2;
  }
  return sized ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "a codestream without sizes");
}

/* ---------------------------------------------------------------- reading from memory ---- */
typedef struct state {
  const uint8_t *bytes;
  size_t size, at;
  opj_codec_t *codec;
  opj_stream_t *stream;
  opj_image_t *image;
  uint8_t *row;
  char message[200];
} state;

static OPJ_SIZE_T read_bytes(void *to, OPJ_SIZE_T n, void *user) {
  state *s = user;
  if (n > s->size - s->at) n = s->size - s->at;
  if (n == 0) return (OPJ_SIZE_T)-1;
  memcpy(to, s->bytes + s->at, n);
  s->at += n;
  return n;
}

static OPJ_OFF_T skip_bytes(OPJ_OFF_T n, void *user) {
  state *s = user;
  if (n < 0) return -1;
  if ((uint64_t)n > s->size - s->at) n = (OPJ_OFF_T)(s->size - s->at);
  s->at += (size_t)n;
  return n;
}

static OPJ_BOOL seek_bytes(OPJ_OFF_T to, void *user) {
  state *s = user;
  if (to < 0 || (uint64_t)to > s->size) return OPJ_FALSE;
  s->at = (size_t)to;
  return OPJ_TRUE;
}

static void failed(const char *message, void *user) {
  state *s = user;
  size_t length = strcspn(message, "\n");
  if (!s->message[0]) snprintf(s->message, sizeof s->message, "%.*s", (int)(length < 150 ? length : 150), message);
}

static void warned(const char *message, void *user) {
  (void)message;
  (void)user;
}

static ml_status corrupt(const state *s, ml_error *err) {
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s", s->message[0] ? s->message : "corrupt data");
}

/* ---------------------------------------------------------------- samples ---- */
static uint8_t clip(int64_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

static uint8_t sample(const opj_image_comp_t *c, size_t x, size_t y) {
  int64_t v = c->data[y * c->w + x] + (c->sgnd ? INT64_C(1) << (c->prec - 1) : 0);
  return clip(c->prec > 8 ? v >> (c->prec - 8) : v << (8 - c->prec));
}

static void ycc_to_rgb(uint8_t *p) { /* JFIF's formulas in units of 1/65536 */
  int32_t y = p[0] * 65536 + 32768, b = p[1] - 128, r = p[2] - 128;
  p[0] = clip((y + 91881 * r) >> 16);
  p[1] = clip((y - 22554 * b - 46802 * r) >> 16);
  p[2] = clip((y + 116130 * b) >> 16);
}

static ml_status put(state *s, const ml_image_request *request, ml_error *err) {
  const opj_image_t *image = s->image;
  const opj_image_comp_t *first = &image->comps[0];
  const uint32_t n = image->numcomps, colours = n < 3 ? 1 : 3;
  ml__canvas canvas;
  if (n < 1 || n > 4) return ml_fail(err, ML_UNIMPLEMENTED, "%u components", n);
  for (uint32_t i = 0; i < colours; i++) {
    const opj_image_comp_t *c = &image->comps[i];
    if (c->prec < 1 || c->prec > 16) return ml_fail(err, ML_UNIMPLEMENTED, "samples of %u bits", c->prec);
    if (!c->data || c->w == 0 || c->h == 0 || c->dx < first->dx || c->dy < first->dy || first->dx == 0 || first->dy == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "component %u has no samples", i);
  }
  if (image->color_space == OPJ_CLRSPC_EYCC || image->color_space == OPJ_CLRSPC_CMYK)
    return ml_fail(err, ML_UNIMPLEMENTED, "its colour space");
  const bool ycc = colours == 3 && (image->color_space == OPJ_CLRSPC_SYCC || image->comps[1].dx != first->dx);
  ML_TRY(ml__canvas_open(&canvas, request, first->w, first->h, 1, err));
  s->row = ml_alloc((size_t)first->w * colours);
  if (!s->row) return ml_fail_memory(err, (size_t)first->w * colours, "a row");
  for (size_t y = 0; y < canvas.height; y++) {
    uint8_t *to = s->row;
    for (uint32_t i = 0; i < colours; i++) {
      const opj_image_comp_t *c = &image->comps[i];
      const size_t dx = c->dx / first->dx, cy = y * first->dy / c->dy, last = c->w - 1;
      for (size_t x = 0; x < canvas.width; x++)
        to[x * colours + i] = sample(c, x / dx < last ? x / dx : last, cy < c->h ? cy : c->h - 1);
    }
    for (size_t x = 0; ycc && x < canvas.width; x++) ycc_to_rgb(to + 3 * x);
    ml__canvas_put(&canvas, 0, y, to, canvas.width, colours);
  }
  return ML_OK;
}

static ml_status decode(state *s, const ml_image_request *request, bool bare, ml_error *err) {
  opj_dparameters_t parameters;
  s->codec = opj_create_decompress(bare ? OPJ_CODEC_J2K : OPJ_CODEC_JP2);
  s->stream = opj_stream_default_create(OPJ_TRUE);
  if (!s->codec || !s->stream) return ml_fail_memory(err, 0, "a decoder");
  opj_set_error_handler(s->codec, failed, s);
  opj_set_warning_handler(s->codec, warned, s);
  opj_set_info_handler(s->codec, warned, s);
  opj_stream_set_user_data(s->stream, s, NULL);
  opj_stream_set_user_data_length(s->stream, s->size);
  opj_stream_set_read_function(s->stream, read_bytes);
  opj_stream_set_skip_function(s->stream, skip_bytes);
  opj_stream_set_seek_function(s->stream, seek_bytes);
  opj_set_default_decoder_parameters(&parameters);
  if (!opj_setup_decoder(s->codec, &parameters) || !opj_read_header(s->stream, s->codec, &s->image)) return corrupt(s, err);
  uint64_t w = (uint64_t)s->image->x1 - s->image->x0, h = (uint64_t)s->image->y1 - s->image->y0;
  if (w > request->max_pixels || h > request->max_pixels / (w ? w : 1)) /* before OpenJPEG takes memory for them */
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%llu by %llu pixels are over the limit of %zu", (unsigned long long)w,
                   (unsigned long long)h, request->max_pixels);
  if (!opj_decode(s->codec, s->stream, s->image) || !opj_end_decompress(s->codec, s->stream)) return corrupt(s, err);
  return put(s, request, err);
}

ml_status ml__decode_jpeg2000(const ml_image_request *request, ml_error *err) {
  state s = { .bytes = request->bytes, .size = request->size };
  const uint8_t *bytes = request->bytes;
  size_t size = request->size;
  const bool bare = bytes[0] == 0xFF;
  if (!bare) ML_TRY(find_codestream(&bytes, &size, err));
  ML_TRY(check_codestream(bytes, size, err));
  ml_status status = decode(&s, request, bare, err);
  if (s.image) opj_image_destroy(s.image);
  if (s.stream) opj_stream_destroy(s.stream);
  if (s.codec) opj_destroy_codec(s.codec);
  ml_free(s.row);
  return status;
}
#endif
