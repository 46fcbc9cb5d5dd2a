#!/usr/bin/perl
# The wallet contract: five postings, rejections, amounts, look-up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd qw(new_key);

my $wallet = Walletd->start;
$wallet->fund_alice_and_bob;

sub rejected
{
	my ($fields, $status, $code, $name) = @_;
	my $before = $wallet->stats->{settle}{effects};
	my $reply = $wallet->settle($wallet->trade(trade_id => $name, %$fields), new_key());
	is_deeply([ $reply->{status}, $reply->{json}{code}, $wallet->stats->{settle}{effects} ],
		[ $status, $code, $before ], $name) or diag $reply->{content};
	return $reply;
}

my $key = new_key();
my $reply = $wallet->settle($wallet->trade, $key, 'Settlement-Epoch' => 1);
is($reply->{status}, 200, 'a_trade_settles');
like($reply->{json}{settlement_id}, qr/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'settlement_id_is_a_uuid');
is($reply->{json}{trade_id}, 't1', 'trade_id_is_echoed');
ok(JSON::PP::is_bool($reply->{json}{success}) && $reply->{json}{success}, 'success_is_the_boolean_true');
ok($reply->{json}{buyer_reservation_released} && $reply->{json}{seller_reservation_released},
	'reservations_are_said_to_be_released');

is_deeply([ map { "$_->{leg} $_->{account} $_->{currency} $_->{amount}" } $wallet->ledger('?trade_id=t1') ],
	[ '1 alice USDT -25025', '2 alice BTC 0.5', '3 bob BTC -0.5', '4 bob USDT 24987.5', '5 exchange USDT 37.5' ],
	'a_trade_is_five_postings');
is_deeply($wallet->balances, {
	'alice USDT' => '974975', 'alice BTC' => '0.5', 'bob USDT' => '24987.5', 'bob BTC' => '99.5',
	'exchange USDT' => '37.5', 'external USDT' => '-1000000', 'external BTC' => '-100' },
	'balances_follow_the_postings');
is_deeply($wallet->audit->{currencies}, { BTC => '0', USDT => '0' }, 'each_currency_sums_to_zero');
is($wallet->look_up($key)->{content}, $reply->{content}, 'a_look_up_gives_the_stored_answer');
is($wallet->look_up(uc $key)->{content}, $reply->{content}, 'keys_are_compared_without_case');
my $unknown = $wallet->look_up(new_key());
is_deeply([ $unknown->{status}, $unknown->{json}{code} ], [ 404, 'UNKNOWN_KEY' ], 'an_unseen_key_is_unknown');
is($wallet->look_up('nonsense')->{status}, 400, 'a_look_up_of_no_uuid_is_refused');

# rejections
my $poor = rejected({ quote_amount => '974975.000000000000000000000000000000000001', buyer_fee => '0' },
	422, 'INSUFFICIENT_BALANCE', 'a_buyer_short_of_the_smallest_unit_is_refused');
is($poor->{json}{trade_id}, 'a_buyer_short_of_the_smallest_unit_is_refused', 'a_rejection_echoes_the_trade_id');
ok($poor->{json}{error} && $poor->{json}{message}, 'a_rejection_says_why');
rejected({ quote_amount => '974975', buyer_fee => '0.1' }, 422, 'INSUFFICIENT_BALANCE', 'the_fee_counts_to_the_debit');
rejected({ base_amount => '99.6' }, 422, 'INSUFFICIENT_BALANCE', 'a_seller_short_of_base_is_refused');
rejected({ buyer_id => 'nobody' }, 422, 'USER_NOT_FOUND', 'an_unknown_buyer_is_refused');
rejected({ seller_id => 'nobody' }, 422, 'USER_NOT_FOUND', 'an_unknown_seller_is_refused');
rejected({ buyer_id => 'external' }, 422, 'USER_NOT_FOUND', 'the_source_of_deposits_cannot_trade');
rejected({ base_currency => 'ETH' }, 422, 'INSUFFICIENT_BALANCE', 'a_currency_never_held_is_a_zero_balance');

# shape
rejected({ $_ => undef }, 400, 'INVALID_REQUEST', "without_$_")
	for qw(buyer_id seller_id base_currency quote_currency base_amount quote_amount buyer_fee seller_fee);
rejected({ base_amount => $_->[0] }, 400, 'INVALID_REQUEST', "base_amount_$_->[1]") for
	[ '0', 'zero' ], [ '-1', 'negative' ], [ '1e3', 'exponent' ], [ '', 'empty' ], [ '1.', 'point_only' ],
	[ '.5', 'no_whole_part' ], [ '01', 'leading_zero' ], [ ' 1', 'blank' ], [ '+1', 'plus' ], [ 'NaN', 'nan' ],
	[ '0.' . '1' x 37, '37_decimals' ], [ '1' x 41, '41_digits' ], [ 1, 'number' ], [ '1,5', 'comma' ];
rejected({ seller_fee => '25000.1' }, 400, 'INVALID_REQUEST', 'a_seller_fee_above_the_quote_amount');
rejected({ quote_currency => 'BTC' }, 400, 'INVALID_REQUEST', 'base_and_quote_the_same');
rejected({ buyer_id => 'x' x 257 }, 400, 'INVALID_REQUEST', 'an_id_that_is_too_long');
for ([ 'not json', 'no_json' ], [ '[]', 'an_array' ], [ '', 'nothing' ], [ '{"trade_id":"a","trade_id":"b"}', 'a_repeated_member' ])
{
	my $bad = $wallet->settle($_->[0], new_key());
	is_deeply([ $bad->{status}, $bad->{json}{code} ], [ 400, 'INVALID_REQUEST' ], "a_body_that_is_$_->[1]");
}

# exact amounts
$wallet->fund('whale', 'USDT', '9' x 40, 'mint', 'DUST', '1.' . '0' x 35 . '1');
my $tiny = '0.' . '0' x 35 . '1';
is($wallet->settle($wallet->trade(trade_id => 'dust', buyer_id => 'whale', seller_id => 'mint', base_currency => 'DUST',
	base_amount => $tiny, quote_amount => '9' x 40, buyer_fee => $tiny, seller_fee => '0'), new_key())->{status},
	422, 'forty_digits_are_compared_exactly');
is($wallet->settle($wallet->trade(trade_id => 'dust2', buyer_id => 'whale', seller_id => 'mint', base_currency => 'DUST',
	base_amount => $tiny, quote_amount => '9' x 39 . '.50', buyer_fee => $tiny, seller_fee => '0.000'), new_key())->{status},
	200, 'the_widest_amounts_settle');
is_deeply([ @{ $wallet->balances('?account=mint') }{'mint DUST', 'mint USDT'} ], [ '1', '9' x 39 . '.5' ],
	'nothing_is_rounded_and_trailing_zeros_go');
is($wallet->balances('?account=whale')->{'whale USDT'}, '8' . '9' x 39 . '.4' . '9' x 35, 'to_the_last_of_76_digits');

# buyer and seller the same; a party that is the fee account
$wallet->fund(qw(self USDT 100 self BTC 1));
is($wallet->settle($wallet->trade(trade_id => 'wash', buyer_id => 'self', seller_id => 'self', base_amount => '1',
	quote_amount => '90', buyer_fee => '10', seller_fee => '5'), new_key())->{status}, 200, 'one_may_trade_with_oneself');
is_deeply([ @{ $wallet->balances('?account=self') }{'self USDT', 'self BTC'} ], [ '85', '1' ], 'and_pays_only_the_fees');
rejected({ buyer_id => 'self', seller_id => 'self', base_amount => '1', quote_amount => '85', buyer_fee => '1' },
	422, 'INSUFFICIENT_BALANCE', 'but_each_debit_must_be_covered_beforehand');
is($wallet->settle($wallet->trade(trade_id => 'house', seller_id => 'bob', buyer_id => 'exchange', base_amount => '0.001',
	quote_amount => '10', buyer_fee => '1', seller_fee => '1'), new_key())->{status}, 200, 'the_fee_account_may_trade');
my $odd = "t\x{e9}\"\\\x{1F600}\n";
is($wallet->settle($wallet->trade(trade_id => $odd), new_key())->{json}{trade_id}, $odd, 'any_text_is_a_trade_id');
is($wallet->settle($wallet->trade(trade_id => 'no-orders', buyer_order_id => undef, seller_order_id => undef,
	price => undef), new_key())->{status}, 200, 'order_ids_and_price_are_optional');

# the rest of HTTP
is($wallet->get('/nope')->{status}, 404, 'an_unknown_path_is_404');
ok(!exists $wallet->get('/nope')->{json}{code}, 'which_has_no_code_of_the_contract');
is($wallet->get('/api/wallets/settle')->{status}, 405, 'a_wrong_method_is_405');
is($wallet->settle('x' x 70000, new_key())->{status}, 413, 'a_body_that_is_too_long_is_413');

my $audit = $wallet->audit;
ok($audit->{ok}, 'the_audit_is_content') or diag explain $audit;
is($audit->{settlements}, $wallet->stats->{settle}{effects}, 'each_effect_is_in_the_ledger');
is($wallet->stop, 0, 'ends_cleanly');
done_testing;
