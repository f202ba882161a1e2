// What a script is told by its environment, and what it takes where it is told nothing.
//
//   LOAD=full       the load and the objectives of the service (default)
//   LOAD=short      half a minute beside other work on the same cores: the objectives that do not depend on the machine
//   BASE_URL        where numgen listens; several nodes are separated by commas, and users are spread over them
//   TOKEN           a token with the scopes numbers:issue, prefixes:read and prefixes:write
//   USERS, DURATION, PAUSE_MS=40-120, P95_MS, MIN_RATE, KEY      instead of what the script has for LOAD
//
// Not K6_DURATION or K6_VUS: k6 takes these for itself, and drops the scenarios of the script.

const profiles = ['full', 'short'];
export const profile = __ENV.LOAD || 'full';
if (!profiles.includes(profile)) {
  throw new Error(`LOAD is ${profile}; it takes ${profiles.join(' or ')}`);
}

export const bases = (__ENV.BASE_URL || 'http://127.0.0.1:8080').split(',').map((base) => base.replace(/\/+$/, ''));

export const token = __ENV.TOKEN;
if (!token) {
  throw new Error('TOKEN is missing: TOKEN=$(numgen token --scope admin --ttl 24h)');
}

/** The settings of this run: those of the chosen profile, each replaced by the environment where it says so. */
export function settings(choices) {
  const chosen = Object.assign({ pause: '40-120' }, choices[profile]);
  const replace = (name, variable, read) => {
    if (__ENV[variable]) chosen[name] = read(__ENV[variable]);
  };
  replace('users', 'USERS', Number);
  replace('duration', 'DURATION', String);
  replace('p95', 'P95_MS', Number);
  replace('rate', 'MIN_RATE', Number);
  replace('key', 'KEY', String);
  replace('pause', 'PAUSE_MS', String);
  const [least, most] = chosen.pause.split('-').map(Number);
  if (!(least >= 0 && most >= least)) {
    throw new Error(`PAUSE_MS is ${chosen.pause}; it takes two numbers of milliseconds such as 40-120`);
  }
  chosen.pause = { least, most };
  return chosen;
}

/** Options that every script has: no tag but the scenario, which is what makes k6 fast enough for two shared cores. */
export const common = {
  systemTags: ['scenario'],
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  discardResponseBodies: false,
  // A user who is cut off in the middle of a request would leave a number that nobody can account for.
  setupTimeout: '60s',
  teardownTimeout: '60s',
};

/** Long enough for the requests of a session that is under way when the time is up. */
export const gracefulStop = '30s';
