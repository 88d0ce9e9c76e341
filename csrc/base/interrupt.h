/* Ctrl-C while the core works: a handler that sets a flag, for the length of a training run. May include: base. */
#ifndef ML_BASE_INTERRUPT_H
#define ML_BASE_INTERRUPT_H
#include <signal.h>

/* Installs the SIGINT handler (the former one is kept) and clears the flag; calls nest. A second SIGINT goes to the former handler. */
void ml_interrupt_begin(void);
void ml_interrupt_end(void);
/* Non-zero after SIGINT. */
const volatile sig_atomic_t *ml_interrupt_flag(void);

#endif
