-- wrk: POSTs the same 512 bytes again and again.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '"' .. string.rep("x", 510) .. '"'
