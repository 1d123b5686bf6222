# SPDX-License-Identifier: MIT
# Unit tests of the command: each .c here tests the part of that name.

CLI_TEST_NAMES := progress size
CLI_TESTS := $(CLI_TEST_NAMES:%=$(O)/tests/cli/%)
CLI_TEST_CFLAGS = -std=gnu11 -MMD -MP \
	$(shell $(PKG_CONFIG) --cflags cmocka smartcols)

TEST_TARGETS += $(CLI_TESTS)

$(CLI_TESTS): $(O)/tests/cli/%: tests/cli/%.c $(O)/cli/%.o
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(CLI_TEST_CFLAGS) \
		$(LDFLAGS) -o $@ $< $(O)/cli/$*.o \
		$(shell $(PKG_CONFIG) --libs cmocka smartcols)

-include $(CLI_TESTS:=.d)
