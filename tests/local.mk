include tests/lib/local.mk
include tests/unit/local.mk
include tests/rpc/local.mk
include tests/ctl/local.mk
include tests/client/local.mk
include tests/vm/local.mk
include tests/fuzz/local.mk
include tests/bench/local.mk
