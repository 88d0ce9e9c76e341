/* Signal handlers are process-wide by nature, and so is this flag. */
#include "base/interrupt.h"
#include <stddef.h>

static volatile sig_atomic_t flag;
static struct sigaction former;
static int depth;

static void on_interrupt(int number)
{
  (void)number;
  flag = 1;
  sigaction(SIGINT, &former, NULL); /* the next one ends the program as it always did */
}

void ml_interrupt_begin(void)
{
  if (depth++ > 0) return;
  flag = 0;
  struct sigaction action = { .sa_handler = on_interrupt };
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &former);
}

void ml_interrupt_end(void)
{
  if (depth == 0 || --depth > 0) return;
  sigaction(SIGINT, &former, NULL);
  flag = 0;
}

const volatile sig_atomic_t *ml_interrupt_flag(void) { return &flag; }
