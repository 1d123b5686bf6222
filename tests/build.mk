# SPDX-License-Identifier: MIT
# Each tests/<area>/*.c is a program that runs in a guest; one whose name starts
# with an underscore is a part of others. Unit tests have rules of their own.

TEST_SOURCES := $(filter-out tests/lib/% tests/cli/% tests/gpu/%,\
	$(wildcard tests/*/[!_]*.c))
TEST_PROGRAMS := $(TEST_SOURCES:%.c=$(O)/%)
TEST_CFLAGS := -std=gnu11 -MMD -MP
# What several of them share.
TEST_SHARED := $(patsubst %.c,$(O)/%.o,$(wildcard tests/t_*.c))

TEST_TARGETS += $(TEST_PROGRAMS) $(SIM_CUDA) $(SIM_TESTS)

$(TEST_SHARED): $(O)/%.o: %.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(TEST_CFLAGS) -c -o $@ $<

$(TEST_PROGRAMS): $(O)/%: %.c $(TEST_SHARED)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(TEST_CFLAGS) $(LDFLAGS) \
		-o $@ $< $(TEST_SHARED) $(TEST_LIBS) -ldl -luring -lpthread

# The demo's programs are as users write them, and so are the queue's tests.
DEMO_PROGRAMS := $(filter $(O)/tests/demo/% $(O)/tests/queue/%,$(TEST_PROGRAMS))
$(DEMO_PROGRAMS): private TEST_LIBS := -L$(O)/lib -lpeerdma
$(DEMO_PROGRAMS): private CPPFLAGS += -Ilib
$(DEMO_PROGRAMS): $(O)/lib/libpeerdma.so
# One of them works with CUDA's streams.
$(O)/tests/queue/queue: private TEST_LIBS += -L$(SIM_CUDA_DIR) -lcuda
$(O)/tests/queue/queue: private CPPFLAGS += -Isim/cuda
$(O)/tests/queue/queue: $(SIM_CUDA)

# What an ioctl of the header without a row in the sweep, or in the table of what
# fails, stops the build with.
UAPI_LIST := $(O)/tests/main/uapi_list.h
$(UAPI_LIST): tests/main/uapi_list.awk include/uapi/peerdma.h
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)awk -f $^ >$@
UAPI_LISTED := $(O)/tests/main/uapi_sweep $(O)/tests/failnth/failnth
$(UAPI_LISTED): $(UAPI_LIST)
$(UAPI_LISTED): private CPPFLAGS += -I$(O)/tests/main

# With gcc alone, and without the lab: for a machine that has a GPU.
GPU_TEST := $(O)/tests/gpu/order
$(GPU_TEST): tests/gpu/order.c $(O)/lib/libpeerdma.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(TEST_CFLAGS) -D_GNU_SOURCE \
		-Ilib $(LDFLAGS) -o $@ $< $(O)/lib/libpeerdma.a -ldl -lpthread

TEST_TARGETS += $(GPU_TEST)

.PHONY: test-gpu
test-gpu: $(GPU_TEST)
	$(Q)$(GPU_TEST)

-include $(TEST_SHARED:.o=.d) $(TEST_PROGRAMS:=.d) $(GPU_TEST:=.d)
-include tests/lib/build.mk tests/cli/build.mk tests/fuzz/lib/build.mk
