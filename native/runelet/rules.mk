RUNELET_SOURCES := $(addprefix native/runelet/,runelet.c host.c agent.c wire.c) \
	$(addprefix native/executor/,walk.c calls.c agent_exec.c)
RUNELET_HEADERS := $(wildcard native/runelet/*.h native/executor/*.h) native/include/plan.h native/include/pal.h

$(OUT)/runelet: $(RUNELET_SOURCES) $(RUNELET_HEADERS) | $(OUT)
	$(CC) $(CFLAGS_COMMON) -D_GNU_SOURCE -fPIE -pie -Wl,-z,now -o $@ $(RUNELET_SOURCES) -ldl -lpthread

NATIVE += $(OUT)/runelet
