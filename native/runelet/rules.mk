RUNELET_SOURCES := $(addprefix native/runelet/,runelet.c host.c agent.c wire.c) \
	$(addprefix native/executor/,walk.c calls.c copy.c agent_exec.c)
RUNELET_HEADERS := $(wildcard native/runelet/*.h native/executor/*.h) native/include/plan.h native/include/pal.h

$(OUT)/runelet: $(RUNELET_SOURCES) $(RUNELET_HEADERS) | $(OUT)
	$(CC) $(CFLAGS_COMMON) -D_GNU_SOURCE -fPIE -pie -Wl,-z,now -o $@ $(RUNELET_SOURCES) -ldl -lpthread

NATIVE += $(OUT)/runelet

# The same with AddressSanitizer and UBSan, for the tests that send it nonsense.
RUNELET_SANITIZED := $(BUILD)/runelet-sanitized
$(RUNELET_SANITIZED): $(RUNELET_SOURCES) $(RUNELET_HEADERS) | $(BUILD)
	$(CC) $(CFLAGS_COMMON) -O1 -g -D_GNU_SOURCE -fPIE -pie -fsanitize=address,undefined -fno-sanitize-recover=all -o $@ $(RUNELET_SOURCES) -ldl -lpthread

NATIVE_TEST += $(RUNELET_SANITIZED)
