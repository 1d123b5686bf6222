# SPDX-License-Identifier: MIT
# The simulator's user space and its own tests: programs for a guest with
# simgpu.ko, which print TAP. The caller sets O.
include sim/cuda/build.mk

SIM_TESTS := $(patsubst %.c,$(O)/%,$(wildcard sim/test/*.c))

$(SIM_TESTS): $(O)/%: %.c $(SIM_CUDA)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) -std=gnu17 -pthread \
		-Wno-unused-parameter -MMD -MP -Isim/cuda -Isim/include \
		$(LDFLAGS) -o $@ $< -L$(SIM_CUDA_DIR) -lcuda

-include $(SIM_TESTS:=.d)
