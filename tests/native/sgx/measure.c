/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: sgx-measure IMAGE [SSA-PAGES]
 *
 * The MRENCLAVE that the emulator's ECREATE, EADD and EEXTEND give a flat image of the skeleton's layout: page 0 is the
 * TCS, the others are readable, writable and executable, 17 bytes of metadata begin the last page; zero pages for the
 * SSA frames and up to the size that the metadata asks for follow. Linked with the emulator's own objects.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../native/sgxemu/device.h"

struct metadata {
    uint64_t max_mmap_size;
    uint8_t null_dereference_protection;
    uint64_t mmap_min_addr;
} __attribute__((packed));

static uint8_t zero_page[SGX_PAGE_SIZE] __attribute__((aligned(4096)));

static void die(const char *what) {
    fprintf(stderr, "sgx-measure: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t round_up(uint64_t size) {
    return (size + SGX_PAGE_SIZE - 1) & ~(SGX_PAGE_SIZE - 1);
}

static uint64_t power_of_two(uint64_t size) {
    uint64_t power = SGX_PAGE_SIZE;
    while (power < size)
        power *= 2;
    return power;
}

static uint8_t *read_image(const char *path, uint64_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        die(path);
    long length = ftell(file);
    rewind(file);
    *size = round_up((uint64_t)length);
    uint8_t *image = aligned_alloc(SGX_PAGE_SIZE, *size);
    memset(image, 0, *size);
    if (length < (long)sizeof(struct metadata) || fread(image, 1, (size_t)length, file) != (size_t)length)
        die(path);
    fclose(file);
    return image;
}

static void add(int fd, const uint8_t *page, uint64_t offset, uint64_t flags) {
    struct sgx_secinfo secinfo = {.flags = flags};
    struct sgx_enclave_add_pages arg = {.src = (uint64_t)page,
                                        .offset = offset,
                                        .length = SGX_PAGE_SIZE,
                                        .secinfo = (uint64_t)&secinfo,
                                        .flags = SGX_PAGE_MEASURE};
    if (device_ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &arg) != 0)
        die("ADD_PAGES");
}

int main(int argc, char **argv) {
    const uint64_t rwx = SGX_SECINFO_REG | SGX_SECINFO_R | SGX_SECINFO_W | SGX_SECINFO_X;
    uint64_t size, ssa_pages = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    if (argc < 2)
        return 2;
    uint8_t *image = read_image(argv[1], &size);
    struct metadata metadata;
    memcpy(&metadata, image + size - SGX_PAGE_SIZE, sizeof metadata);

    uint64_t offset = 0, mmap_size = size + ssa_pages * SGX_PAGE_SIZE;
    if (metadata.null_dereference_protection)
        offset = metadata.mmap_min_addr ? metadata.mmap_min_addr : 16 << 20;
    if (round_up(metadata.max_mmap_size) > mmap_size)
        mmap_size = round_up(metadata.max_mmap_size);
    struct sgx_tcs *tcs = (struct sgx_tcs *)image;
    tcs->ossa = offset + size;
    tcs->oentry += offset;

    struct sgx_secs secs = {.size = power_of_two(offset + mmap_size),
                            .ssaframesize = (uint32_t)ssa_pages,
                            .attributes = SGX_ATTR_MODE64BIT,
                            .xfrm = SGX_XFRM_LEGACY};
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    int fd = device_open(NULL);
    if (fd < 0 || device_ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create) != 0)
        die("CREATE");
    for (uint64_t at = 0; at < mmap_size; at += SGX_PAGE_SIZE)
        add(fd, at < size ? image + at : zero_page, offset + at, at == 0 ? SGX_SECINFO_TCS : rwx);

    struct sha256 measurement = device_enclave(fd)->measurement;
    uint8_t mrenclave[SHA256_SIZE];
    sha256_final(&measurement, mrenclave);
    for (size_t i = 0; i < sizeof mrenclave; i++)
        printf("%02x", mrenclave[i]);
    putchar('\n');
    free(image);
    return 0;
}
