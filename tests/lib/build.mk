# SPDX-License-Identifier: MIT
# Unit tests of the library: each .c here is a program, but for the fakes. They
# run in the project's root. The caller sets O.

LIB_TEST_FAKES := $(O)/tests/lib/fake_kernel.o $(O)/tests/lib/fake_machine.o
LIB_TEST_NAMES := again buffer capture check context drive ends holes io \
	keep locks memory no_cuda queue queue_ways random reason region sized slot split stream \
	threads
LIB_TESTS := $(LIB_TEST_NAMES:%=$(O)/tests/lib/%)
LIB_TEST_CFLAGS = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib \
	-pthread -MMD -MP $(shell $(PKG_CONFIG) --cflags cmocka)
# The fake kernel stands where the library's objects call the real one.
LIB_TEST_LIBS = $(O)/lib/libpeerdma.a -Wl,--wrap=ioctl,--wrap=open64 \
	-Wl,--wrap=pread64,--wrap=pwrite64,--wrap=preadv64v2,--wrap=syscall,--wrap=poll \
	-Wl,--wrap=fstatfs64,--wrap=fstat64,--wrap=clock_gettime,--wrap=nanosleep,--wrap=fopen64 \
	-Wl,--wrap=faccessat,--wrap=geteuid,--wrap=mincore,--wrap=mmap64,--wrap=sched_getaffinity \
	$(shell $(PKG_CONFIG) --libs cmocka) -ldl -pthread
LIB_TEST_CUDA := $(O)/tests/lib/libcuda.so.1
LIB_TEST_CUDA_PARTS := $(O)/tests/lib/fake_cuda.o $(O)/tests/lib/fake_stream.o

TEST_TARGETS += $(LIB_TESTS)

$(O)/tests/lib/%.o: tests/lib/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(LIB_TEST_CFLAGS) -fPIC \
		-c -o $@ $<

$(LIB_TEST_CUDA): $(LIB_TEST_CUDA_PARTS)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -pthread \
		-Wl,-soname,libcuda.so.1 -o $@ $^

# Linked to the fake CUDA, so that dlopen() finds it loaded; no_cuda is not.
$(filter-out %/no_cuda,$(LIB_TESTS)): LIB_TEST_LIBS += \
	-Wl,--no-as-needed $(LIB_TEST_CUDA) -Wl,-rpath,'$$ORIGIN'

$(LIB_TESTS): $(O)/tests/lib/%: $(O)/tests/lib/%.o $(LIB_TEST_FAKES) \
		$(LIB_TEST_CUDA) $(O)/lib/libpeerdma.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB_TEST_FAKES) \
		$(LIB_TEST_LIBS)

-include $(LIB_TEST_FAKES:.o=.d) $(LIB_TESTS:=.d) \
	$(LIB_TEST_CUDA_PARTS:.o=.d)
