# SPDX-License-Identifier: MIT
# The examples, as a user would build them: the public headers where they are
# when installed, libpeerdma, and for some the CUDA driver's library. That is the
# simulator's here, which has the same name and calls; on a machine with a GPU
# the same program finds the driver's. The caller sets O.

EXAMPLES := alias gpumem hba pinpool ssd2gpu
EXAMPLE_PROGRAMS := $(EXAMPLES:%=$(O)/examples/%)
EXAMPLE_INCLUDE := $(O)/examples/include
EXAMPLE_CFLAGS := -std=gnu11 -D_FILE_OFFSET_BITS=64 -MMD -MP \
	-I$(EXAMPLE_INCLUDE) -Isim/cuda

USER_TARGETS += $(EXAMPLE_PROGRAMS)

$(EXAMPLE_PROGRAMS): private EXAMPLE_LIBS := -lpeerdma
$(O)/examples/gpumem: private EXAMPLE_LIBS := -lcuda

$(EXAMPLE_INCLUDE)/peerdma.h: lib/peerdma.h
$(EXAMPLE_INCLUDE)/peerdma/uapi.h: include/uapi/peerdma.h
$(EXAMPLE_INCLUDE)/peerdma.h $(EXAMPLE_INCLUDE)/peerdma/uapi.h:
	$(Q)mkdir -p $(@D)
	$(Q)cp $< $@

$(EXAMPLE_PROGRAMS): $(O)/%: %.c $(EXAMPLE_INCLUDE)/peerdma.h \
		$(EXAMPLE_INCLUDE)/peerdma/uapi.h $(O)/lib/libpeerdma.so \
		$(SIM_CUDA)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(EXAMPLE_CFLAGS) \
		$(LDFLAGS) -o $@ $< -L$(O)/lib -L$(SIM_CUDA_DIR) $(EXAMPLE_LIBS)

-include $(EXAMPLE_PROGRAMS:=.d)
