/* Elements of a tensor where they lie in the bytes of a request, and lists of elements as protobuf writes them.
 * Lives here: copying (or unpacking) a request's elements to where a model reads them, and writing a tensor's elements into an answer; strings of
 * messages. Knows no message. May include: codec, tensor, base. Ownership: an ml_wire borrows the request's bytes; strings copied out point into
 * them. */
#ifndef ML_SERVE_WIRE_TENSOR_H
#define ML_SERVE_WIRE_TENSOR_H
#include "codec/protobuf.h"
#include "tensor/tensor.h"

typedef enum ml_wire_form {
  ML_WIRE_ELEMENTS, /* as they lie in memory, one after the other, at any address */
  ML_WIRE_LIST,     /* a repeated field of a message, packed or not, in any number of pieces */
  ML_WIRE_LENGTHS,  /* strings: the lengths of all of them as varints, then the bytes of all of them */
  ML_WIRE_PREFIXED  /* strings: each behind its length in four bytes */
} ml_wire_form;

typedef struct ml_wire {
  ml_wire_form form;
  const uint8_t *bytes; size_t size; /* LIST: of the message */
  size_t given;      /* ELEMENTS, LIST: how many there are; of too few the last is repeated, none are zeros, too many are ignored */
  uint32_t field;    /* LIST: its number … */
  ml_pb_wire element; /* … and what it is a list of */
} ml_wire;

/* How a repeated field of this dtype holds its elements; fields of 8-bit floats are one piece of bytes. */
ml_pb_wire ml_wire_element(ml_dtype dtype);

/* What the fields of one message that are numbered `field` hold, one after the other: adds to wire (zeroed but for field and element). A single
 * packed piece of fixed width is taken as ELEMENTS. message: that the field is in. */
ml_status ml_wire_add(ml_wire *wire, const ml_pb_field *field, const uint8_t *message, size_t size, ml_error *err);

/* Whether `count` elements can be read where they are, though perhaps not computed with: the address is any. */
bool ml_wire_in_place(const ml_wire *wire, ml_dtype dtype, size_t count);
/* Writes count elements to `to`. DATA_LOSS: the bytes hold something else; *what: the reason. */
ml_status ml_wire_copy(const ml_wire *wire, ml_dtype dtype, size_t count, void *to, ml_error *err);

/* A field of bytes as a string, one that may not be there ({"", 0}) as a message, and bytes as a field. */
ml_status ml_wire_text(const ml_pb_field *field, const char *what, ml_str *out, ml_error *err);
ml_pb_reader ml_wire_reader(ml_str message);
uint8_t *ml_wire_put_text(uint8_t *to, uint32_t number, const char *bytes, size_t size);

/* Bytes of a view's elements as the contents of a repeated field's packed piece; for strings as all their fields with tags. */
size_t ml_wire_list_size(const ml_view *view, uint32_t field);
uint8_t *ml_wire_list_write(const ml_view *view, uint32_t field, uint8_t *to);

#endif
