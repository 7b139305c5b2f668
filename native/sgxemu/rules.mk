# The software SGX platform, libsgxemu.so, and the archive by which enclave runtimes reach it or the hardware.
SGXEMU_PARTS := sgxemu device epc einit enter enclu thread signals xstate keys cmac sha256 rsa3
SGXEMU_OBJECTS := $(SGXEMU_PARTS:%=$(BUILD)/sgxemu/%.o) $(BUILD)/sgxemu/entry.o
SGXEMU_HEADERS := $(wildcard native/sgxemu/*.h) native/include/sgx_arch.h native/include/sgx_backend.h native/include/sgxemu.h
# Vector registers pass through EENTER, so C must not touch them; no stack protector, whose canary lies behind FS.
SGXEMU_CFLAGS := $(CFLAGS_COMMON) -fPIC -fvisibility=hidden -mgeneral-regs-only -mfsgsbase -fno-stack-protector -fcf-protection=none

$(BUILD)/sgxemu:
	mkdir -p $@

$(BUILD)/sgxemu/%.o: native/sgxemu/%.c $(SGXEMU_HEADERS) | $(BUILD)/sgxemu
	$(CC) $(SGXEMU_CFLAGS) -c -o $@ $<

$(BUILD)/sgxemu/%.o: native/sgxemu/%.S native/sgxemu/offsets.h | $(BUILD)/sgxemu
	$(CC) -c -o $@ $<

# nodelete: its signal handlers and thread keys must outlive dlclose.
$(OUT)/libsgxemu.so: $(SGXEMU_OBJECTS) | $(OUT)
	$(CC) -shared -Wl,-soname,libsgxemu.so -Wl,-z,now,-z,relro,-z,nodelete,-z,defs,-z,noexecstack -Wl,--build-id=none -o $@ $^
	strip --strip-unneeded --remove-section=.comment $@

NATIVE += $(OUT)/libsgxemu.so

# Position-independent objects without the emulator: what enclave runtimes link to reach either SGX.
SGXBACKEND_OBJECTS := $(BUILD)/sgxemu/backend.o $(BUILD)/sgxemu/hw.o $(BUILD)/sgxemu/hw_enter.o $(BUILD)/sgxemu/hw_entry.o
$(BUILD)/libsgxbackend.a: $(SGXBACKEND_OBJECTS)
	rm -f $@
	$(AR) rcsD $@ $^

# ---- Tests (tests/native/sgx): an enclave and its host ----
SGX_TEST := $(BUILD)/sgx-test
SGX_TEST_SOURCES := tests/native/sgx
SGX_TEST_ENCLAVE_CFLAGS := $(CFLAGS_COMMON) -ffreestanding -fPIE -fvisibility=hidden -mgeneral-regs-only -mfsgsbase -mno-red-zone \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-jump-tables -Wno-missing-prototypes

$(SGX_TEST):
	mkdir -p $@

$(SGX_TEST)/enclave.elf: $(SGX_TEST_SOURCES)/enclave.c $(SGX_TEST_SOURCES)/enclave_entry.S $(SGX_TEST_SOURCES)/enclave.lds \
		$(SGX_TEST_SOURCES)/calls.h native/include/sgx_arch.h | $(SGX_TEST)
	$(CC) $(SGX_TEST_ENCLAVE_CFLAGS) -nostdlib -static -s -Wl,--build-id=none -Wl,-z,noexecstack \
		-Wl,-T,$(SGX_TEST_SOURCES)/enclave.lds -o $@ $(filter %.c %.S,$^)

NATIVE_TEST += $(SGX_TEST)/enclave.elf

SGX_TEST_HOST := $(filter-out %/enclave.c,$(wildcard $(SGX_TEST_SOURCES)/host*.[cS] $(SGX_TEST_SOURCES)/checks_*.c))
$(SGX_TEST)/host: $(SGX_TEST_HOST) $(wildcard $(SGX_TEST_SOURCES)/*.h) $(BUILD)/sgxemu/cmac.o $(BUILD)/libsgxbackend.a native/include/sgx_arch.h | $(SGX_TEST)
	$(CC) $(CFLAGS_COMMON) -mfsgsbase -pthread -o $@ $(SGX_TEST_HOST) $(BUILD)/sgxemu/cmac.o $(BUILD)/libsgxbackend.a -ldl

NATIVE_TEST += $(SGX_TEST)/host

# What builds and checks enclaves, without what enters them: that part can run under sanitizers.
SGX_TEST_BUILDER := $(patsubst %,native/sgxemu/%.c,device epc einit keys xstate cmac sha256 rsa3)
SGX_TEST_SANITIZE := $(CFLAGS_COMMON) -g -fsanitize=address,undefined -fno-sanitize-recover=all -pthread

$(BUILD)/sgx-measure: $(SGX_TEST_SOURCES)/measure.c $(SGX_TEST_BUILDER) $(SGXEMU_HEADERS) native/sgxemu/rules.mk | $(BUILD)
	$(CC) $(SGX_TEST_SANITIZE) -o $@ $(filter %.c,$^)

$(SGX_TEST)/sigstruct-verify: $(SGX_TEST_SOURCES)/sigstruct_verify.c $(SGX_TEST_BUILDER) $(SGXEMU_HEADERS) native/sgxemu/rules.mk | $(SGX_TEST)
	$(CC) $(SGX_TEST_SANITIZE) -o $@ $(filter %.c,$^)

$(SGX_TEST)/hardware: $(SGX_TEST_SOURCES)/hardware.c $(BUILD)/libsgxbackend.a | $(SGX_TEST)
	$(CC) $(CFLAGS_COMMON) -pthread -o $@ $^ -ldl

NATIVE_TEST += $(BUILD)/sgx-measure $(SGX_TEST)/sigstruct-verify $(SGX_TEST)/hardware
