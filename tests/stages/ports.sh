# Ports for the servers that stages start.   (sourced)

# A loopback port that nobody listens on, below the range that the kernel hands out to clients.
free_port() {
  local port
  while port=$((12000 + RANDOM % 18000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}
