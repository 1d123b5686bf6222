# SPDX-License-Identifier: MIT
# libpeerdma: shared with a symbol map, and static. The caller sets O. A man page
# is installed under each name that it documents.

LIB_NAMES := bounce buffer check context copy cuda direct drive file holes io keep lane \
	memory pages pci pool pump queue queue_ring queue_stream queue_work reason region \
	reopen residency sized slot small spin staged stats stream uring vector
LIB_OBJECTS := $(LIB_NAMES:%=$(O)/lib/%.o)
LIB_CFLAGS := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fPIC -pthread \
	-MMD -MP

USER_TARGETS += $(O)/lib/libpeerdma.so $(O)/lib/libpeerdma.a
INSTALL_TARGETS += install-lib

$(O)/lib/%.o: lib/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(LIB_CFLAGS) -c -o $@ $<

$(O)/lib/libpeerdma.so.1: $(LIB_OBJECTS) lib/libpeerdma.map
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -pthread \
		-Wl,-soname,libpeerdma.so.1 -Wl,-z,defs \
		-Wl,--version-script=lib/libpeerdma.map -o $@ $(LIB_OBJECTS) -ldl

$(O)/lib/libpeerdma.so: $(O)/lib/libpeerdma.so.1
	$(Q)ln -sf libpeerdma.so.1 $@

$(O)/lib/libpeerdma.a: $(LIB_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJECTS)

$(O)/lib/libpeerdma.pc: lib/libpeerdma.pc.in VERSION
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' $< > $@

.PHONY: install-lib
install-lib: $(O)/lib/libpeerdma.so $(O)/lib/libpeerdma.a $(O)/lib/libpeerdma.pc
	$(Q)$(INSTALL) -D -m 644 lib/peerdma.h \
		$(DESTDIR)$(PREFIX)/include/peerdma.h
	$(Q)$(INSTALL) -D -m 755 $(O)/lib/libpeerdma.so.1 \
		$(DESTDIR)$(LIBDIR)/libpeerdma.so.1
	$(Q)ln -sf libpeerdma.so.1 $(DESTDIR)$(LIBDIR)/libpeerdma.so
	$(Q)$(INSTALL) -m 644 $(O)/lib/libpeerdma.a $(DESTDIR)$(LIBDIR)/
	$(Q)$(INSTALL) -D -m 644 $(O)/lib/libpeerdma.pc \
		$(DESTDIR)$(LIBDIR)/pkgconfig/libpeerdma.pc
	$(Q)$(INSTALL) -d $(addprefix $(DESTDIR)$(PREFIX)/share/man/man,3 4 7)
	$(Q)$(INSTALL) -m 644 docs/man/*.4 $(DESTDIR)$(PREFIX)/share/man/man4/
	$(Q)$(INSTALL) -m 644 docs/man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7/
	$(Q)$(INSTALL) -m 644 docs/man/*.3 $(DESTDIR)$(PREFIX)/share/man/man3/
	$(Q)cd $(DESTDIR)$(PREFIX)/share/man/man3 && for page in peerdma_*.3; do \
		sed -n '/^\.Nd/q;s/^\.Nm \([^ ]*\).*/\1.3/p' $$page | \
		while read -r name; do \
			[ -e $$name ] || ln -s $$page $$name; \
		done; \
	done

-include $(LIB_OBJECTS:.o=.d)
