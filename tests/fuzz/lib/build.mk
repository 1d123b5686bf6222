# SPDX-License-Identifier: MIT
# Fuzz targets of user space. With FUZZER=y (make fuzz-lib: clang) they are
# libFuzzer's, else each runs its corpus as a unit test.

FUZZ_LIB := $(O)/tests/fuzz/lib
FUZZ_LIB_TARGETS := $(FUZZ_LIB)/text $(FUZZ_LIB)/options
FUZZ_LIB_MAIN := $(if $(FUZZER),,$(FUZZ_LIB)/replay.o)
FUZZ_LIB_FLAGS := $(if $(FUZZER),-fsanitize=fuzzer)

TEST_TARGETS += $(FUZZ_LIB_TARGETS)

.PHONY: fuzz-lib-targets
fuzz-lib-targets: $(FUZZ_LIB_TARGETS)

$(FUZZ_LIB)/%.o: tests/fuzz/lib/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(LIB_TEST_CFLAGS) -fPIC \
		-c -o $@ $<

$(FUZZ_LIB_TARGETS): LIB_TEST_LIBS += \
	-Wl,--no-as-needed $(LIB_TEST_CUDA) -Wl,-rpath,'$$ORIGIN/../../lib'

$(FUZZ_LIB_TARGETS): %: %.o $(FUZZ_LIB_MAIN) $(LIB_TEST_FAKES) \
		$(LIB_TEST_CUDA) $(O)/lib/libpeerdma.a $(O)/cli/size.o
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(FUZZ_LIB_FLAGS) -o $@ $< \
		$(FUZZ_LIB_MAIN) $(LIB_TEST_FAKES) $(O)/cli/size.o \
		$(LIB_TEST_LIBS)

-include $(FUZZ_LIB_TARGETS:=.d) $(FUZZ_LIB)/replay.d
