/* PNG by libpng: every colour type and depth, interlaced or not. Of 16-bit samples the high byte counts; alpha and what a tRNS
 * chunk says are dropped, other ancillary chunks (gamma, profiles, text, EXIF) are not even read, as Pillow's convert("RGB") has it.
 * The whole file must be there and its check sums right. */
#include "image/decode.h"

#ifdef ML_IMAGE_WITH_PNG
#include <setjmp.h>
#include <string.h>
#include <png.h>

typedef struct state { /* all that must survive longjmp */
  png_structp png;
  png_infop info;
  jmp_buf jump;
  ml_status status;
  ml_error *err;
  const ml_image_request *request;
  size_t at;
  ml__canvas canvas;
  uint8_t *rows;
  bool out_of_memory;
} state;

static _Noreturn void give_up(state *s, ml_status status) {
  s->status = status;
  longjmp(s->jump, 1);
}

static _Noreturn void failed(png_structp png, png_const_charp message) {
  state *s = png_get_error_ptr(png);
  give_up(s, ml_fail(s->err, s->out_of_memory ? ML_RESOURCE_EXHAUSTED : ML_INVALID_ARGUMENT, "%s", message));
}

static void warned(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

static png_voidp allocate(png_structp png, png_alloc_size_t bytes) {
  state *s = png_get_mem_ptr(png);
  void *block = ml_alloc(bytes);
  s->out_of_memory = !block;
  return block;
}

static void release(png_structp png, png_voidp block) {
  (void)png;
  ml_free(block);
}

static void read_bytes(png_structp png, png_bytep to, size_t n) {
  state *s = png_get_io_ptr(png);
  if (n > s->request->size - s->at) give_up(s, ml_fail(s->err, ML_INVALID_ARGUMENT, "ends early"));
  memcpy(to, s->request->bytes + s->at, n);
  s->at += n;
}

static ml_status decode(state *s) {
  if (setjmp(s->jump)) return s->status;
  s->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, s, failed, warned, s, allocate, release);
  s->info = s->png ? png_create_info_struct(s->png) : NULL;
  if (!s->info) return ml_fail_memory(s->err, 0, "a decoder");
  png_structp png = s->png;
  png_set_read_fn(png, s, read_bytes);
  png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF); /* the canvas limits their product */
  png_set_chunk_malloc_max(png, 1 << 20);
#ifdef PNG_HANDLE_AS_UNKNOWN_SUPPORTED
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* every ancillary chunk that changes no pixel here */
#endif
  png_read_info(png, s->info);
  ML_TRY(ml__canvas_open(&s->canvas, s->request, png_get_image_width(png, s->info), png_get_image_height(png, s->info), 1, s->err));
  if (png_get_color_type(png, s->info) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (png_get_color_type(png, s->info) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, s->info) < 8) png_set_expand_gray_1_2_4_to_8(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, s->info);
  size_t stride = png_get_rowbytes(png, s->info), channels = png_get_channels(png, s->info), bytes = stride;
  const size_t width = s->canvas.width, height = s->canvas.height;
  if (stride != width * channels || (channels != 1 && channels != 3)) return ml_fail(s->err, ML_INTERNAL, "rows of %zu bytes", stride);
  if (passes > 1 && !ml_mul_size(stride, height, &bytes)) return ml_fail_memory(s->err, SIZE_MAX, "an interlaced image");
  s->rows = ml_alloc_zero(1, bytes);
  if (!s->rows) return ml_fail_memory(s->err, bytes, "rows");
  for (int pass = 0; pass < passes; pass++) {
    for (size_t y = 0; y < height; y++) {
      uint8_t *row = passes > 1 ? s->rows + y * stride : s->rows;
      png_read_row(png, row, NULL);
      if (pass == passes - 1) ml__canvas_put(&s->canvas, 0, y, row, width, channels);
    }
  }
  png_read_end(png, NULL);
  return ML_OK;
}

ml_status ml__decode_png(const ml_image_request *request, ml_error *err) {
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "a decoder");
  s->request = request;
  s->err = err;
  ml_status status = decode(s);
  if (s->png) png_destroy_read_struct(&s->png, &s->info, NULL);
  ml_free(s->rows);
  ml_free(s);
  return status;
}
#endif
