/* Base64 (RFC 4648, standard alphabet).
 * Lives here: encode and decode between caller's buffers. May include: base. Allocates nothing; thread-safe. */
#ifndef ML_CODEC_BASE64_H
#define ML_CODEC_BASE64_H
#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"

/* Characters that encoding `size` bytes gives, padding included (no NUL); false when that overflows. */
bool ml_base64_encoded_size(size_t size, size_t *characters);
/* Writes exactly that many characters to `text`. */
void ml_base64_encode(const void *bytes, size_t size, char *text);

/* Bytes that decoding `length` characters gives at most. */
static inline size_t ml_base64_decoded_bound(size_t length) { return length / 4 * 3 + length % 4; }
/* Decodes into `bytes` (room for the bound above; may not overlap text); *size is what was written. Padding may be missing, but
 * not partial; white space (space, tab, CR, LF) may stand anywhere. INVALID_ARGUMENT names the offending character and its
 * offset, also when the bits that no byte uses are not zero (the only trace a cut text without padding leaves). */
ml_status ml_base64_decode(const char *text, size_t length, void *bytes, size_t *size, ml_error *err);

#endif
