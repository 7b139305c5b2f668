/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SGXEMU_SIGNALS_H
#define SGXEMU_SIGNALS_H

#include <signal.h>

/* Installs the platform's handlers; handlers that the host already has are kept and called. */
int signals_init(void);

/* The backend's sigaction. */
int signals_sigaction(int sig, const struct sigaction *act, struct sigaction *old);

#endif
