-- bench.lua
--   One settlement per request, each with its own key and its own trade.
--   Each thread of wrk numbers its own; BENCH_RUN keeps runs apart.

local threads = 0

function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local n = 0
local run = tonumber(os.getenv("BENCH_RUN") or "0")
local users = tonumber(os.getenv("BENCH_USERS") or "1000")
local headers = { ["Content-Type"] = "application/json", ["Settlement-Epoch"] = "1" }
local body = '{"trade_id":"%d-%d-%d","buyer_id":"user-%d","seller_id":"user-%d",' ..
  '"buyer_order_id":"b-%d","seller_order_id":"s-%d","base_currency":"BTC",' ..
  '"quote_currency":"USDT","base_amount":"0.001","quote_amount":"50.00025",' ..
  '"price":"50000.25","buyer_fee":"0.05","seller_fee":"0.025"}'

function request()
  n = n + 1
  -- scattered as hashed keys are, because that is what costs an index most
  local scattered = (n * 2654435761) % 4294967296
  headers["Idempotency-Key"] = string.format("%08x-%04x-4000-8000-%04x%08x",
    scattered, id, run % 65536, n)
  return wrk.format("POST", "/api/wallets/settle", headers,
    string.format(body, run, id, n, n % users, (n * 7 + 1) % users, n, n))
end
