/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_URING_H
#define PRELOAD_URING_H

#include <stdbool.h>

/* Whether setting up an io_uring has to fail with ENOSYS. */
bool uring_refused(void);

#endif
