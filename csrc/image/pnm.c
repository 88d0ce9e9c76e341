/* PNM: the six Netpbm formats, P1 to P3 written in decimal digits, P4 to P6 in bytes. Samples up to 65535 are scaled to 255,
 * rounding to nearest. Only the first image of a file is read. Strict: a digit out of place, a sample over the maximum or a file
 * that ends early is an error. Source: pbm(5), pgm(5), ppm(5). */
#include "image/decode.h"

typedef struct reader {
  const uint8_t *at, *end;
} reader;

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static ml_status ends_early(ml_error *err) { return ml_fail(err, ML_INVALID_ARGUMENT, "ends early"); }

/* To the next byte that is neither white space nor in a comment. */
static void skip(reader *r) {
  while (r->at < r->end) {
    if (*r->at == '#') while (r->at < r->end && *r->at != '\n' && *r->at != '\r') r->at++;
    else if (is_space(*r->at)) r->at++;
    else return;
  }
}

/* A decimal number up to `most`. */
static ml_status number(reader *r, uint32_t most, const char *what, uint32_t *out, ml_error *err) {
  uint32_t value = 0;
  skip(r);
  if (r->at == r->end) return ends_early(err);
  if (*r->at < '0' || *r->at > '9') return ml_fail(err, ML_INVALID_ARGUMENT, "%s: byte 0x%02x is no digit", what, *r->at);
  for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
    value = value * 10 + (uint32_t)(*r->at - '0');
    if (value > most) return ml_fail(err, ML_INVALID_ARGUMENT, "%s is over %u", what, most);
  }
  if (r->at < r->end && !is_space(*r->at) && *r->at != '#')
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: byte 0x%02x is no digit", what, *r->at);
  *out = value;
  return ML_OK;
}

/* One row of 8-bit samples, `n` of them; 0 and 255 for bits. */
static ml_status row(reader *r, int kind, uint32_t most, size_t n, uint8_t *out, ml_error *err) {
  size_t bytes = kind == 4 ? (n + 7) / 8 : most > 255 ? 2 * n : n;
  if (kind >= 4 && (size_t)(r->end - r->at) < bytes) return ends_early(err);
  for (size_t i = 0; i < n; i++) {
    uint32_t v = 0;
    if (kind == 1) { /* digits need no space between them */
      skip(r);
      if (r->at == r->end) return ends_early(err);
      if (*r->at != '0' && *r->at != '1') return ml_fail(err, ML_INVALID_ARGUMENT, "sample: byte 0x%02x is no bit", *r->at);
      v = *r->at++ == '0';
    } else if (kind < 4) {
      ML_TRY(number(r, most, "sample", &v, err));
    } else if (kind == 4) {
      v = (r->at[i / 8] >> (7 - i % 8) & 1) == 0;
    } else {
      v = most > 255 ? (uint32_t)r->at[2 * i] << 8 | r->at[2 * i + 1] : r->at[i];
      if (v > most) return ml_fail(err, ML_INVALID_ARGUMENT, "sample %u is over the maximum of %u", v, most);
    }
    out[i] = (uint8_t)(most == 255 ? v : (v * 255 + most / 2) / most);
  }
  if (kind >= 4) r->at += bytes;
  return ML_OK;
}

ml_status ml__decode_pnm(const ml_image_request *request, ml_error *err) {
  reader r = { request->bytes + 2, request->bytes + request->size };
  const int kind = request->bytes[1] - '0';
  const size_t channels = kind % 3 == 0 ? 3 : 1;
  uint32_t width, height, most = 1;
  ml__canvas canvas;
  ML_TRY(number(&r, 1u << 28, "width", &width, err));
  ML_TRY(number(&r, 1u << 28, "height", &height, err));
  if (kind % 3 != 1) {
    ML_TRY(number(&r, 65535, "maximum", &most, err));
    if (most == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "maximum is 0");
  }
  if (kind >= 4) { /* one white space, then bytes */
    if (r.at == r.end) return ends_early(err);
    if (!is_space(*r.at)) return ml_fail(err, ML_INVALID_ARGUMENT, "byte 0x%02x in front of the samples", *r.at);
    r.at++;
  }
  ML_TRY(ml__canvas_open(&canvas, request, width, height, 1, err));
  uint8_t *samples = ml_alloc(width * channels);
  if (!samples) return ml_fail_memory(err, width * channels, "a row");
  ml_status status = ML_OK;
  for (size_t y = 0; y < height && status == ML_OK; y++) {
    status = row(&r, kind, most, width * channels, samples, err);
    if (status == ML_OK) ml__canvas_put(&canvas, 0, y, samples, width, channels);
  }
  ml_free(samples);
  return status;
}
