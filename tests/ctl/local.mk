# dmabrokerctl, with and without a daemon.
ctl_tests = tests/ctl/help-test.sh
dist_check_SCRIPTS += $(ctl_tests)
TESTS += $(ctl_tests)
