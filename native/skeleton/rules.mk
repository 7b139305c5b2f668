# The skeleton: the smallest enclave, its signature, and the reference PALs that host it.
SKELETON := native/skeleton
SKELETON_RUNECTL := PYTHONPATH=src $(PYTHON) -m inclavare.cli.runectl

# Nothing but the sources decides the bytes of the image: no build id, no debug information, no paths.
$(BUILD)/skeleton/encl.elf: $(SKELETON)/encl.S $(SKELETON)/encl.lds $(SKELETON)/ecall.h
	mkdir -p $(@D)
	$(CC) -c -g0 -Wa,--fatal-warnings -I$(SKELETON) -o $(@D)/encl.o $(SKELETON)/encl.S
	$(LD) -T $(SKELETON)/encl.lds --build-id=none -z noexecstack --no-warn-rwx-segments -o $@ $(@D)/encl.o

$(OUT)/skeleton/encl.bin: $(BUILD)/skeleton/encl.elf
	mkdir -p $(@D)
	objcopy -O binary $< $@
	chmod 644 $@

# A key of this checkout only, for development: MRENCLAVE is everybody's, MRSIGNER is not.
$(BUILD)/skeleton/signing_key.pem:
	mkdir -p $(@D)
	$(SKELETON_RUNECTL) keygen $@

$(OUT)/skeleton/encl.ss: $(OUT)/skeleton/encl.bin $(BUILD)/skeleton/signing_key.pem
	$(SKELETON_RUNECTL) sign --key $(BUILD)/skeleton/signing_key.pem $< $@

NATIVE += $(OUT)/skeleton/encl.bin $(OUT)/skeleton/encl.ss

SKELETON_PAL_SOURCES := $(addprefix $(SKELETON)/,pal.c enclave.c image.c process.c complain.c)
SKELETON_PAL_HEADERS := $(addprefix $(SKELETON)/,enclave.h image.h process.h complain.h ecall.h pal.map) $(addprefix native/include/,pal.h sgx_arch.h sgx_backend.h)
SKELETON_PALS := $(foreach version,1 2 3,$(OUT)/liberpal-skeleton-v$(version).so)

$(SKELETON_PALS): $(OUT)/liberpal-skeleton-v%.so: $(SKELETON_PAL_SOURCES) $(SKELETON_PAL_HEADERS) $(BUILD)/libsgxbackend.a | $(OUT)
	$(CC) $(CFLAGS_COMMON) -D_GNU_SOURCE -DPAL_VERSION=$* -fPIC -shared -Wl,--build-id=none -Wl,-z,defs -Wl,-z,now \
		-Wl,--version-script=$(SKELETON)/pal.map -o $@ $(SKELETON_PAL_SOURCES) $(BUILD)/libsgxbackend.a

NATIVE += $(SKELETON_PALS)

$(BUILD)/skeleton/drive: tests/native/skeleton/drive.c native/include/pal.h native/include/sgxemu.h
	mkdir -p $(@D)
	$(CC) $(CFLAGS_COMMON) -o $@ $<

$(BUILD)/skeleton/ecalls: tests/native/skeleton/ecalls.c $(SKELETON_PAL_SOURCES) $(SKELETON_PAL_HEADERS) $(BUILD)/libsgxbackend.a
	mkdir -p $(@D)
	$(CC) $(CFLAGS_COMMON) -D_GNU_SOURCE -I$(SKELETON) -o $@ $< $(addprefix $(SKELETON)/,enclave.c image.c complain.c) $(BUILD)/libsgxbackend.a

NATIVE_TEST += $(BUILD)/skeleton/drive $(BUILD)/skeleton/ecalls
