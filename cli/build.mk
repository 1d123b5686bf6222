# SPDX-License-Identifier: MIT
# The command peerdma. The caller sets O.

CLI_PACKAGES := libpci smartcols json-c
CLI_NAMES := check copy devices info peerdma progress size
CLI_OBJECTS := $(CLI_NAMES:%=$(O)/cli/%.o)
CLI_CFLAGS = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib -MMD -MP \
	$(shell $(PKG_CONFIG) --cflags $(CLI_PACKAGES))

USER_TARGETS += $(O)/cli/peerdma
INSTALL_TARGETS += install-cli

$(O)/cli/%.o: cli/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(CLI_CFLAGS) -c -o $@ $<

$(O)/cli/peerdma: $(CLI_OBJECTS) $(O)/lib/libpeerdma.so
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(CLI_OBJECTS) -L$(O)/lib \
		-lpeerdma $(shell $(PKG_CONFIG) --libs $(CLI_PACKAGES))

.PHONY: install-cli
install-cli: $(O)/cli/peerdma
	$(Q)$(INSTALL) -D -m 755 $< $(DESTDIR)$(PREFIX)/bin/peerdma
	$(Q)$(INSTALL) -d $(DESTDIR)$(PREFIX)/share/man/man1
	$(Q)$(INSTALL) -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/

-include $(CLI_OBJECTS:.o=.d)
