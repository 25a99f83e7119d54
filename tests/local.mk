# One machine each for many minutes: while they run, all others do.
TESTS += tests/vm/docs-kvm.sh tests/vm/docs-xen.sh

include tests/lib/local.mk
include tests/unit/local.mk
include tests/rpc/local.mk
include tests/ctl/local.mk
include tests/client/local.mk
include tests/survive/local.mk
include tests/vm/local.mk
include tests/fuzz/local.mk
include tests/bench/local.mk

# Rules about the tree as a whole.
tree_tests = \
	tests/demo.sh \
	tests/docs.sh \
	tests/driver.sh \
	tests/installed.sh \
	tests/layering.sh \
	tests/probes.sh \
	tests/promtool.sh \
	tests/readme.sh \
	tests/text.sh \
	tests/units.sh
dist_check_SCRIPTS += $(tree_tests)
TESTS += $(tree_tests)
