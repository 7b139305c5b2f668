/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: sigstruct-verify [OFFSET...] < SIGSTRUCT
 *
 * The emulator's verdict (EINIT's code) on a SIGSTRUCT, then on copies with one bit of the byte at OFFSET flipped; one
 * line each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../../native/sgxemu/einit.h"

int main(int argc, char **argv) {
    static struct sgx_sigstruct sigstruct;
    if (fread(&sigstruct, 1, sizeof sigstruct, stdin) != sizeof sigstruct) {
        fprintf(stderr, "sigstruct-verify: standard input is shorter than a SIGSTRUCT\n");
        return 2;
    }
    printf("%d\n", sigstruct_verify(&sigstruct));
    for (int i = 1; i < argc; i++) {
        size_t offset = strtoul(argv[i], NULL, 0);
        if (offset >= sizeof sigstruct)
            return 2;
        ((uint8_t *)&sigstruct)[offset] ^= 0x10;
        printf("%d\n", sigstruct_verify(&sigstruct));
        ((uint8_t *)&sigstruct)[offset] ^= 0x10;
    }
    return 0;
}
