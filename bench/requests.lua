-- wrk -s requests.lua URL -- FILE: asks for the targets in FILE one after another, each thread from a place of
-- its own. The requests are rendered once, so that wrk spends its time on the wire. Prints one line of figures.

local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

local rendered, at = {}, 0

function init(args)
   for target in io.lines(args[1]) do
      rendered[#rendered + 1] = wrk.format("GET", target)
   end
   at = (number * 37507) % #rendered
end

function request()
   at = at % #rendered + 1
   return rendered[at]
end

function done(summary, latency)
   local e = summary.errors
   print(string.format("figures requests=%d bytes=%d duration_us=%d p50_us=%d p99_us=%d errors=%d",
      summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
      e.connect + e.read + e.write + e.status + e.timeout))
end
