/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the software platform: EREPORT's MAC and EGETKEY.
 *
 * The inputs and checks of a key are the SDM's (EGETKEY and EREPORT, "Operation"); the processor's secrets are made up
 * from the seed. Whoever knows the seed can derive every key: that is intended (the quoting service of a host needs
 * the report key of its enclave) and one of the reasons why the software platform protects nothing.
 *
 * The derivation, for programs that repeat it (docs/sgxemu.md has an example):
 *
 *     secret(label)   = SHA-256(seed || label), label in ASCII without its NUL
 *     root_key        = secret("sgxemu root key")[0:16]
 *     seal_fuses      = secret("sgxemu seal fuses")[0:16]
 *     owner_epoch     = secret("sgxemu owner epoch")[0:16]
 *     report_keyid    = secret("sgxemu report keyid")
 *     key             = AES-128-CMAC(root_key, struct key_dependencies)
 *     REPORT.MAC      = AES-128-CMAC(report key of the target, REPORT[0:384])
 *
 * For a report key all fields of struct key_dependencies are 0 but key_name = 3, owner_epoch, seal_fuses,
 * cpusvn = platform_cpusvn, keyid = REPORT.KEYID, and attributes, xfrm, miscselect, mrenclave, configid and configsvn
 * of the enclave that is to check the report (for EREPORT: from TARGETINFO; for EGETKEY: from its SECS).
 */
#include "keys.h"

#include <stdbool.h>
#include <string.h>

#include "bytes.h"
#include "cmac.h"
#include "sha256.h"

/* Little endian, without padding: the wire format of the derivation above. */
struct key_dependencies {
    uint16_t key_name;
    uint16_t key_policy;
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint16_t configsvn;
    uint16_t reserved1;
    uint32_t miscselect;
    uint32_t miscmask;
    uint32_t reserved2;
    uint64_t attributes;
    uint64_t xfrm;
    uint64_t attributes_mask;
    uint64_t xfrm_mask;
    uint8_t owner_epoch[16];
    uint8_t cpusvn[16];
    uint8_t isvfamilyid[16];
    uint8_t isvextprodid[16];
    uint8_t mrenclave[32];
    uint8_t mrsigner[32];
    uint8_t keyid[32];
    uint8_t configid[64];
    uint8_t seal_fuses[16];
};
SGX_CHECK_SIZE(key_dependencies, 296);
SGX_CHECK_OFFSET(key_dependencies, attributes, 24);
SGX_CHECK_OFFSET(key_dependencies, owner_epoch, 56);
SGX_CHECK_OFFSET(key_dependencies, mrenclave, 120);

const uint8_t platform_cpusvn[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static struct {
    uint8_t root_key[16];
    uint8_t seal_fuses[16];
    uint8_t owner_epoch[16];
    uint8_t report_keyid[32];
} secrets;

static void derive_secret(const uint8_t *seed, unsigned seed_size, const char *label, uint8_t *secret, unsigned size) {
    struct sha256 hash;
    uint8_t digest[SHA256_SIZE];
    sha256_init(&hash);
    sha256_update(&hash, seed, seed_size);
    sha256_update(&hash, label, strlen(label));
    sha256_final(&hash, digest);
    memcpy(secret, digest, size);
}

void keys_init(const uint8_t *seed, unsigned seed_size) {
    derive_secret(seed, seed_size, "sgxemu root key", secrets.root_key, sizeof secrets.root_key);
    derive_secret(seed, seed_size, "sgxemu seal fuses", secrets.seal_fuses, sizeof secrets.seal_fuses);
    derive_secret(seed, seed_size, "sgxemu owner epoch", secrets.owner_epoch, sizeof secrets.owner_epoch);
    derive_secret(seed, seed_size, "sgxemu report keyid", secrets.report_keyid, sizeof secrets.report_keyid);
}

static void finish_key(struct key_dependencies *inputs, uint8_t key[SGX_KEY_SIZE]) {
    aes_cmac(secrets.root_key, inputs, sizeof *inputs, key);
}

/* The key with which the enclave described by target checks reports made for it. */
static void derive_report_key(const struct sgx_targetinfo *target, const uint8_t keyid[32], uint8_t key[SGX_KEY_SIZE]) {
    struct key_dependencies inputs = {
        .key_name = SGX_KEY_REPORT,
        .attributes = target->attributes,
        .xfrm = target->xfrm,
        .miscselect = target->miscselect,
        .configsvn = target->configsvn,
    };
    memcpy(inputs.owner_epoch, secrets.owner_epoch, sizeof inputs.owner_epoch);
    memcpy(inputs.seal_fuses, secrets.seal_fuses, sizeof inputs.seal_fuses);
    memcpy(inputs.cpusvn, platform_cpusvn, sizeof inputs.cpusvn);
    memcpy(inputs.mrenclave, target->mrenclave, sizeof inputs.mrenclave);
    memcpy(inputs.keyid, keyid, sizeof inputs.keyid);
    memcpy(inputs.configid, target->configid, sizeof inputs.configid);
    finish_key(&inputs, key);
}

void make_report(const struct enclave_identity *identity, const struct sgx_targetinfo *target,
                 const uint8_t reportdata[SGX_REPORTDATA_SIZE], struct sgx_report *report) {
    const struct sgx_secs *secs = &identity->secs;
    struct sgx_report_body *body = &report->body;
    uint8_t key[SGX_KEY_SIZE];

    memset(report, 0, sizeof *report);
    memcpy(body->cpusvn, platform_cpusvn, sizeof body->cpusvn);
    body->miscselect = secs->miscselect;
    memcpy(body->isvextprodid, identity->isvextprodid, sizeof body->isvextprodid);
    body->attributes = secs->attributes;
    body->xfrm = secs->xfrm;
    memcpy(body->mrenclave, secs->mrenclave, sizeof body->mrenclave);
    memcpy(body->mrsigner, secs->mrsigner, sizeof body->mrsigner);
    memcpy(body->configid, secs->configid, sizeof body->configid);
    body->isvprodid = secs->isvprodid;
    body->isvsvn = secs->isvsvn;
    body->configsvn = secs->configsvn;
    memcpy(body->isvfamilyid, identity->isvfamilyid, sizeof body->isvfamilyid);
    memcpy(body->reportdata, reportdata, sizeof body->reportdata);
    memcpy(report->keyid, secrets.report_keyid, sizeof report->keyid);
    derive_report_key(target, report->keyid, key);
    aes_cmac(key, body, sizeof *body, report->mac);
}

/* Each byte is one component's version, so a request is refused when it asks for more than one of them has. */
static bool cpusvn_is_beyond_platform(const uint8_t cpusvn[16]) {
    for (int i = 0; i < 16; i++)
        if (cpusvn[i] > platform_cpusvn[i])
            return true;
    return false;
}

static enum sgx_error check_versions(const struct sgx_secs *secs, const struct sgx_keyrequest *request) {
    if (cpusvn_is_beyond_platform(request->cpusvn))
        return SGX_INVALID_CPUSVN;
    if (request->isvsvn > secs->isvsvn)
        return SGX_INVALID_ISVSVN;
    return SGX_SUCCESS;
}

/* What every key but the report key depends on. INIT and DEBUG always count, whatever the mask says. */
static struct key_dependencies common_inputs(const struct sgx_secs *secs, const struct sgx_keyrequest *request) {
    struct key_dependencies inputs = {
        .key_name = request->keyname,
        .isvprodid = secs->isvprodid,
        .isvsvn = request->isvsvn,
        .attributes = secs->attributes & (request->attributes_mask | SGX_ATTR_INIT | SGX_ATTR_DEBUG),
        .xfrm = secs->xfrm & request->xfrm_mask,
        .attributes_mask = request->attributes_mask,
        .xfrm_mask = request->xfrm_mask,
        .miscselect = secs->miscselect & request->miscmask,
        .miscmask = ~request->miscmask,
    };
    memcpy(inputs.cpusvn, request->cpusvn, sizeof inputs.cpusvn);
    return inputs;
}

static int derive_seal_key(const struct enclave_identity *identity, const struct sgx_keyrequest *request,
                           uint8_t key[SGX_KEY_SIZE]) {
    const struct sgx_secs *secs = &identity->secs;
    uint16_t policy = request->keypolicy;
    struct key_dependencies inputs = common_inputs(secs, request);

    if (request->configsvn > secs->configsvn)
        return SGX_INVALID_ISVSVN;
    inputs.key_policy = policy;
    if (policy & SGX_KEYPOLICY_NOISVPRODID)
        inputs.isvprodid = 0;
    if (policy & SGX_KEYPOLICY_MRENCLAVE)
        memcpy(inputs.mrenclave, secs->mrenclave, sizeof inputs.mrenclave);
    if (policy & SGX_KEYPOLICY_MRSIGNER)
        memcpy(inputs.mrsigner, secs->mrsigner, sizeof inputs.mrsigner);
    if (policy & SGX_KEYPOLICY_CONFIGID) {
        memcpy(inputs.configid, secs->configid, sizeof inputs.configid);
        inputs.configsvn = request->configsvn;
    }
    if (policy & SGX_KEYPOLICY_ISVFAMILYID)
        memcpy(inputs.isvfamilyid, identity->isvfamilyid, sizeof inputs.isvfamilyid);
    if (policy & SGX_KEYPOLICY_ISVEXTPRODID)
        memcpy(inputs.isvextprodid, identity->isvextprodid, sizeof inputs.isvextprodid);
    memcpy(inputs.owner_epoch, secrets.owner_epoch, sizeof inputs.owner_epoch);
    memcpy(inputs.keyid, request->keyid, sizeof inputs.keyid);
    memcpy(inputs.seal_fuses, secrets.seal_fuses, sizeof inputs.seal_fuses);
    finish_key(&inputs, key);
    return SGX_SUCCESS;
}

int derive_key(const struct enclave_identity *identity, const struct sgx_keyrequest *request,
               uint8_t key[SGX_KEY_SIZE]) {
    const struct sgx_secs *secs = &identity->secs;
    const uint16_t policy_kss =
        SGX_KEYPOLICY_NOISVPRODID | SGX_KEYPOLICY_CONFIGID | SGX_KEYPOLICY_ISVFAMILYID | SGX_KEYPOLICY_ISVEXTPRODID;
    const uint16_t policy_known = SGX_KEYPOLICY_MRENCLAVE | SGX_KEYPOLICY_MRSIGNER | policy_kss;
    enum sgx_error error;

    /* CET is not there, so its mask counts as reserved. */
    if (request->cet_attributes_mask || request->reserved1 || !is_zero(request->reserved2, sizeof request->reserved2) ||
        (request->keypolicy & ~policy_known))
        return -1;
    if ((request->keypolicy & policy_kss) && !(secs->attributes & SGX_ATTR_KSS))
        return -1;

    switch (request->keyname) {
    case SGX_KEY_REPORT: {
        struct sgx_targetinfo self = {
            .attributes = secs->attributes,
            .xfrm = secs->xfrm,
            .miscselect = secs->miscselect,
            .configsvn = secs->configsvn,
        };
        memcpy(self.mrenclave, secs->mrenclave, sizeof self.mrenclave);
        memcpy(self.configid, secs->configid, sizeof self.configid);
        derive_report_key(&self, request->keyid, key);
        return SGX_SUCCESS;
    }
    case SGX_KEY_SEAL:
        error = check_versions(secs, request);
        return error ? (int)error : derive_seal_key(identity, request, key);
    case SGX_KEY_EINITTOKEN:
    case SGX_KEY_PROVISION:
    case SGX_KEY_PROVISION_SEAL: {
        bool is_token = request->keyname == SGX_KEY_EINITTOKEN;
        if (!(secs->attributes & (is_token ? SGX_ATTR_EINITTOKENKEY : SGX_ATTR_PROVISIONKEY)))
            return SGX_INVALID_ATTRIBUTE;
        error = check_versions(secs, request);
        if (error)
            return (int)error;
        /* Provisioning keys outlive the owner, so they depend neither on the owner epoch nor on KEYID. */
        struct key_dependencies inputs = common_inputs(secs, request);
        memcpy(inputs.mrsigner, secs->mrsigner, sizeof inputs.mrsigner);
        if (is_token) {
            memcpy(inputs.owner_epoch, secrets.owner_epoch, sizeof inputs.owner_epoch);
            memcpy(inputs.keyid, request->keyid, sizeof inputs.keyid);
        }
        if (request->keyname != SGX_KEY_PROVISION)
            memcpy(inputs.seal_fuses, secrets.seal_fuses, sizeof inputs.seal_fuses);
        finish_key(&inputs, key);
        return SGX_SUCCESS;
    }
    default:
        return SGX_INVALID_KEYNAME;
    }
}
