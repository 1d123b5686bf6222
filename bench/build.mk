# SPDX-License-Identifier: MIT

GUEST_BENCHES := $(O)/bench/file_io $(O)/bench/pin
TEST_TARGETS += $(GUEST_BENCHES)

$(GUEST_BENCHES): $(O)/%: %.c $(TEST_SHARED)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(TEST_CFLAGS) $(LDFLAGS) \
		-o $@ $< $(TEST_SHARED) -ldl -luring -lpthread

-include $(GUEST_BENCHES:=.d)

$(O)/bench/engine: bench/engine.c $(O)/lib/libpeerdma.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(TEST_CFLAGS) -Ilib \
		$(LDFLAGS) -o $@ $< $(O)/lib/libpeerdma.a -ldl -lpthread

TEST_TARGETS += $(O)/bench/engine
-include $(O)/bench/engine.d

# With gcc alone, and without the lab: for a machine that has a GPU.
GPU_BENCH := $(O)/bench/gpu $(O)/bench/gpu_queue
GPU_BENCH_OBJECTS := $(O)/bench/gpu.o $(O)/bench/gpu_worker.o \
	$(O)/bench/gpu_queue.o $(O)/bench/gpu_ways.o

$(GPU_BENCH_OBJECTS): $(O)/%.o: %.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(LIB_CFLAGS) -Ilib -c \
		-o $@ $<

$(O)/bench/gpu: $(O)/bench/gpu_worker.o
$(GPU_BENCH): %: %.o $(O)/bench/gpu_ways.o $(O)/lib/libpeerdma.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -pthread -o $@ $^ -ldl

TEST_TARGETS += $(GPU_BENCH)

.PHONY: bench-gpu
bench-gpu: $(GPU_BENCH)
	$(Q)bench/run-gpu $(O)/bench/gpu

-include $(GPU_BENCH_OBJECTS:.o=.d)
