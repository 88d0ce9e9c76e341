/* UTF-8 checking (The Unicode Standard, table 3-7: no overlong forms, no surrogates, nothing over U+10FFFF).
 * Lives here: validation only. May include: libc. Allocates nothing; thread-safe. */
#ifndef ML_CODEC_UTF8_H
#define ML_CODEC_UTF8_H
#include <stdbool.h>
#include <stddef.h>

/* Length (1 to 4) of the well-formed sequence that starts at `bytes`, of which `left` may be read; 0 when it is not well-formed.
 * *bad (may be NULL) is then how many bytes one replacement character stands for: the longest prefix that could have begun a
 * sequence, at least 1 (Unicode's "maximal subpart"). */
size_t ml_utf8_sequence(const unsigned char *bytes, size_t left, size_t *bad);

/* Whether all of `bytes` is UTF-8; else *bad_offset (may be NULL) is where the first ill-formed sequence begins. */
bool ml_utf8_valid(const void *bytes, size_t length, size_t *bad_offset);

#endif
