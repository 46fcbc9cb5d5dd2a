# settlement: PGXS build.  `make demo` and `make test` do everything by themselves.
EXTENSION = settlement
EXTVERSION = 0.1
MODULE_big = settlement
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/policy/*.c src/wallet/*.c src/shared/*.c \
         src/queue/*.c src/worker/*.c src/api/*.c))
SQL_PARTS = tables tally shared columns attach apply flow verbs dlq redrive resolve redrives policies inspect words obstacles find explain timeline evidence doctor steer metrics grants
DATA_built = settlement--$(EXTVERSION).sql
# 13 to 15 leave PGDLLEXPORT empty; with hidden visibility it has to mean something.
PG_CPPFLAGS = -I$(srcdir)/src '-DPGDLLEXPORT=__attribute__((visibility("default")))'
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
            -Wno-missing-field-initializers -Wno-clobbered -fvisibility=hidden
SHLIB_LINK = -lcurl -ljansson -luuid -lcrypto
# Outputs are in expected/; the server has settlement in shared_preload_libraries.
REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
EXTRA_CLEAN = settlement--$(EXTVERSION).sql

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

settlement--$(EXTVERSION).sql: $(SQL_PARTS:%=sql/%.sql)
	{ printf '%s\n' '\echo Use "CREATE EXTENSION settlement" to load this file. \quit'; cat $^; } > $@

# Every object sees every header change: small project, honest builds.
$(OBJS): $(wildcard src/*.h src/*/*.h)

# These install what they need and build in a directory of their own.
demo test coverage check-layers:
	scripts/$@

# The pure parts and the wallet client under valgrind.
valgrind:
	scripts/test --valgrind unit client

# The same, and whole clusters, with address and undefined behaviour sanitizers.
sanitize:
	scripts/test --sanitize unit client tap

# libFuzzer on the parser of the wallet's replies, FUZZ_RUNS times (1000000).
fuzz:
	scripts/install-deps --fuzz
	$(MAKE) -C test/unit fuzz

.PHONY: demo test coverage check-layers valgrind sanitize fuzz
