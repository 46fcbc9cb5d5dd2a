json_build_object('trade_id', trade_id::text, 'buyer_id', buyer_user_id, 'seller_id', seller_user_id,
    'buyer_order_id', buy_order_id, 'seller_order_id', sell_order_id,
    'base_currency', split_part(symbol, '/', 1), 'quote_currency', split_part(symbol, '/', 2),
    'base_amount', quantity::text, 'quote_amount', (price * quantity)::text, 'price', price::text,
    'buyer_fee', buyer_fee::text, 'seller_fee', seller_fee::text)
