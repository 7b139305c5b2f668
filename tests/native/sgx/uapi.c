/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the driver's interface, from Linux's header (-DFROM_KERNEL) or from ours. */
#include <stddef.h>
#include <stdio.h>

#ifdef FROM_KERNEL
#include <asm/sgx.h>
#else
#include "sgx_arch.h"
#endif

#define NUMBER(name) printf("%s %#lx\n", #name, (unsigned long)(name))
#define SIZE(type) printf("%s %zu\n", #type, sizeof(struct type))
#define OFFSET(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct type, field))

int main(void) {
    NUMBER(SGX_IOC_ENCLAVE_CREATE);
    NUMBER(SGX_IOC_ENCLAVE_ADD_PAGES);
    NUMBER(SGX_IOC_ENCLAVE_INIT);
    NUMBER(SGX_IOC_ENCLAVE_PROVISION);
    NUMBER(SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS);
    NUMBER(SGX_IOC_ENCLAVE_MODIFY_TYPES);
    NUMBER(SGX_IOC_ENCLAVE_REMOVE_PAGES);
    NUMBER(SGX_PAGE_MEASURE);
    SIZE(sgx_enclave_create);
    SIZE(sgx_enclave_add_pages);
    OFFSET(sgx_enclave_add_pages, offset);
    OFFSET(sgx_enclave_add_pages, length);
    OFFSET(sgx_enclave_add_pages, secinfo);
    OFFSET(sgx_enclave_add_pages, flags);
    OFFSET(sgx_enclave_add_pages, count);
    SIZE(sgx_enclave_init);
    SIZE(sgx_enclave_provision);
    SIZE(sgx_enclave_run);
    OFFSET(sgx_enclave_run, tcs);
    OFFSET(sgx_enclave_run, function);
    OFFSET(sgx_enclave_run, exception_vector);
    OFFSET(sgx_enclave_run, exception_error_code);
    OFFSET(sgx_enclave_run, exception_addr);
    OFFSET(sgx_enclave_run, user_handler);
    OFFSET(sgx_enclave_run, user_data);
    OFFSET(sgx_enclave_run, reserved);
    return 0;
}
