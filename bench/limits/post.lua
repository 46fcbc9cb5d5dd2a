-- post.lua: the request that every peer sends, made once (wrk alone).
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Idempotency-Key"] = "00000000-0000-4000-8000-000000000001"
wrk.headers["Settlement-Epoch"] = "1"
wrk.body = '{"trade_id":"1","buyer_id":"user-1","seller_id":"user-2","buyer_order_id":"b1","seller_order_id":"s1",' ..
  '"base_currency":"BTC","quote_currency":"USDT","base_amount":"0.0125","quote_amount":"625.003125",' ..
  '"price":"50000.25","buyer_fee":"25","seller_fee":"12.5"}'
