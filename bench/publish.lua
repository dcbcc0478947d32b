-- wrk: publishes events of the types bench.0 … in turn, each with so many bytes of data.
--   wrk -s publish.lua URL -- PATH KEY TYPES BYTES
local KEPT_BYTES_MAX = 64 * 1024 * 1024
local path, data, types, at, kept = nil, nil, 0, 0, {}

local function format(type)
  return wrk.format(nil, path, nil, string.format('{"type":"bench.%d","data":"%s"}', type, data))
end

function init(args)
  path = args[1]
  wrk.method = "POST"
  wrk.headers["Authorization"] = "Bearer " .. args[2]
  wrk.headers["Content-Type"] = "application/json"
  types = tonumber(args[3])
  data = string.rep("x", tonumber(args[4]) - 2)
  -- Made beforehand where they fit: what wrk spends is missing to what it measures.
  for i = 0, types - 1 do
    if (i + 1) * #data < KEPT_BYTES_MAX then kept[i] = format(i) end
  end
end

function request()
  local type = at
  at = (at + 1) % types
  return kept[type] or format(type)
end
