/* SPDX-License-Identifier: Apache-2.0 */
/* CREATE, ADD_PAGES, INIT, mmap: what is refused, and how. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int ioctl_error(int fd, unsigned long request, void *arg) {
    errno = 0;
    EXPECT_EQUAL(backend->ioctl(fd, request, arg), -1);
    return errno;
}

/* ---- EINIT ---- */

static void one_flipped_byte_has_its_error_code(void) {
    static const struct {
        const char *field;
        size_t offset;
        int code;
    } cases[] = {
        {"header", 0, SGX_INVALID_SIG_STRUCT},
        {"header", 11, SGX_INVALID_SIG_STRUCT},
        {"type", 12, SGX_INVALID_SIG_STRUCT},
        {"vendor", 16, SGX_INVALID_SIG_STRUCT},
        {"date", 20, SGX_INVALID_SIGNATURE},
        {"header2", 24, SGX_INVALID_SIG_STRUCT},
        {"swdefined", 40, SGX_INVALID_SIGNATURE},
        {"reserved1", 44, SGX_INVALID_SIG_STRUCT},
        {"modulus", 128, SGX_INVALID_SIGNATURE},
        {"modulus", 511, SGX_INVALID_SIGNATURE},
        {"exponent", 512, SGX_INVALID_SIG_STRUCT},
        {"signature", 516, SGX_INVALID_SIGNATURE},
        {"signature", 899, SGX_INVALID_SIGNATURE},
        {"miscselect", 900, SGX_INVALID_SIGNATURE},
        {"miscmask", 904, SGX_INVALID_SIGNATURE},
        {"isvfamilyid", 912, SGX_INVALID_SIGNATURE},
        {"attributes", 928, SGX_INVALID_SIGNATURE},
        {"xfrm", 936, SGX_INVALID_SIGNATURE},
        {"attributes_mask", 944, SGX_INVALID_SIGNATURE},
        {"xfrm_mask", 952, SGX_INVALID_SIGNATURE},
        {"enclavehash", 960, SGX_INVALID_SIGNATURE},
        {"reserved3", 992, SGX_INVALID_SIG_STRUCT},
        {"isvextprodid", 1008, SGX_INVALID_SIGNATURE},
        {"isvprodid", 1024, SGX_INVALID_SIGNATURE},
        {"isvsvn", 1026, SGX_INVALID_SIGNATURE},
        {"reserved4", 1028, SGX_INVALID_SIG_STRUCT},
        {"q1", 1040, SGX_INVALID_SIGNATURE},
        {"q1", 1423, SGX_INVALID_SIGNATURE},
        {"q2", 1424, SGX_INVALID_SIGNATURE},
        {"q2", 1807, SGX_INVALID_SIGNATURE},
    };
    struct image image = open_image(NULL);
    struct enclave_host enclave = create_enclave(&image);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *byte = (uint8_t *)image.sigstruct + cases[i].offset;
        *byte ^= 1;
        int code = init_enclave(&enclave, &image);
        EXPECT(code == cases[i].code, "%s at %zu gives %d, not %d", cases[i].field, cases[i].offset, code,
               cases[i].code);
        *byte ^= 1;
    }
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
}

static void a_flipped_byte_in_a_page_is_an_invalid_measurement(void) {
    struct image image = open_image(NULL);
    image.data[5 * SGX_PAGE_SIZE + 10] ^= 1;
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), SGX_INVALID_MEASUREMENT);
}

static void a_page_with_other_permissions_is_an_invalid_measurement(void) {
    struct image image = open_image(NULL);
    image.records[image.header->page_count - 1].flags = SGX_SECINFO_REG | SGX_SECINFO_R;
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), SGX_INVALID_MEASUREMENT);
}

static void a_page_that_is_not_extended_is_an_invalid_measurement(void) {
    struct image image = open_image(NULL);
    image.records[image.header->page_count - 1].measure = 0;
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), SGX_INVALID_MEASUREMENT);
}

static void pages_in_another_order_are_an_invalid_measurement(void) {
    struct image image = open_image(NULL);
    struct image_record *last = &image.records[image.header->page_count - 1], kept = *last;
    last[0] = last[-1]; /* both pages are zero */
    last[-1] = kept;
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), SGX_INVALID_MEASUREMENT);
}

static void another_enclave_s_sigstruct_is_an_invalid_measurement(void) {
    struct image image = open_image(NULL), other = open_image("other");
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &other), SGX_INVALID_MEASUREMENT);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
}

static int init_of(const char *suffix) {
    struct image image = open_image(suffix);
    struct enclave_host enclave = create_enclave(&image);
    return init_enclave(&enclave, &image);
}

static void attributes_count_under_their_mask(void) {
    EXPECT_EQUAL(init_of("debug_refused"), SGX_INVALID_ATTRIBUTE);
    EXPECT_EQUAL(init_of("debug_masked"), 0);
    EXPECT_EQUAL(init_of("xfrm_refused"), SGX_INVALID_ATTRIBUTE);
    EXPECT_EQUAL(init_of("xfrm_masked"), 0);
    EXPECT_EQUAL(init_of("misc_refused"), SGX_INVALID_ATTRIBUTE);
    EXPECT_EQUAL(init_of("misc_masked"), 0);
}

static void intel_and_debug_sigstructs_have_a_valid_header(void) {
    EXPECT_EQUAL(init_of("intel"), 0);
    EXPECT_EQUAL(init_of("debug_type"), 0);
}

static void the_provision_key_needs_the_provision_device(void) {
    struct image image = open_image("provision");
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), -EACCES);
    struct sgx_enclave_provision wrong = {.fd = (uint64_t)enclave.fd};
    EXPECT_EQUAL(ioctl_error(enclave.fd, SGX_IOC_ENCLAVE_PROVISION, &wrong), EINVAL);
    EXPECT_EQUAL(init_enclave(&enclave, &image), -EACCES);
    int device = backend->open("/dev/sgx_provision");
    struct sgx_enclave_provision provision = {.fd = (uint64_t)device};
    EXPECT_EQUAL(backend->ioctl(enclave.fd, SGX_IOC_ENCLAVE_PROVISION, &provision), 0);
    backend->close(device);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
}

static void the_einittoken_key_is_refused(void) {
    EXPECT_EQUAL(init_of("token"), -EACCES);
}

/* ---- CREATE ---- */

static struct sgx_secs good_secs(void) {
    return (struct sgx_secs){.size = 0x10000,
                             .base = 0x7000000000,
                             .ssaframesize = 1,
                             .attributes = SGX_ATTR_MODE64BIT,
                             .xfrm = SGX_XFRM_LEGACY};
}

static int create_result(struct sgx_secs *secs) {
    struct sgx_enclave_create create = {.src = (uint64_t)secs};
    int fd = backend->open(NULL);
    int result = backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create);
    int error = errno;
    backend->close(fd);
    return result < 0 ? -error : result;
}

#define REFUSED(statement)                                                                                             \
    do {                                                                                                               \
        struct sgx_secs secs = good_secs();                                                                            \
        statement;                                                                                                     \
        int result = create_result(&secs);                                                                             \
        EXPECT(result == -EIO, "CREATE after %s gave %d", #statement, result);                                         \
    } while (0)

static void ecreate_refuses_a_wrong_secs(void) {
    struct sgx_secs good = good_secs();
    EXPECT_EQUAL(create_result(&good), 0);
    REFUSED(secs.size = 0);
    REFUSED(secs.size = SGX_PAGE_SIZE);
    REFUSED(secs.size = 0x11000);
    REFUSED(secs.base += SGX_PAGE_SIZE);
    REFUSED(secs.base = 1ul << 47);
    REFUSED(secs.ssaframesize = 0);
    REFUSED(secs.miscselect = 2);
    REFUSED(secs.attributes = 0);
    REFUSED(secs.attributes |= SGX_ATTR_INIT);
    REFUSED(secs.attributes |= SGX_ATTR_CET);
    REFUSED(secs.attributes |= SGX_ATTR_AEXNOTIFY);
    REFUSED(secs.attributes |= 8);
    REFUSED(secs.xfrm = 1);
    REFUSED(secs.xfrm = 7 | 1ul << 62);
    REFUSED(secs.configsvn = 1);
    REFUSED(secs.configid[63] = 1);
    REFUSED(secs.cet_attributes = 1);
    REFUSED(secs.reserved1[0] = 1);
    REFUSED(secs.reserved4[3833] = 1);
}

static void ioctls_out_of_order_are_refused(void) {
    static uint8_t page[SGX_PAGE_SIZE] __attribute__((aligned(4096)));
    struct sgx_secs secs = good_secs();
    struct sgx_secinfo secinfo = {.flags = SGX_SECINFO_REG | SGX_SECINFO_R};
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    struct sgx_enclave_add_pages add = {
        .src = (uint64_t)page, .offset = 0, .length = SGX_PAGE_SIZE, .secinfo = (uint64_t)&secinfo};
    struct image image = open_image(NULL);
    struct sgx_enclave_init init = {.sigstruct = (uint64_t)image.sigstruct};
    int fd = backend->open(NULL);
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_INIT, &init), EINVAL);
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create), 0);
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_CREATE, &create), EINVAL);
    EXPECT_EQUAL(ioctl_error(fd, 0xa4ff, &create), ENOTTY);
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &create), ENOTTY);
    EXPECT_EQUAL(ioctl_error(fd, ISGX_IOC_ENCLAVE_ADD_PAGE, &create), ENOTTY);
    EXPECT_EQUAL(ioctl_error(STDIN_FILENO, SGX_IOC_ENCLAVE_CREATE, &create), ENOTTY);
    EXPECT_EQUAL(ioctl_error(-1, SGX_IOC_ENCLAVE_CREATE, &create), EBADF);

    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
    EXPECT_EQUAL(init_enclave(&enclave, &image), -EINVAL);
    EXPECT_EQUAL(ioctl_error(enclave.fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
}

/* ---- ADD_PAGES ---- */

static void add_pages_refuses_wrong_arguments(void) {
    static uint8_t page[SGX_PAGE_SIZE] __attribute__((aligned(4096)));
    static const uint64_t wrong_flags[] = {
        SGX_SECINFO_REG | SGX_SECINFO_W,
        SGX_SECINFO_TCS | SGX_SECINFO_R,
        0,
        SGX_SECINFO_TRIM,
        SGX_SECINFO_REG | 1ul << 16,
        SGX_SECINFO_REG | SGX_SECINFO_PENDING,
        SGX_SECINFO_REG | SGX_SECINFO_TCS,
    };
    struct sgx_secs secs = good_secs();
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    int fd = backend->open(NULL);
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create), 0);

    struct sgx_secinfo secinfo = {.flags = SGX_SECINFO_REG | SGX_SECINFO_R};
    const struct sgx_enclave_add_pages good = {
        .src = (uint64_t)page, .offset = 0, .length = SGX_PAGE_SIZE, .secinfo = (uint64_t)&secinfo};
    struct sgx_enclave_add_pages add;
    for (size_t i = 0; i < sizeof wrong_flags / sizeof *wrong_flags; i++) {
        secinfo.flags = wrong_flags[i];
        add = good;
        int error = ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add);
        EXPECT(error == EINVAL, "SECINFO.FLAGS %#lx gave %d", wrong_flags[i], error);
    }
    secinfo.flags = SGX_SECINFO_REG | SGX_SECINFO_R;
    secinfo.reserved[55] = 1;
    add = good;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    secinfo.reserved[55] = 0;
    add = good, add.offset = 100;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    add = good, add.offset = secs.size;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    add = good, add.length = 0;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    add = good, add.length = secs.size + SGX_PAGE_SIZE;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    add = good, add.src += 8;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    add = good, add.src = SGX_PAGE_SIZE;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EFAULT);
    add = good;
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), 0);
    add = good;
    EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EBUSY);
    EXPECT_EQUAL(add.count, 0);
}

static void eadd_refuses_a_wrong_tcs(void) {
    static struct sgx_tcs tcs __attribute__((aligned(4096)));
    static uint64_t *const wrong[] = {&tcs.flags, &tcs.ossa, &tcs.ofsbase, &tcs.ogsbase, (uint64_t *)tcs.reserved};
    struct sgx_secs secs = good_secs();
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    struct sgx_secinfo secinfo = {.flags = SGX_SECINFO_TCS};
    int fd = backend->open(NULL);
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create), 0);
    for (uint64_t i = 0; i <= sizeof wrong / sizeof *wrong; i++) {
        struct sgx_enclave_add_pages add = {
            .src = (uint64_t)&tcs, .offset = i * SGX_PAGE_SIZE, .length = SGX_PAGE_SIZE, .secinfo = (uint64_t)&secinfo};
        memset(&tcs, 0, sizeof tcs);
        if (i < sizeof wrong / sizeof *wrong) {
            *wrong[i] = 2;
            EXPECT_EQUAL(ioctl_error(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), EIO);
        } else {
            EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), 0);
        }
    }
}

static void eadd_resets_the_tcs_before_it_is_measured(void) {
    struct image image = open_image(NULL);
    struct sgx_tcs *tcs = (struct sgx_tcs *)image.data;
    tcs->state = 1, tcs->flags = 1, tcs->cssa = 1, tcs->aep = 0x1000;
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
    map_enclave(&enclave, &image);
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_SUM, 0, 0, 0), 0);
}

/* ---- mmap and open ---- */

static void mmap_gives_no_more_than_the_page_s_permissions(void) {
    struct image image = open_image(NULL);
    struct enclave_host enclave = create_enclave(&image);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
    for (uint64_t i = 0; i < image.header->page_count; i++)
        for (int prot = 0; prot <= 7; prot++) {
            const struct image_record *record = &image.records[i];
            bool is_tcs = record->flags == SGX_SECINFO_TCS;
            int most = is_tcs ? PROT_READ | PROT_WRITE : (int)(record->flags & SGX_SECINFO_PERMISSION_MASK);
            errno = 0;
            void *mapping = backend->mmap((void *)(enclave.base + record->offset), SGX_PAGE_SIZE, prot,
                                          MAP_SHARED | MAP_FIXED, enclave.fd, 0);
            EXPECT((mapping != MAP_FAILED) == !(prot & ~most), "page %#lx with PROT %d", record->offset, prot);
            EXPECT(mapping != MAP_FAILED || errno == EACCES, "page %#lx with PROT %d: errno %d", record->offset, prot,
                   errno);
        }
    EXPECT(backend->mmap((void *)(enclave.base + enclave.size), SGX_PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED,
                         enclave.fd, 0) == MAP_FAILED &&
               errno == EACCES,
           "a mapping outside ELRANGE");
    EXPECT(backend->mmap((void *)enclave.tcs[0], SGX_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, enclave.fd, 0) ==
                   MAP_FAILED &&
               errno == EINVAL,
           "a private mapping");
}

static void the_device_can_be_mapped_before_create_to_find_room(void) {
    int fd = backend->open(NULL);
    uint8_t *range = backend->mmap(NULL, 0x20000, PROT_NONE, MAP_SHARED, fd, 0);
    EXPECT(range != MAP_FAILED, "mmap: %s", strerror(errno));
    struct sgx_secs secs = good_secs();
    secs.base = ((uint64_t)range + 0xffff) & ~0xfffful;
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create), 0);
}

static void pages_added_under_a_mapping_get_its_permissions(void) {
    struct image image = open_image(NULL);
    struct sgx_secs secs = good_secs();
    int fd = backend->open(NULL);
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create), 0);
    uint8_t *range = backend->mmap((void *)secs.base, secs.size, PROT_READ | PROT_WRITE | PROT_EXEC,
                                   MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    EXPECT(range == (uint8_t *)secs.base, "mmap: %s", strerror(errno));
    struct sgx_secinfo secinfo = {.flags = SGX_SECINFO_REG | SGX_SECINFO_R};
    struct sgx_enclave_add_pages add = {.src = (uint64_t)image.data,
                                        .offset = SGX_PAGE_SIZE,
                                        .length = 2 * SGX_PAGE_SIZE,
                                        .secinfo = (uint64_t)&secinfo};
    EXPECT_EQUAL(backend->ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add), 0);
    EXPECT_EQUAL(add.count, 2 * SGX_PAGE_SIZE);
    EXPECT_EQUAL(memcmp(range + SGX_PAGE_SIZE, image.data, 2 * SGX_PAGE_SIZE), 0);
}

static void only_sgx_devices_can_be_opened(void) {
    EXPECT_EQUAL(backend->open("/dev/null"), -1);
    EXPECT_EQUAL(errno, ENOENT);
    EXPECT_EQUAL(backend->open("/dev/isgx"), -1);
    EXPECT_EQUAL(errno, ENOENT);
    EXPECT(backend->open("/dev/sgx_enclave") >= 0, "%s", strerror(errno));
    EXPECT(backend->open("/dev/sgx/enclave") >= 0, "%s", strerror(errno));
}

static void a_duplicated_descriptor_names_the_same_enclave(void) {
    struct image image = open_image(NULL);
    struct enclave_host enclave = create_enclave(&image);
    enclave.fd = dup(enclave.fd);
    EXPECT_EQUAL(init_enclave(&enclave, &image), 0);
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check build_checks[] = {
    CHECK(one_flipped_byte_has_its_error_code),
    CHECK(a_flipped_byte_in_a_page_is_an_invalid_measurement),
    CHECK(a_page_with_other_permissions_is_an_invalid_measurement),
    CHECK(a_page_that_is_not_extended_is_an_invalid_measurement),
    CHECK(pages_in_another_order_are_an_invalid_measurement),
    CHECK(another_enclave_s_sigstruct_is_an_invalid_measurement),
    CHECK(attributes_count_under_their_mask),
    CHECK(intel_and_debug_sigstructs_have_a_valid_header),
    CHECK(the_provision_key_needs_the_provision_device),
    CHECK(the_einittoken_key_is_refused),
    CHECK(ecreate_refuses_a_wrong_secs),
    CHECK(ioctls_out_of_order_are_refused),
    CHECK(add_pages_refuses_wrong_arguments),
    CHECK(eadd_resets_the_tcs_before_it_is_measured),
    CHECK(eadd_refuses_a_wrong_tcs),
    CHECK(mmap_gives_no_more_than_the_page_s_permissions),
    CHECK(the_device_can_be_mapped_before_create_to_find_room),
    CHECK(pages_added_under_a_mapping_get_its_permissions),
    CHECK(only_sgx_devices_can_be_opened),
    CHECK(a_duplicated_descriptor_names_the_same_enclave),
    {NULL, NULL},
};
