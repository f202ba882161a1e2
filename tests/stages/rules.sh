#!/usr/bin/env bash
# Copies the groups of prometheus/alerts.yaml into the PrometheusRule of k8s/: the operator reads no file.   tests/stages/rules.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
rule=k8s/components/monitoring/prometheusrule.yaml
head=$(sed '/^spec:/q' $rule)
{
  echo "$head"
  # From `groups:` on, two further in.
  sed -n '/^groups:/,$p' prometheus/alerts.yaml | sed 's/^\(.\)/  \1/'
} >$rule.new
mv $rule.new $rule
