// The end of a run: one line for each figure, and whether it is what it should be.

const shown = (metric) => {
  const { type, contains, values } = metric;
  const unit = contains === 'time' ? ' ms' : '';
  if (type === 'counter') return `${Math.round(values.count)} (${values.rate.toFixed(0)}/s)`;
  if (type === 'rate') return `${(100 * values.rate).toFixed(3)} %`;
  if (type === 'trend') {
    return ['avg', 'med', 'p(95)', 'p(99)', 'max'].map((name) => `${name} ${values[name].toFixed(1)}${unit}`).join('  ');
  }
  return String(values.value);
};

/** `handleSummary` of a script. With SUMMARY=FILE, everything goes there as JSON, too. */
export function summary(name) {
  return (data) => {
    const lines = ['', `${name}: ${(data.state.testRunDurationMs / 1000).toFixed(1)} s`];
    for (const metric of Object.keys(data.metrics).sort()) {
      const all = data.metrics[metric];
      if (!all.thresholds && !['http_reqs', 'issued', 'refused', 'http_req_duration'].includes(metric)) continue;
      lines.push(`  ${metric.padEnd(26)} ${shown(all)}`);
      for (const [bound, { ok }] of Object.entries(all.thresholds || {})) {
        lines.push(`  ${''.padEnd(26)} ${ok ? 'ok    ' : 'FAILED'} ${bound}`);
      }
    }
    const out = { stdout: `${lines.join('\n')}\n` };
    if (__ENV.SUMMARY) out[__ENV.SUMMARY] = JSON.stringify(data);
    return out;
  };
}
