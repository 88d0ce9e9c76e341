/* TIFF by libtiff: the first picture of the file, in strips or tiles, planes together or apart; grey and palette of 1 to 16 bits,
 * colour and CMYK of 8 or 16, of which the high byte counts. Turned by its orientation, colours divided by associated alpha, alpha
 * dropped: what Pillow does. YCbCr only inside JPEG, which most writers of it use. Compressions: none, CCITT, LZW, Deflate,
 * PackBits, JPEG, Zstandard. */
#include "image/decode.h"

#ifdef ML_IMAGE_WITH_TIFF
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <tiffio.h>

#define MAX_BLOCK (UINT32_C(1) << 29) /* bytes of a strip or tile */
#define SPARE (UINT64_C(1) << 22)     /* pixels of a tile that a small picture does not fill */
#define MAX_SAMPLES 8                 /* for a pixel */
#ifndef COMPRESSION_ZSTD
#define COMPRESSION_ZSTD 50000
#endif

typedef struct state {
  const uint8_t *bytes;
  uint64_t size, at;
  TIFF *tiff;
  char message[200];
  uint32_t width, height, block_w, block_h;
  uint16_t bits, samples, photometric, planes;
  bool premultiplied;
  size_t block_bytes;      /* of one plane */
  uint16_t *map[3];        /* palette */
  uint8_t *block, *row;
} state;

/* ---------------------------------------------------------------- memory as a file ---- */
static tmsize_t read_bytes(thandle_t handle, void *to, tmsize_t n) {
  state *s = handle;
  if (n < 0 || s->at > s->size) return 0; /* never -1: libtiff 4.5 takes it for a number of bytes and writes in front of its buffer */
  if ((uint64_t)n > s->size - s->at) n = (tmsize_t)(s->size - s->at);
  memcpy(to, s->bytes + s->at, (size_t)n);
  s->at += (uint64_t)n;
  return n;
}

static tmsize_t write_bytes(thandle_t handle, void *from, tmsize_t n) {
  (void)handle;
  (void)from;
  (void)n;
  return -1;
}

static toff_t seek_bytes(thandle_t handle, toff_t to, int from) {
  state *s = handle;
  uint64_t base = from == SEEK_SET ? 0 : from == SEEK_CUR ? s->at : s->size, sum;
  if (__builtin_add_overflow(base, (uint64_t)to, &sum) || sum > INT64_MAX) return (toff_t)-1;
  s->at = sum;
  return sum;
}

static int close_bytes(thandle_t handle) {
  (void)handle;
  return 0;
}

static toff_t size_bytes(thandle_t handle) { return ((state *)handle)->size; }

#if TIFFLIB_VERSION >= 20221213 /* 4.5: messages go to whoever opened the file */
static int failed(TIFF *tiff, void *user, const char *module, const char *format, va_list arguments) {
  state *s = user;
  (void)tiff;
  (void)module;
  if (!s->message[0]) vsnprintf(s->message, sizeof s->message, format, arguments);
  return 1;
}

static int warned(TIFF *tiff, void *user, const char *module, const char *format, va_list arguments) {
  (void)tiff;
  (void)user;
  (void)module;
  (void)format;
  (void)arguments;
  return 1;
}

static TIFF *open_bytes(state *s) {
  TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
  if (!options) return NULL;
  TIFFOpenOptionsSetErrorHandlerExtR(options, failed, s);
  TIFFOpenOptionsSetWarningHandlerExtR(options, warned, s);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options, MAX_BLOCK);
  TIFF *tiff = TIFFClientOpenExt("image", "rm", s, read_bytes, write_bytes, seek_bytes, close_bytes, size_bytes, NULL, NULL, options);
  TIFFOpenOptionsFree(options);
  return tiff;
}
#else /* one handler for the process, which prints unless taken away */
static void be_silent(void) {
  TIFFSetErrorHandler(NULL);
  TIFFSetWarningHandler(NULL);
}

static TIFF *open_bytes(state *s) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, be_silent);
  return TIFFClientOpen("image", "rm", s, read_bytes, write_bytes, seek_bytes, close_bytes, size_bytes, NULL, NULL);
}
#endif

static ml_status corrupt(const state *s, ml_error *err) {
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s", s->message[0] ? s->message : "ends early or is corrupt");
}

/* ---------------------------------------------------------------- header ---- */
static ml_status read_header(state *s, ml_error *err) {
  uint16_t compression = 0, format = SAMPLEFORMAT_UINT, extra_count = 0, ink = INKSET_CMYK, *extra = NULL;
  if (!TIFFGetField(s->tiff, TIFFTAG_IMAGEWIDTH, &s->width) || !TIFFGetField(s->tiff, TIFFTAG_IMAGELENGTH, &s->height) ||
      !TIFFGetField(s->tiff, TIFFTAG_PHOTOMETRIC, &s->photometric))
    return ml_fail(err, ML_INVALID_ARGUMENT, "width, height or photometric interpretation is missing");
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_COMPRESSION, &compression);
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_BITSPERSAMPLE, &s->bits);
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_SAMPLESPERPIXEL, &s->samples);
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_SAMPLEFORMAT, &format);
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_EXTRASAMPLES, &extra_count, &extra);
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_INKSET, &ink);
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_PLANARCONFIG, &s->planes);
  switch (compression) {
    case COMPRESSION_NONE: case COMPRESSION_CCITTRLE: case COMPRESSION_CCITTFAX3: case COMPRESSION_CCITTFAX4: case COMPRESSION_LZW:
    case COMPRESSION_JPEG: case COMPRESSION_ADOBE_DEFLATE: case COMPRESSION_DEFLATE: case COMPRESSION_PACKBITS: case COMPRESSION_ZSTD:
      break;
    default: return ml_fail(err, ML_UNIMPLEMENTED, "compression %u", compression);
  }
  if (!TIFFIsCODECConfigured(compression)) return ml_fail(err, ML_UNIMPLEMENTED, "this libtiff has no compression %u", compression);
  if (compression == COMPRESSION_JPEG && s->photometric == PHOTOMETRIC_YCBCR && s->planes == PLANARCONFIG_CONTIG) {
    TIFFSetField(s->tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    s->photometric = PHOTOMETRIC_RGB;
  }
  const uint16_t bits = s->bits, samples = s->samples;
  bool fits = false;
  switch (s->photometric) {
    case PHOTOMETRIC_MINISWHITE:
    case PHOTOMETRIC_MINISBLACK: fits = samples >= 1; break;
    case PHOTOMETRIC_PALETTE: fits = samples >= 1 && bits <= 8; break;
    case PHOTOMETRIC_RGB: fits = samples >= 3 && bits >= 8; break;
    case PHOTOMETRIC_SEPARATED: fits = samples >= 4 && bits >= 8 && ink == INKSET_CMYK; break;
    default: break;
  }
  fits = fits && samples <= MAX_SAMPLES && (samples == 1 || bits >= 8) && (format == SAMPLEFORMAT_UINT || format == SAMPLEFORMAT_VOID);
  if (!fits || (bits != 1 && bits != 2 && bits != 4 && bits != 8 && bits != 16))
    return ml_fail(err, ML_UNIMPLEMENTED, "photometric interpretation %u with %u samples of %u bits, sample format %u", s->photometric,
                   samples, bits, format);
  if (s->photometric == PHOTOMETRIC_PALETTE && !TIFFGetField(s->tiff, TIFFTAG_COLORMAP, &s->map[0], &s->map[1], &s->map[2]))
    return ml_fail(err, ML_INVALID_ARGUMENT, "its palette is missing");
  s->premultiplied = s->photometric == PHOTOMETRIC_RGB && samples >= 4 && extra_count >= 1 && extra[0] == EXTRASAMPLE_ASSOCALPHA;
  return ML_OK;
}

/* ---------------------------------------------------------------- pixels ---- */
/* One row of a block to s->row: 8-bit samples, those of a pixel together; palette indices and fewer bits as they are. */
static void unpack(state *s, size_t y, size_t count) {
  const bool apart = s->planes == PLANARCONFIG_SEPARATE;
  const size_t together = apart ? 1 : s->samples, planes = apart ? s->samples : 1;
  const size_t stride = (s->block_w * together * s->bits + 7) / 8;
  for (size_t p = 0; p < planes; p++) {
    const uint8_t *from = s->block + p * s->block_bytes + y * stride;
    for (size_t i = 0; i < count * together; i++) {
      uint8_t v;
      if (s->bits == 8) {
        v = from[i];
      } else if (s->bits == 16) {
        uint16_t wide;
        memcpy(&wide, from + 2 * i, 2);
        v = (uint8_t)(wide >> 8);
      } else {
        size_t bit = i * s->bits;
        v = (uint8_t)(from[bit / 8] >> (8 - s->bits - bit % 8) & ((1 << s->bits) - 1));
      }
      s->row[i * planes + p] = v;
    }
  }
}

/* A row of samples to grey (1) or red, green, blue and others: channels of a pixel. */
static size_t convert(state *s, size_t count) {
  const uint32_t most = s->bits < 8 ? (1u << s->bits) - 1 : 255;
  const size_t n = s->samples;
  uint8_t *row = s->row;
  switch (s->photometric) {
    case PHOTOMETRIC_PALETTE:
      for (size_t i = count; i-- > 0;) { /* from the end: three bytes come out of each n */
        const uint8_t index = row[i * n];
        for (size_t c = 0; c < 3; c++) row[i * (n < 3 ? 3 : n) + c] = (uint8_t)(s->map[c][index] >> 8);
      }
      return n < 3 ? 3 : n;
    case PHOTOMETRIC_RGB:
      for (size_t i = 0; s->premultiplied && i < count; i++) {
        uint8_t *p = row + i * n;
        for (size_t c = 0; c < 3 && p[3] != 255; c++) {
          uint32_t v = p[3] ? p[c] * 255u / p[3] : 0;
          p[c] = (uint8_t)(v < 255 ? v : 255);
        }
      }
      return n;
    case PHOTOMETRIC_SEPARATED:
      for (size_t i = 0; n > 4 && i < count; i++) memmove(row + 4 * i, row + n * i, 4);
      ml__cmyk_to_rgb(row, count);
      return 3;
    default:
      for (size_t i = 0; i < count; i++) {
        uint8_t v = (uint8_t)(row[i * n] * 255u / most);
        row[i] = s->photometric == PHOTOMETRIC_MINISWHITE ? (uint8_t)~v : v;
      }
      return 1;
  }
}

static ml_status read_blocks(state *s, const ml__canvas *canvas, ml_error *err) {
  const bool tiled = TIFFIsTiled(s->tiff);
  const uint16_t planes = s->planes == PLANARCONFIG_SEPARATE ? s->samples : 1;
  for (uint32_t y = 0; y < s->height; y += s->block_h) {
    const uint32_t rows = s->height - y < s->block_h ? s->height - y : s->block_h;
    for (uint32_t x = 0; x < s->width; x += s->block_w) {
      const uint32_t columns = s->width - x < s->block_w ? s->width - x : s->block_w;
      for (uint16_t p = 0; p < planes; p++) {
        uint8_t *to = s->block + p * s->block_bytes;
        tmsize_t wanted = tiled ? (tmsize_t)s->block_bytes : TIFFVStripSize(s->tiff, rows), got;
        if (tiled) got = TIFFReadEncodedTile(s->tiff, TIFFComputeTile(s->tiff, x, y, 0, p), to, wanted);
        else got = TIFFReadEncodedStrip(s->tiff, TIFFComputeStrip(s->tiff, y, p), to, wanted);
        if (got < wanted || wanted <= 0) return corrupt(s, err);
      }
      for (uint32_t r = 0; r < rows; r++) {
        unpack(s, r, columns);
        ml__canvas_put(canvas, x, y + r, s->row, columns, convert(s, columns));
      }
    }
  }
  return ML_OK;
}

static ml_status decode(state *s, const ml_image_request *request, ml_error *err) {
  ml__canvas canvas;
  uint16_t orientation = 1;
  s->tiff = open_bytes(s);
  if (!s->tiff) return corrupt(s, err);
  ML_TRY(read_header(s, err));
  const size_t planes = s->planes == PLANARCONFIG_SEPARATE ? s->samples : 1;
  s->block_w = s->width;
  if (TIFFIsTiled(s->tiff)) {
    TIFFGetField(s->tiff, TIFFTAG_TILEWIDTH, &s->block_w);
    TIFFGetField(s->tiff, TIFFTAG_TILELENGTH, &s->block_h);
  } else {
    TIFFGetFieldDefaulted(s->tiff, TIFFTAG_ROWSPERSTRIP, &s->block_h);
    if (s->block_h > s->height) s->block_h = s->height;
  }
  TIFFGetFieldDefaulted(s->tiff, TIFFTAG_ORIENTATION, &orientation);
  ML_TRY(ml__canvas_open(&canvas, request, s->width, s->height, orientation, err));
  if (s->block_w == 0 || s->block_h == 0 || s->block_w > MAX_BLOCK / s->block_h / 2 / s->samples ||
      (uint64_t)s->block_w * s->block_h > 4 * (uint64_t)s->width * s->height + SPARE)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "strips or tiles of %u by %u pixels", s->block_w, s->block_h);
  const tmsize_t bytes = TIFFIsTiled(s->tiff) ? TIFFTileSize(s->tiff) : TIFFVStripSize(s->tiff, s->block_h);
  const size_t expected = (s->block_w * (planes > 1 ? (size_t)1 : s->samples) * s->bits + 7) / 8 * s->block_h;
  if (bytes < 0 || (size_t)bytes != expected) return corrupt(s, err);
  s->block_bytes = expected;
  s->block = ml_alloc_zero(planes, expected);
  s->row = ml_alloc((size_t)s->block_w * (s->samples < 3 ? 3 : s->samples));
  if (!s->block || !s->row) return ml_fail_memory(err, planes * expected, "a strip or tile");
  return read_blocks(s, &canvas, err);
}

ml_status ml__decode_tiff(const ml_image_request *request, ml_error *err) {
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "a decoder");
  s->bytes = request->bytes;
  s->size = request->size;
  ml_status status = decode(s, request, err);
  if (s->tiff) TIFFClose(s->tiff);
  ml_free(s->block);
  ml_free(s->row);
  ml_free(s);
  return status;
}
#endif
