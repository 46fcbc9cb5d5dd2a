(symbol, buyer_user_id, seller_user_id, buy_order_id, sell_order_id, price, quantity, buyer_fee, seller_fee) VALUES ('BTC/USDT', 'user-1', 'user-2', 'b1', 's1', 50000.25, 0.0125, 25, 12.5)
