# SPDX-License-Identifier: MIT
# The simulator's libcuda.so.1, never installed. The caller sets O; a program that
# is to use it runs with LD_LIBRARY_PATH=$(SIM_CUDA_DIR).
SIM_CUDA_DIR := $(O)/sim
SIM_CUDA := $(SIM_CUDA_DIR)/libcuda.so.1 $(SIM_CUDA_DIR)/libcuda.so

SIM_CUDA_OBJECTS := $(patsubst %.c,$(O)/%.o,$(wildcard sim/cuda/*.c))
SIM_CUDA_CFLAGS := -std=gnu17 -fPIC -pthread -Wno-unused-parameter -MMD -MP \
	-Isim/cuda -Isim/include

$(SIM_CUDA_OBJECTS): $(O)/%.o: %.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(SIM_CUDA_CFLAGS) -c \
		-o $@ $<

$(SIM_CUDA_DIR)/libcuda.so.1: $(SIM_CUDA_OBJECTS) sim/cuda/libcuda.map
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -pthread \
		-Wl,-soname,libcuda.so.1 -Wl,-z,defs \
		-Wl,--version-script=sim/cuda/libcuda.map -o $@ \
		$(SIM_CUDA_OBJECTS)

$(SIM_CUDA_DIR)/libcuda.so: $(SIM_CUDA_DIR)/libcuda.so.1
	$(Q)ln -sf $(<F) $@

-include $(SIM_CUDA_OBJECTS:.o=.d)
