/* CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of TFRecord and TensorBoard event files.
 * Lives here: the checksum and its TFRecord masking. May include: libc. Allocates nothing; thread-safe. */
#ifndef ML_CODEC_CRC32C_H
#define ML_CODEC_CRC32C_H
#include <stddef.h>
#include <stdint.h>

/* Checksum of `bytes`, continuing `crc` (0 at the start): crc32c(crc32c(0, a), b) is the checksum of a followed by b. */
uint32_t ml_crc32c(uint32_t crc, const void *bytes, size_t size);
/* The same without special instructions; for tests and as the fallback. */
uint32_t ml_crc32c_portable(uint32_t crc, const void *bytes, size_t size);

/* TFRecord stores checksums rotated and offset, so that a checksum of bytes holding checksums stays meaningful. */
static inline uint32_t ml_crc32c_mask(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

#endif
