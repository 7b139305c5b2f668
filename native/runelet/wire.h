/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's messages (src/inclavare/enclave/agent.py has their grammar): protobuf, as little of it as they need. */
#ifndef RUNELET_WIRE_H
#define RUNELET_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum { WIRE_FRAME_MAX = 1 << 20 };

enum request_kind { REQUEST_EXEC = 1, REQUEST_KILL = 2, REQUEST_ATTEST = 3 };

/* A growing array of strings, always NULL-terminated. */
struct words {
    char **list;
    size_t count;
    size_t room;
};

/* Appends a copy. Returns 0 or -ENOMEM. */
int words_add(struct words *words, const char *text, size_t size);

struct request {
    enum request_kind kind; /* 0 until it is known */
    struct words argv;      /* of execute */
    struct words env;
    int sig;                    /* of kill */
    unsigned char *target_info; /* of attest; 512 bytes, aligned as EREPORT wants it, and room for report data behind */
    int target_info_size;       /* with report data, if there is some */
};

/* Reads a message. Returns 0; or -EPROTO or -ENOMEM, and points problem to a sentence. To be freed in any case. */
int request_parse(struct request *request, const unsigned char *message, size_t size, const char **problem);
void request_free(struct request *request);

/* Writes the framed response to execute or attest into out, which has room for WIRE_RESPONSE_MAX bytes. report is NULL
 * or 432 bytes. Returns the size. */
enum { WIRE_RESPONSE_MAX = 4096 };
size_t response_write(unsigned char *out, enum request_kind kind, int code, const char *error,
                      const unsigned char *report);

#endif
