/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNELET_AGENT_H
#define RUNELET_AGENT_H

#include "host.h"

/* Serves the agent socket in threads of its own, to the end of the process. Returns 0 or -errno. */
int agent_start(struct host *host, int listening_fd);

/* The container's program has ended, and with it all others do: kills them, and gives them a second to be answered for.
 * What is requested afterwards is refused. */
void agent_stop(struct host *host);

#endif
