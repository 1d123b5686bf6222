# SPDX-License-Identifier: MIT

TEST_TARGETS += $(O)/bench/file_io

$(O)/bench/file_io: bench/file_io.c $(TEST_SHARED)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(TEST_CFLAGS) $(LDFLAGS) \
		-o $@ $< $(TEST_SHARED) -ldl -luring -lpthread

-include $(O)/bench/file_io.d
