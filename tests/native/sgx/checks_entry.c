/* SPDX-License-Identifier: Apache-2.0 */
/* EENTER, EEXIT, ERESUME: registers, segment bases and the causes of #GP and #PF. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <immintrin.h>
#include <string.h>
#include <sys/mman.h>

static struct sgx_enclave_run enter_expecting_fault(uint64_t tcs, unsigned function) {
    struct sgx_enclave_run run;
    uint64_t answer = 0;
    EXPECT_EQUAL(enter(tcs, function, CALL_SUM, 0, 0, 0, &run, &answer), 0);
    EXPECT(run.function == function, "leaf %u did not fault, it ended as %u", function, run.function);
    return run;
}

static void a_call_returns_its_answer(void) {
    struct enclave_host enclave = load_enclave(NULL);
    uint8_t bytes[100];
    memset(bytes, 3, sizeof bytes);
    for (int i = 0; i < TCS_COUNT; i++)
        EXPECT_EQUAL(call(enclave.tcs[i], CALL_SUM, (uint64_t)bytes, sizeof bytes, 0), 300);
    struct sgxemu_stats counted = stats();
    EXPECT_EQUAL(counted.eenter_direct, TCS_COUNT);
    EXPECT_EQUAL(counted.eexit, TCS_COUNT);
    EXPECT_EQUAL(counted.aex, 0);
}

static void an_enclu_instruction_of_the_host_enters_too(void) {
    struct enclave_host enclave = load_enclave(NULL);
    uint8_t bytes[4] = {1, 2, 3, 4};
    EXPECT_EQUAL(enclu_in_host(SGX_EENTER, enclave.tcs[0], CALL_SUM, (uint64_t)bytes, sizeof bytes), 10);
    EXPECT_EQUAL(stats().eenter_trapped, 1);
    EXPECT_EQUAL(stats().eenter_direct, 0);
}

static void segment_bases_are_the_tcs_s_inside_and_the_host_s_outside(void) {
    struct enclave_host enclave = load_enclave(NULL);
    uint64_t fs = _readfsbase_u64(), gs = _readgsbase_u64(), first[2], second[2];
    call(enclave.tcs[0], CALL_BASES, (uint64_t)first, 0, 0);
    call(enclave.tcs[1], CALL_BASES, (uint64_t)second, 0, 0);
    EXPECT_EQUAL(first[0], first[1]);
    EXPECT(first[0] > enclave.base && first[0] < enclave.base + enclave.size, "FS base %#lx is outside", first[0]);
    EXPECT(first[0] != second[0], "two TCS have one FS base");
    EXPECT_EQUAL(_readfsbase_u64(), fs);
    EXPECT_EQUAL(_readgsbase_u64(), gs);
}

static void vector_registers_pass_through_entry_and_exit(void) {
    struct enclave_host enclave = load_enclave(NULL);
    struct sgx_enclave_run run = {.tcs = enclave.tcs[0]};
    uint64_t seen[2] = {0, 0}, left, want[2] = {0x0123456789abcdef, 0xfedcba9876543210};
    uint64_t rdi = CALL_XMM, rsi = (uint64_t)seen, rdx = 0;
    register uint64_t r8 __asm__("r8") = 0;
    register uint64_t r9 __asm__("r9") = 0;
    call(enclave.tcs[0], CALL_SUM, 0, 0, 0); /* the first entry of a thread arms it, which C code does */
    __asm__ volatile("movdqu (%[want]), %%xmm7\n"
                     "mov %%rsp, %%r15\n"
                     "and $-16, %%rsp\n"
                     "push %[run]\n"
                     "push %[run]\n"
                     "mov $2, %%ecx\n"
                     "call *%[enter]\n"
                     "mov %%r15, %%rsp\n"
                     "movq %%xmm6, %[left]"
                     : [left] "=r"(left), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r8), "+r"(r9)
                     : [want] "b"(want), [run] "r"((uint64_t)&run), [enter] "r"(backend->enter)
                     : "rax", "rcx", "r10", "r11", "r15", "xmm6", "xmm7", "memory", "cc");
    EXPECT_EQUAL(run.function, SGX_EEXIT);
    EXPECT_EQUAL(seen[0], want[0]);
    EXPECT_EQUAL(seen[1], want[1]);
    EXPECT_EQUAL(left, 0x1122334455667788);
}

static int again_then_seven(long rdi, long rsi, long rdx, long rsp, long r8, long r9, struct sgx_enclave_run *run) {
    (void)rdi, (void)rsi, (void)rdx, (void)rsp, (void)r8, (void)r9;
    int *turns = (int *)run->user_data;
    return ++*turns == 3 ? -7 : SGX_EENTER;
}

static void a_user_handler_decides_what_comes_next(void) {
    struct enclave_host enclave = load_enclave(NULL);
    int turns = 0;
    struct sgx_enclave_run run = {
        .tcs = enclave.tcs[0], .user_handler = (uint64_t)again_then_seven, .user_data = (uint64_t)&turns};
    EXPECT_EQUAL(backend->enter((unsigned long)-1, 0, 0, SGX_EENTER, 0, 0, &run), -7);
    EXPECT_EQUAL(turns, 3);
    EXPECT_EQUAL(stats().eexit, 3);
}

static void wrong_arguments_are_einval(void) {
    struct enclave_host enclave = load_enclave(NULL);
    struct sgx_enclave_run run = {.tcs = enclave.tcs[0]};
    EXPECT_EQUAL(backend->enter(0, 0, 0, SGX_EEXIT, 0, 0, &run), -EINVAL);
    EXPECT_EQUAL(backend->enter(0, 0, 0, SGX_EGETKEY, 0, 0, &run), -EINVAL);
    run.reserved[215] = 1;
    EXPECT_EQUAL(backend->enter(0, 0, 0, SGX_EENTER, 0, 0, &run), -EINVAL);
}

static void eenter_of_a_page_that_is_no_tcs_is_a_page_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    uint64_t code_page = enclave.tcs[0] + TCS_COUNT * SGX_PAGE_SIZE;
    struct sgx_enclave_run run = enter_expecting_fault(code_page, SGX_EENTER);
    EXPECT_EQUAL(run.exception_vector, X86_PF);
    EXPECT_EQUAL(run.exception_addr, code_page);
}

static void eenter_of_an_absent_page_is_a_page_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    EXPECT_EQUAL(enter_expecting_fault(enclave.base + enclave.size - SGX_PAGE_SIZE, SGX_EENTER).exception_vector,
                 X86_PF);
}

static void eenter_outside_every_enclave_is_a_page_fault(void) {
    load_enclave(NULL);
    void *page = mmap(NULL, SGX_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_EQUAL(enter_expecting_fault((uint64_t)page, SGX_EENTER).exception_vector, X86_PF);
}

static void eenter_of_a_misaligned_tcs_is_a_general_protection_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0] + 8, SGX_EENTER).exception_vector, X86_GP);
}

static void eenter_before_einit_is_a_general_protection_fault(void) {
    struct image image = open_image(NULL);
    struct enclave_host enclave = create_enclave(&image);
    map_enclave(&enclave, &image);
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0], SGX_EENTER).exception_vector, X86_GP);
}

static void eresume_at_cssa_zero_is_a_general_protection_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0], SGX_ERESUME).exception_vector, X86_GP);
}

static void eenter_without_a_free_ssa_frame_is_a_general_protection_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    struct sgx_enclave_run run;
    /* One exception in the call, one in its handler: both frames of this TCS are used. */
    run = call_once(enclave.tcs[0], CALL_TRY, TRAP_UD2, 0);
    EXPECT_EQUAL(run.function, SGX_ERESUME);
    EXPECT_EQUAL(call(enclave.tcs[1], CALL_DAMAGE_FRAME, 2 * SGX_PAGE_SIZE + (1ul << 40), 1, 0), 0);
    run = call_once(enclave.tcs[0], 0, 0, 0); /* the handler writes to nowhere */
    EXPECT_EQUAL(run.function, SGX_ERESUME);
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0], SGX_EENTER).exception_vector, X86_GP);
    EXPECT_EQUAL(call(enclave.tcs[1], CALL_SUM, 0, 0, 0), 0);
}

static void an_ssa_outside_elrange_is_a_page_fault(void) {
    struct enclave_host enclave = load_enclave("wild_ossa"); /* of TCS 0 */
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0], SGX_EENTER).exception_vector, X86_PF);
    EXPECT_EQUAL(call(enclave.tcs[1], CALL_SUM, 0, 0, 0), 0);
}

static void eresume_of_a_damaged_xsave_header_is_a_general_protection_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    struct sgx_enclave_run run;
    uint64_t verdict = 0;
    call(enclave.tcs[1], CALL_DAMAGE_FRAME, 512 + 16, 1, 0);
    run = call_once(enclave.tcs[0], CALL_TRY, TRAP_UD2, 0);
    EXPECT_EQUAL(run.function, SGX_ERESUME);
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, 0, 0, 0, 0, &run, &verdict), 0);
    EXPECT_EQUAL(verdict, 1);
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0], SGX_ERESUME).exception_vector, X86_GP);
}

static void eresume_to_a_non_canonical_address_is_a_general_protection_fault(void) {
    struct enclave_host enclave = load_enclave(NULL);
    uint64_t rip = SGX_PAGE_SIZE - sizeof(struct sgx_gprsgx) + offsetof(struct sgx_gprsgx, fsbase);
    struct sgx_enclave_run run;
    uint64_t verdict = 0;
    call(enclave.tcs[1], CALL_DAMAGE_FRAME, rip, 1ul << 60, 0);
    call_once(enclave.tcs[0], CALL_TRY, TRAP_UD2, 0);
    EXPECT_EQUAL(enter(enclave.tcs[0], SGX_EENTER, 0, 0, 0, 0, &run, &verdict), 0);
    EXPECT_EQUAL(enter_expecting_fault(enclave.tcs[0], SGX_ERESUME).exception_vector, X86_GP);
}

static void an_enclave_outlives_its_file_while_it_is_mapped(void) {
    struct enclave_host enclave = load_enclave(NULL);
    uint8_t bytes[2] = {40, 2};
    EXPECT_EQUAL(backend->close(enclave.fd), 0);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, (uint64_t)bytes, 2, 0), 42);
}

static void closed_and_unmapped_enclaves_leave_room_for_others(void) {
    for (int i = 0; i < 520; i++) { /* twice as many as there is room for */
        struct image image = open_image(NULL);
        struct enclave_host enclave = create_enclave(&image);
        uint64_t size = image.header->page_count * SGX_PAGE_SIZE;
        EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
        map_enclave(&enclave, &image);
        EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
        if (i % 2)
            EXPECT_EQUAL(backend->close(enclave.fd), 0);
        EXPECT_EQUAL(munmap((void *)(enclave.base + image.records[0].offset), size), 0);
        if (i % 2 == 0)
            EXPECT_EQUAL(backend->close(enclave.fd), 0);
        munmap(image.header, (uint64_t)image.data - (uint64_t)image.header + size);
    }
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check entry_checks[] = {
    CHECK(a_call_returns_its_answer),
    CHECK(an_enclu_instruction_of_the_host_enters_too),
    CHECK(segment_bases_are_the_tcs_s_inside_and_the_host_s_outside),
    CHECK(vector_registers_pass_through_entry_and_exit),
    CHECK(a_user_handler_decides_what_comes_next),
    CHECK(wrong_arguments_are_einval),
    CHECK(eenter_of_a_page_that_is_no_tcs_is_a_page_fault),
    CHECK(eenter_of_an_absent_page_is_a_page_fault),
    CHECK(eenter_outside_every_enclave_is_a_page_fault),
    CHECK(eenter_of_a_misaligned_tcs_is_a_general_protection_fault),
    CHECK(eenter_before_einit_is_a_general_protection_fault),
    CHECK(eresume_at_cssa_zero_is_a_general_protection_fault),
    CHECK(eenter_without_a_free_ssa_frame_is_a_general_protection_fault),
    CHECK(an_ssa_outside_elrange_is_a_page_fault),
    CHECK(eresume_of_a_damaged_xsave_header_is_a_general_protection_fault),
    CHECK(eresume_to_a_non_canonical_address_is_a_general_protection_fault),
    CHECK(an_enclave_outlives_its_file_while_it_is_mapped),
    CHECK(closed_and_unmapped_enclaves_leave_room_for_others),
    {NULL, NULL},
};
