-- wrk: POSTs the same bytes again and again.
--   wrk -s sink.lua URL -- BYTES
function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = '"' .. string.rep("x", tonumber(args[1]) - 2) .. '"'
  request_text = wrk.format()
end

function request()
  return request_text
end
