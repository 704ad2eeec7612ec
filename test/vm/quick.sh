#!/bin/sh
# The part of the virtual machine's tests that `make check` runs. Last line as test/vm/run has it.
exec "$(dirname "$0")/run" -q "${BUILD:-build}"
