EXECUTOR_SOURCES := native/executor/executor.c native/executor/walk.c native/executor/calls.c native/executor/copy.c native/executor/agent_exec.c
EXECUTOR_HEADERS := $(wildcard native/executor/*.h) native/include/plan.h
# One compilation unit's worth of optimisation without a libc; no build id, so that the bytes depend on the sources only.
EXECUTOR_CFLAGS := $(CFLAGS_COMMON) -Os -flto -flto-partition=none -ffreestanding -nostdlib -static -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-pie -no-pie -fcf-protection=none -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,norelro -Wl,-z,noseparate-code

$(OUT)/executor: $(EXECUTOR_SOURCES) $(EXECUTOR_HEADERS) | $(OUT)
	$(CC) $(EXECUTOR_CFLAGS) -o $@ $(EXECUTOR_SOURCES)
	strip --strip-all --remove-section=.comment $@

NATIVE += $(OUT)/executor
