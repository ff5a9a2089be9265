-- Sends one request over and over, with wrk:  wrk ... -s wrk.lua URL -- METHOD BODY-FILE [HEADER VALUE]...
-- and prints the results as one line of JSON; latencies in microseconds.
function init(arguments)
  wrk.method = arguments[1]
  local file = assert(io.open(arguments[2], "rb"))
  wrk.body = file:read("*a")
  file:close()
  for i = 3, #arguments, 2 do
    wrk.headers[arguments[i]] = arguments[i + 1]
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50": %d, "p99": %d, "refused": %d, "broken": %d, "late": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write, e.timeout))
end
