# The tools that `make test` works with. Raised deliberately, one commit each.
HURL_VERSION=8.0.1
LLVM_COV_VERSION=0.9.1
DENY_VERSION=0.20.2
# Percent of lines that the tests must execute.
COVERAGE_GATE=85
