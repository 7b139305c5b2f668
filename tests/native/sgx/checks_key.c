/* SPDX-License-Identifier: Apache-2.0 */
/* EREPORT and EGETKEY: local attestation, what seal keys depend on, and the causes of faults. */
#include "host.h"

#include <string.h>

#include "../../../native/sgxemu/cmac.h"

static struct enclave_host enclave;

static struct sgx_report report_of(const struct enclave_host *from, const struct sgx_targetinfo *target) {
    struct sgx_report report;
    uint8_t reportdata[SGX_REPORTDATA_SIZE];
    memset(reportdata, 0x5a, sizeof reportdata);
    EXPECT_EQUAL(call(from->tcs[0], CALL_REPORT, (uint64_t)target, (uint64_t)reportdata, (uint64_t)&report), 0);
    return report;
}

static struct sgx_targetinfo target_of(const struct enclave_host *host) {
    struct sgx_targetinfo target = {.attributes = 0};
    struct sgx_report report = report_of(host, &target);
    memcpy(target.mrenclave, report.body.mrenclave, sizeof target.mrenclave);
    target.attributes = report.body.attributes;
    target.xfrm = report.body.xfrm;
    target.miscselect = report.body.miscselect;
    target.configsvn = report.body.configsvn;
    memcpy(target.configid, report.body.configid, sizeof target.configid);
    return target;
}

static struct sgx_keyrequest seal_request(uint16_t policy) {
    return (struct sgx_keyrequest){
        .keyname = SGX_KEY_SEAL, .keypolicy = policy, .attributes_mask = ~0ul, .xfrm_mask = ~0ul, .miscmask = ~0u};
}

struct key {
    uint8_t bytes[SGX_KEY_SIZE];
};

static uint64_t key_code(const struct enclave_host *host, const struct sgx_keyrequest *request, struct key *key) {
    return call(host->tcs[0], CALL_GETKEY, (uint64_t)request, (uint64_t)key, 0);
}

static struct key key_of(const struct enclave_host *host, const struct sgx_keyrequest *request) {
    struct key key;
    EXPECT_EQUAL(key_code(host, request, &key), SGX_SUCCESS);
    return key;
}

static bool same(struct key a, struct key b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

static void a_report_says_what_was_signed(void) {
    struct image image = open_image(NULL);
    enclave = load_enclave(NULL);
    struct sgx_targetinfo target = {.attributes = 0};
    struct sgx_report report = report_of(&enclave, &target);
    EXPECT(memcmp(report.body.mrenclave, image.sigstruct->enclavehash, 32) == 0, "another MRENCLAVE");
    EXPECT_EQUAL(report.body.attributes, SGX_ATTR_INIT | SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT);
    EXPECT_EQUAL(report.body.xfrm, 3);
    EXPECT_EQUAL(report.body.miscselect, 1);
    EXPECT_EQUAL(report.body.isvprodid, 7);
    EXPECT_EQUAL(report.body.isvsvn, 3);
    EXPECT_EQUAL(report.body.reportdata[63], 0x5a);
}

static void kss_identities_are_in_the_report(void) {
    enclave = load_enclave("kss");
    struct sgx_targetinfo target = {.attributes = 0};
    struct sgx_report report = report_of(&enclave, &target);
    EXPECT_EQUAL(report.body.isvfamilyid[0], 'F');
    EXPECT_EQUAL(report.body.isvextprodid[0], 'E');
    EXPECT_EQUAL(report.body.configid[63], 'C');
    EXPECT_EQUAL(report.body.configsvn, 5);
}

static struct key report_key(const struct enclave_host *host, const struct sgx_report *report) {
    struct sgx_keyrequest request = {.keyname = SGX_KEY_REPORT};
    memcpy(request.keyid, report->keyid, sizeof request.keyid);
    return key_of(host, &request);
}

static bool mac_is_right(const struct enclave_host *host, const struct sgx_report *report) {
    uint8_t mac[16];
    aes_cmac(report_key(host, report).bytes, &report->body, sizeof report->body, mac);
    return memcmp(mac, report->mac, sizeof mac) == 0;
}

static void another_enclave_can_check_a_report_made_for_it(void) {
    struct enclave_host other;
    enclave = load_enclave(NULL);
    other = load_enclave("other");
    struct sgx_targetinfo target = target_of(&other);
    struct sgx_report report = report_of(&enclave, &target);
    EXPECT(mac_is_right(&other, &report), "the target cannot check the report");
    EXPECT(!mac_is_right(&enclave, &report), "an enclave that is not the target can check the report");
    report.body.isvsvn++;
    EXPECT(!mac_is_right(&other, &report), "a changed report is accepted");
}

/* For the Python side: the report of this enclave for itself, in hexadecimal. */
static void print_a_report(void) {
    enclave = load_enclave(NULL);
    struct sgx_targetinfo target = target_of(&enclave);
    struct sgx_report report = report_of(&enclave, &target);
    for (size_t i = 0; i < sizeof report; i++)
        printf("%02x", ((const uint8_t *)&report)[i]);
    putchar('\n');
    struct sgx_keyrequest request = seal_request(SGX_KEYPOLICY_MRSIGNER);
    request.isvsvn = 2;
    request.keyid[0] = 0x77;
    struct key key = key_of(&enclave, &request);
    for (size_t i = 0; i < sizeof key; i++)
        printf("%02x", key.bytes[i]);
    putchar('\n');
}

static void a_seal_key_is_stable_and_depends_on_its_keyid(void) {
    enclave = load_enclave(NULL);
    struct sgx_keyrequest request = seal_request(SGX_KEYPOLICY_MRSIGNER), other = request;
    other.keyid[31] = 1;
    EXPECT(same(key_of(&enclave, &request), key_of(&enclave, &request)), "the key changes");
    EXPECT(!same(key_of(&enclave, &request), key_of(&enclave, &other)), "KEYID does not count");
}

static void seal_keys_belong_to_the_enclave_or_to_its_signer(void) {
    struct enclave_host newer, stranger;
    enclave = load_enclave(NULL);
    newer = load_enclave("avx");      /* the same code and signer */
    stranger = load_enclave("other"); /* other code, other signer */
    struct sgx_keyrequest signer = seal_request(SGX_KEYPOLICY_MRSIGNER);
    struct sgx_keyrequest code = seal_request(SGX_KEYPOLICY_MRENCLAVE);
    signer.xfrm_mask = code.xfrm_mask = 0;
    EXPECT(same(key_of(&enclave, &signer), key_of(&newer, &signer)), "one signer has two keys");
    EXPECT(same(key_of(&enclave, &code), key_of(&newer, &code)), "one MRENCLAVE has two keys");
    EXPECT(!same(key_of(&enclave, &signer), key_of(&stranger, &signer)), "two signers have one key");
    EXPECT(!same(key_of(&enclave, &code), key_of(&stranger, &code)), "two MRENCLAVEs have one key");
    EXPECT(!same(key_of(&enclave, &code), key_of(&enclave, &signer)), "the policy does not count");
    signer.xfrm_mask = ~0ul;
    EXPECT(!same(key_of(&enclave, &signer), key_of(&newer, &signer)), "XFRM does not count");
}

static void seal_keys_of_lower_versions_only(void) {
    struct enclave_host newer;
    struct key key;
    enclave = load_enclave("svn"); /* ISVSVN 9, product 8 */
    newer = load_enclave("svn");
    struct sgx_keyrequest request = seal_request(SGX_KEYPOLICY_MRSIGNER), older = request;
    request.isvsvn = 9;
    older.isvsvn = 3;
    EXPECT(!same(key_of(&enclave, &request), key_of(&enclave, &older)), "ISVSVN does not count");
    EXPECT(same(key_of(&enclave, &older), key_of(&newer, &older)), "one version has two keys");
    request.isvsvn = 10;
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_ISVSVN);
    request = seal_request(SGX_KEYPOLICY_MRSIGNER);
    request.cpusvn[15] = 0xff;
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_CPUSVN);
    request.cpusvn[15] = 1;
    EXPECT(!same(key_of(&enclave, &request), key_of(&enclave, &older)), "CPUSVN does not count");
    request = seal_request(0);
    request.configsvn = 1;
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_ISVSVN);
    request = seal_request(0);
    request.keyname = 5;
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_KEYNAME);
}

static void kss_policies_need_kss_and_count(void) {
    static const uint16_t policies[] = {SGX_KEYPOLICY_NOISVPRODID, SGX_KEYPOLICY_CONFIGID, SGX_KEYPOLICY_ISVFAMILYID,
                                        SGX_KEYPOLICY_ISVEXTPRODID};
    struct enclave_host kss;
    struct key key, plain;
    enclave = load_enclave(NULL);
    kss = load_enclave("kss");
    struct sgx_keyrequest request = seal_request(SGX_KEYPOLICY_MRSIGNER);
    plain = key_of(&kss, &request);
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        request = seal_request(SGX_KEYPOLICY_MRSIGNER | policies[i]);
        EXPECT(!same(key_of(&kss, &request), plain), "policy %#x does not count", policies[i]);
        struct sgx_enclave_run run = call_once(enclave.tcs[1 + i % 3], CALL_GETKEY, (uint64_t)&request, (uint64_t)&key);
        if (i == 3)
            break; /* TCS 1 has no frame left */
        EXPECT_EQUAL(run.function, SGX_ERESUME);
        EXPECT_EQUAL(run.exception_vector, X86_GP);
    }
    request = seal_request(SGX_KEYPOLICY_CONFIGID);
    request.configsvn = 6;
    EXPECT_EQUAL(key_code(&kss, &request, &key), SGX_INVALID_ISVSVN);
}

/* Two products of one signer, which also differ in family, product and configuration identity. */
static void siblings_share_the_keys_that_do_not_depend_on_their_difference(void) {
    static const uint16_t telling[] = {SGX_KEYPOLICY_CONFIGID, SGX_KEYPOLICY_ISVFAMILYID, SGX_KEYPOLICY_ISVEXTPRODID};
    struct enclave_host sibling;
    enclave = load_enclave("kss");
    sibling = load_enclave("kss_sibling");
    struct sgx_keyrequest request = seal_request(SGX_KEYPOLICY_MRSIGNER);
    EXPECT(!same(key_of(&enclave, &request), key_of(&sibling, &request)), "ISVPRODID does not count");
    request.keypolicy |= SGX_KEYPOLICY_NOISVPRODID;
    EXPECT(same(key_of(&enclave, &request), key_of(&sibling, &request)), "ISVPRODID counts in spite of the policy");
    for (size_t i = 0; i < sizeof telling / sizeof *telling; i++) {
        request = seal_request(SGX_KEYPOLICY_MRSIGNER | SGX_KEYPOLICY_NOISVPRODID | telling[i]);
        EXPECT(!same(key_of(&enclave, &request), key_of(&sibling, &request)), "policy %#x does not count", telling[i]);
    }
    /* CONFIGSVN counts with CONFIGID only. */
    struct sgx_keyrequest older = request = seal_request(SGX_KEYPOLICY_CONFIGID);
    request.configsvn = 5;
    EXPECT(!same(key_of(&enclave, &request), key_of(&enclave, &older)), "CONFIGSVN does not count");
}

static void provisioning_keys_need_the_attribute(void) {
    struct image image = open_image("provision");
    struct key key;
    enclave = load_enclave(NULL);
    struct sgx_keyrequest request = {.keyname = SGX_KEY_PROVISION};
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_ATTRIBUTE);
    request.keyname = SGX_KEY_PROVISION_SEAL;
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_ATTRIBUTE);
    request.keyname = SGX_KEY_EINITTOKEN;
    EXPECT_EQUAL(key_code(&enclave, &request, &key), SGX_INVALID_ATTRIBUTE);

    struct enclave_host provisioner = create_enclave(&image);
    struct sgx_enclave_provision provision = {.fd = (uint64_t)backend->open("/dev/sgx_provision")};
    EXPECT_EQUAL(backend->ioctl(provisioner.fd, SGX_IOC_ENCLAVE_PROVISION, &provision), 0);
    EXPECT_EQUAL(init_enclave(&provisioner, &image), 0);
    map_enclave(&provisioner, &image);
    request.keyname = SGX_KEY_PROVISION;
    struct key first = key_of(&provisioner, &request);
    request.keyid[0] = 1;
    EXPECT(same(key_of(&provisioner, &request), first), "the provisioning key depends on KEYID");
    request.keyname = SGX_KEY_PROVISION_SEAL;
    EXPECT(!same(key_of(&provisioner, &request), first), "two key names have one key");
}

/* ---- Faults of the leaves. The enclave's own operands are at its last data page: known to be readable. ---- */

static void expect_enclu_fault(struct test_enclu registers, uint32_t vector, const char *what) {
    uint64_t answer = call(enclave.tcs[0], CALL_ENCLU, (uint64_t)&registers, 0, 0);
    EXPECT(answer == (CAUGHT | vector), "%s gave %#lx", what, answer);
}

static void wrong_operands_of_enclu_fault(void) {
    enclave = load_enclave(NULL);
    struct image image = open_image(NULL);
    uint64_t outside = (uint64_t)image.data, absent = enclave.base + enclave.size - SGX_PAGE_SIZE;
    uint64_t data = enclave.base + image.records[image.header->page_count - 1].offset;
    uint64_t code = enclave.tcs[3] + SGX_PAGE_SIZE, tcs = enclave.tcs[3];
    expect_enclu_fault((struct test_enclu){.rax = 99}, X86_GP, "an unknown leaf");
    expect_enclu_fault((struct test_enclu){.rax = SGX_EENTER, .rbx = enclave.tcs[1]}, X86_GP, "EENTER inside");
    expect_enclu_fault((struct test_enclu){.rax = SGX_ERESUME, .rbx = enclave.tcs[1]}, X86_GP, "ERESUME inside");
    expect_enclu_fault((struct test_enclu){.rax = SGX_EEXIT, .rbx = 1ul << 50}, X86_GP, "EEXIT to nowhere");
    expect_enclu_fault((struct test_enclu){.rax = SGX_EACCEPT, .rbx = data, .rcx = data}, X86_GP, "EACCEPT");

    const struct test_enclu report = {.rax = SGX_EREPORT, .rbx = data, .rcx = data + 512, .rdx = data + 1024};
    struct test_enclu wrong = report;
    EXPECT_EQUAL(call(enclave.tcs[0], CALL_ENCLU, (uint64_t)&report, 0, 0), SGX_EREPORT);
    wrong.rbx = data + 256;
    expect_enclu_fault(wrong, X86_GP, "a misaligned TARGETINFO");
    wrong = report, wrong.rcx = data + 64;
    expect_enclu_fault(wrong, X86_GP, "misaligned REPORTDATA");
    wrong = report, wrong.rdx = data + 256;
    expect_enclu_fault(wrong, X86_GP, "a misaligned output");
    wrong = report, wrong.rdx = outside;
    expect_enclu_fault(wrong, X86_GP, "an output outside the enclave");
    wrong = report, wrong.rdx = absent;
    expect_enclu_fault(wrong, X86_PF, "an absent output");
    wrong = report, wrong.rdx = code;
    expect_enclu_fault(wrong, X86_PF, "a read-only output");
    wrong = report, wrong.rdx = tcs;
    expect_enclu_fault(wrong, X86_PF, "an output in a TCS");
    wrong = report, wrong.rbx = code; /* code is no TARGETINFO: reserved fields are not zero */
    expect_enclu_fault(wrong, X86_GP, "reserved fields of TARGETINFO");

    const struct test_enclu key = {.rax = SGX_EGETKEY, .rbx = data, .rcx = data + 512};
    wrong = key, wrong.rbx = data + 64;
    expect_enclu_fault(wrong, X86_GP, "a misaligned KEYREQUEST");
    wrong = key, wrong.rcx = data + 8;
    expect_enclu_fault(wrong, X86_GP, "a misaligned key");
    wrong = key, wrong.rbx = outside & ~511ul;
    expect_enclu_fault(wrong, X86_GP, "a KEYREQUEST outside");
    wrong = key, wrong.rcx = code;
    expect_enclu_fault(wrong, X86_PF, "a read-only key");
    EXPECT_EQUAL(stats().aex, stats().faults);
}

#define CHECK(name)                                                                                                    \
    { #name, name }
const struct check key_checks[] = {
    CHECK(a_report_says_what_was_signed),
    CHECK(kss_identities_are_in_the_report),
    CHECK(another_enclave_can_check_a_report_made_for_it),
    CHECK(print_a_report),
    CHECK(a_seal_key_is_stable_and_depends_on_its_keyid),
    CHECK(seal_keys_belong_to_the_enclave_or_to_its_signer),
    CHECK(seal_keys_of_lower_versions_only),
    CHECK(kss_policies_need_kss_and_count),
    CHECK(siblings_share_the_keys_that_do_not_depend_on_their_difference),
    CHECK(provisioning_keys_need_the_attribute),
    CHECK(wrong_operands_of_enclu_fault),
    {NULL, NULL},
};
