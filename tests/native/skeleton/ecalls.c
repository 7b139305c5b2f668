/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls the skeleton's enclave as a hostile host would: ecalls EMULATOR. Builds the enclave of the working directory,
 * and writes for each case its name and what came of it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "ecall.h"
#include "enclave.h"
#include "sgx_arch.h"
#include "sgxemu.h"

enum { UNTOUCHED = 4711 };

static struct enclave enclave = {.fd = -1, .busy = PTHREAD_MUTEX_INITIALIZER};

/* Enters with the call at address, which may be anywhere. */
static void enter(const char *name, uint64_t address, const struct ecall *call) {
    struct sgx_enclave_run run = {.tcs = enclave.tcs};
    int result = enclave.backend->enter(address, 0, 0, SGX_EENTER, 0, 0, &run);
    if (result == 0 && run.function == SGX_EEXIT)
        printf("%s %ld\n", name, (long)call->result);
    else
        printf("%s exception %d, function %u, vector %u\n", name, result, run.function, run.exception_vector);
}

static void call(const char *name, uint64_t number, uint64_t first, uint64_t second, uint64_t third) {
    struct ecall ecall = {.number = number, .argument = {first, second, third}, .result = UNTOUCHED};
    enter(name, (uint64_t)&ecall, &ecall);
}

static void *greet_while_busy(void *unused) {
    (void)unused;
    char greeting[ECALL_GREETING_SIZE];
    return (void *)(long)enclave_greet(&enclave, greeting, sizeof greeting);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 99;
    setvbuf(stdout, NULL, _IONBF, 0);
    void *emulator = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    int (*start)(const uint8_t *) = emulator ? (int (*)(const uint8_t *))dlsym(emulator, "sgxemu_init") : NULL;
    const uint8_t seed[SGXEMU_SEED_SIZE] = {1};
    if (!start || start(seed) < 0 || enclave_load(&enclave, false) < 0)
        return 99;

    const uint64_t base = enclave.base, end = enclave.base + enclave.size;
    _Alignas(8) uint8_t memory[1024];
    const uint64_t outside = (uint64_t)memory;
    call("a good address", ECALL_INIT, outside, 0, 0);
    call("an unknown number", 2, outside, 0, 0);
    call("a huge number", UINT64_MAX, outside, 0, 0);
    call("not aligned", ECALL_INIT, outside + 1, 0, 0);
    call("beyond all addresses", ECALL_INIT, -(uint64_t)8, 0, 0);
    call("the start of the image", ECALL_INIT, enclave.tcs, 0, 0);
    call("the text", ECALL_INIT, enclave.tcs + 4096, 0, 0);
    call("the first bytes", ECALL_INIT, base, 0, 0);
    call("the last bytes", ECALL_INIT, end - ECALL_GREETING_SIZE, 0, 0);
    call("over the end", ECALL_INIT, end - 8, 0, 0);
    if (base)
        call("over the start", ECALL_INIT, base - 8, 0, 0);
    void *behind = mmap((void *)end, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((uint64_t)behind == end)
        call("directly behind", ECALL_INIT, end, 0, 0);

    memset(memory, 0, sizeof memory);
    call("a good report", ECALL_REPORT, outside, outside, outside + 512);
    call("target info inside", ECALL_REPORT, base + 4096, outside, outside + 512);
    call("report data inside", ECALL_REPORT, outside, end - 64, outside + 512);
    call("report inside", ECALL_REPORT, outside, outside, end - 432);

    struct ecall ignored = {.number = ECALL_INIT, .argument = {outside}, .result = UNTOUCHED};
    enter("a call inside", base + 8192, &ignored);
    enter("a call not aligned", (uint64_t)&ignored + 4, &ignored);

    pthread_mutex_lock(&enclave.busy);
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, greet_while_busy, NULL);
    pthread_join(thread, &result);
    pthread_mutex_unlock(&enclave.busy);
    printf("busy %ld\n", (long)result);

    /* Nothing is mapped there, so this is the enclave's end. */
    call("nothing there", ECALL_INIT, 1UL << 40, 0, 0);
    printf("afterwards %ld\n", (long)greet_while_busy(NULL));
    printf("and then %ld\n", (long)greet_while_busy(NULL));
    enclave_unload(&enclave);
    return 0;
}
