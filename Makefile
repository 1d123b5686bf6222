# SPDX-License-Identifier: MIT
# peerdma: GNU make for user space, Kbuild for the modules, no configure.
#
#   O=DIR      where user space is built (build/user)
#   KDIR=DIR   the kernel's build folder for the modules
#   PREFIX=, DESTDIR=   for install

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

VERSION := $(shell cat VERSION)
O ?= build/user
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
KDIR ?= /lib/modules/$(shell uname -r)/build
PEERDMA_NVP2P_INCLUDE ?= $(firstword $(dir \
	$(wildcard /usr/src/nvidia-*/nvidia/nv-p2p.h)))

ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror
PKG_CONFIG ?= pkg-config
INSTALL ?= install

ifneq ($(V),1)
Q := @
say = @printf '  %-7s %s\n' '$(1)' '$(2)'
endif

USER_TARGETS :=
TEST_TARGETS :=

.PHONY: all
all: user modules

-include lib/build.mk
-include cli/build.mk
-include sim/build.mk
-include tests/build.mk
-include bench/build.mk
-include examples/build.mk

.PHONY: user
user: $(USER_TARGETS)

.PHONY: user-tests
user-tests: user $(TEST_TARGETS)

# The modules are built beside their sources' copy, so that the tree stays clean
# and several kernels do not meet in one folder.
MODULES := $(CURDIR)/build/modules

.PHONY: modules
modules:
ifeq ($(wildcard $(KDIR)/Makefile),)
	@echo "modules skipped: no kernel headers in $(KDIR);" \
		"install linux-headers-$$(uname -r) or set KDIR"
else
	$(Q)mkdir -p $(MODULES)
	$(Q)cp -au kernel include $(MODULES)/
	$(Q)$(MAKE) -C $(KDIR) M=$(MODULES)/kernel \
		PEERDMA_NVP2P_INCLUDE=$(PEERDMA_NVP2P_INCLUDE) modules
endif

.PHONY: lab
lab:
	$(Q)tests/vm/setup
	$(Q)tests/vm/build

.PHONY: demo
demo: lab
	$(Q)tests/demo/demo

# AREA=name and KERNEL=6.1|6.12|latest narrow what is run.
.PHONY: test
test: lab
	$(Q)tests/run $(if $(AREA),--area $(AREA)) $(if $(KERNEL),--kernel $(KERNEL))

.PHONY: debug-lab
debug-lab: lab
	$(Q)tests/vm/debug/setup
	$(Q)tests/vm/build --kernel debug

# The suite on the debug kernel, then which lines of kernel/ it ran.
COVERAGE := build/coverage

.PHONY: test-debug
test-debug: debug-lab
	$(Q)rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)
	$(Q)status=0; \
	PEERDMA_COVERAGE=$(CURDIR)/$(COVERAGE) tests/run --kernel debug \
		$(if $(AREA),--area $(AREA)) || status=1; \
	scripts/coverage $(if $(AREA),,--min 90) $(COVERAGE) || status=1; \
	exit $$status

# DURATION=60s, 10m or 1h; KERNEL=debug
DURATION ?= 60s

.PHONY: fuzz
fuzz: debug-lab
	$(Q)tests/vm/build --cover --kernel $(or $(KERNEL),debug)
	$(Q)tests/fuzz/run $(if $(KERNEL),--kernel $(KERNEL)) $(DURATION)

.PHONY: fuzz-lib
fuzz-lib: lab
	$(Q)tests/fuzz/run-lib $(DURATION)

.PHONY: soak
soak: debug-lab
	$(Q)tests/soak/run $(if $(KERNEL),--kernel $(KERNEL)) $(DURATION)

.PHONY: quick
quick: lab
	$(Q)tests/run --quick

.PHONY: bench
bench: lab
	$(Q)bench/run
	$(Q)bench/run-pin
	$(Q)bench/run-engine

.PHONY: check
check: lab
	$(Q)scripts/check

# What make check compares with, once a change of the ABI is meant.
.PHONY: abi
abi: lab
	$(Q)tests/vm/add-tools
	$(Q)tests/vm/enter make -s O=build/check/gcc-14 CC=gcc-14 user
	$(Q)tests/vm/enter scripts/check-user abi
	$(Q)cp build/check/abi/*.abi scripts/abi/

# Bugs planted in kernel/, each of which some test has to find.
.PHONY: mutants
mutants: debug-lab
	$(Q)tests/mutants/run

.PHONY: install
install: install-user install-modules

.PHONY: install-user
install-user: user $(INSTALL_TARGETS)
	$(Q)$(INSTALL) -D -m 644 include/uapi/peerdma.h \
		$(DESTDIR)$(PREFIX)/include/peerdma/uapi.h

.PHONY: install-modules
install-modules: modules
ifneq ($(wildcard $(KDIR)/Makefile),)
	$(Q)$(MAKE) -C $(KDIR) M=$(MODULES)/kernel \
		$(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) modules_install
endif

.PHONY: clean
clean:
	$(Q)rm -rf build
