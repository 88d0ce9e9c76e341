#include "train/optimizer.h"
#include <string.h>

static const ml_optimizer *const all[] = {
#define X(name) &ml_optimizer_##name,
  ML_OPTIMIZERS(X)
#undef X
};

const ml_optimizer *ml_optimizer_find(const char *name)
{
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) if (strcmp(all[i]->name, name) == 0) return all[i];
  return NULL;
}

const char *ml_optimizer_names(void)
{
#define X(name) ", " #name
  static const char names[] = "" ML_OPTIMIZERS(X);
  return names + 2;
#undef X
}
