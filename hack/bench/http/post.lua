-- One chat request, again and again. WRK_FIELDS adds to its body, such as: "stream":true
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer sk-1234"
local fields = os.getenv("WRK_FIELDS") or ""
if fields ~= "" then fields = "," .. fields end
wrk.body = '{"model":"tiny","messages":[{"role":"system","content":"You are helpful."},'
  .. '{"role":"user","content":"Hello, please say hi in one short sentence."}],'
  .. '"max_tokens":32,"temperature":0' .. fields .. '}'

function done(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout))
end
