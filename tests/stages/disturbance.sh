# Whether others take the processors away from what is tested here.   (sourced)
#
# A limit of time that is passed while a hypervisor runs somebody else says nothing about what was tested, and machines on which
# tests run are shared. So what failed under such conditions, and only that, is looked at a second time; what fails on a machine
# that was left alone has failed.
#
#   disturbance_begin    from now on a shell that only naps notes how much later than it wanted to it was woken
#   disturbance_end      says what was noted; true if the machine was disturbed: woken DISTURBED_PERCENT of the time too late, once
#                        by DISTURBED_MS or more, or that much of the processors' time was stolen (proc_stat(5))
DISTURBED_PERCENT=10
DISTURBED_MS=500

disturbance_begin() {
  disturbance_notes=$(mktemp)
  disturbance_stolen=$(stolen_and_all)
  naps "$disturbance_notes" &
  disturbance_pid=$!
  # Its own work has to wait for nobody but the hypervisor; who may not do this sees more disturbance than there is.
  renice -n -20 -p $disturbance_pid >/dev/null 2>&1 || :
}

disturbance_end() {
  kill $disturbance_pid 2>/dev/null || :
  wait $disturbance_pid 2>/dev/null || :
  disturbance_pid=
  local all_us=0 late_us=0 longest_us=0 stolen all before_stolen before_all
  read -r all_us late_us longest_us <"$disturbance_notes"
  rm -f "$disturbance_notes"
  read -r before_stolen before_all <<<"$disturbance_stolen"
  read -r stolen all < <(stolen_and_all)
  local late_percent=$((100 * late_us / (all_us + 1))) longest_ms=$((longest_us / 1000))
  local stolen_percent=$((100 * (stolen - before_stolen) / (all - before_all + 1)))
  echo "the machine: $late_percent % of the time nobody was run, at most $longest_ms ms at once; $stolen_percent % of the processors' time was stolen"
  [ $late_percent -ge $DISTURBED_PERCENT ] || [ $longest_ms -ge $DISTURBED_MS ] || [ $stolen_percent -ge $DISTURBED_PERCENT ]
}

# Naps until it is told to end, or whoever asked for it is gone; then it notes all that has passed, what of it was overslept, and the most at once, in microseconds.
naps() { # file
  local nap_us=20000 all_us=0 late_us=0 longest_us=0 since now late never
  trap 'echo "$all_us $late_us $longest_us" >"$1"; exit' TERM
  exec {never}<> <(:)
  since=${EPOCHREALTIME/[.,]/}
  while kill -0 $$ 2>/dev/null; do
    read -r -t 0.02 -u "$never" || :
    now=${EPOCHREALTIME/[.,]/}
    late=$((now - since - nap_us))
    ((all_us += now - since, late_us += late > 0 ? late : 0, longest_us = late > longest_us ? late : longest_us)) || :
    since=$now
  done
  rm -f "$1"
}

# Of all processors, in ticks since the start of the machine: what was stolen, and everything.
stolen_and_all() {
  local _ user nice system idle iowait irq softirq steal
  read -r _ user nice system idle iowait irq softirq steal _ </proc/stat
  echo "$steal $((user + nice + system + idle + iowait + irq + softirq + steal))"
}
