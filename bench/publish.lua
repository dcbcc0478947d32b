-- wrk: publishes events of the types bench.0 … in turn, each with 512 bytes of data.
--   wrk -s publish.lua URL -- PATH KEY TYPES
local bodies, path, at = {}, nil, 0

function init(args)
  path = args[1]
  wrk.method = "POST"
  wrk.headers["Authorization"] = "Bearer " .. args[2]
  wrk.headers["Content-Type"] = "application/json"
  for i = 1, tonumber(args[3]) do
    bodies[i] = string.format('{"type":"bench.%d","data":"%s"}', i - 1, string.rep("x", 510))
  end
end

function request()
  at = at % #bodies + 1
  return wrk.format(nil, path, nil, bodies[at])
end
