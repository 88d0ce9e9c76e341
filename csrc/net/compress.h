/* Content codings of HTTP (RFC 9110, 8.4.1): gzip and deflate, by zlib.
 * Lives here: whole bodies from one form to the other, within bounds, so that a small request cannot become a large one. Knows no
 * header fields. May include: base. Ownership: *out belongs to the caller until ml_free; zlib's memory comes from base/alloc.h. */
#ifndef ML_NET_COMPRESS_H
#define ML_NET_COMPRESS_H
#include <stddef.h>
#include "base/status.h"

typedef enum ml_coding { ML_CODING_GZIP, ML_CODING_DEFLATE } ml_coding;

/* What must hold for what a body inflates to. The ratio is looked at from ML_INFLATE_FREE bytes on: short texts of one letter are no attack. */
typedef struct ml_inflate_limits {
  size_t bytes; /* 0: none */
  size_t ratio; /* to the size of the compressed body; 0: none */
} ml_inflate_limits;

#define ML_INFLATE_FREE ((size_t)1 << 20)

/* Every gzip member of the body; deflate with zlib's header, or without one as some clients send it. DATA_LOSS: broken or cut short, or something
 * behind it; RESOURCE_EXHAUSTED: a limit (never more than that was kept) or memory. */
ml_status ml_inflate(ml_coding coding, const void *bytes, size_t size, ml_inflate_limits limits, char **out, size_t *out_size, ml_error *err);
/* level 1 (fast) … 9 (small) */
ml_status ml_deflate(ml_coding coding, const void *bytes, size_t size, int level, char **out, size_t *out_size, ml_error *err);

#endif
