#!/usr/bin/env bash
# Copies the groups of prometheus/{rules,alerts}.yaml into the PrometheusRule of k8s/: the operator reads no file.   tests/stages/rules.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
rule=k8s/components/monitoring/prometheusrule.yaml
# What stands below `groups:`, two further in.
groups() { sed '1,/^groups:/d; s/^\(.\)/  \1/' "$1"; }
{
  sed '/^spec:/q' $rule
  echo "  groups:"
  groups prometheus/rules.yaml
  groups prometheus/alerts.yaml
} >$rule.new
mv $rule.new $rule
