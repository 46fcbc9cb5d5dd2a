#!/usr/bin/perl
# Trades that cannot settle: found invalid at the INSERT, or refused by the
# wallet; and how an operator gets them settled after all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => "settlement.poll_interval = '10min'");

sub insert
{
	my ($id, %columns) = @_;
	my %row = (trade_id => "'$id'", symbol => "'BTC/USDT'", buy_order_id => "'b'", sell_order_id => "'s'",
		buyer_user_id => "'u1'", seller_user_id => "'u2'", price => '100', quantity => '1',
		buyer_fee => '0', seller_fee => '0', %columns);
	$s->engine('INSERT INTO trades (' . join(', ', sort keys %row) . ') VALUES (' .
		join(', ', map { $row{$_} } sort keys %row) . ')');
}

sub is_invalid
{
	my ($id, $error, %columns) = @_;
	insert($id, %columns);
	$s->status_is($id, 'FAILED');
	like($s->sql("SELECT settlement_error FROM trades WHERE trade_id = '$id'"), $error, 'its row says why');
	$s->dead_letter_is($id, 'FAILED invalid_trade - 0');
	like($s->sql("SELECT message FROM settlement.dlq WHERE trade_id = '$id'"), $error, 'so does the dead letter');
}

# The five of the Go service.
scenario validation => sub {
	my %case = (
		missing_buyer => [ qr/^buyer_id is (missing|empty)/, buyer_user_id => 'NULL' ],
		missing_order => [ qr/^buyer_order_id is (missing|empty)/, buy_order_id => "''" ],
		zero_quantity => [ qr/^quantity is not greater than zero/, quantity => '0' ],
		negative_price => [ qr/^price is not greater than zero/, price => '-1' ],
		malformed_symbol => [ qr/^symbol has no base and quote/, symbol => "'BTCUSDT'" ],
	);
	scenario $_ => sub { is_invalid($_, @{ $case{$_} }) } for sort keys %case;

	insert('', price => '2');
	$s->becomes("SELECT count(*) FROM settlement.dlq WHERE trade_id IS NULL AND message LIKE 'trade_id is%'", 1,
		'a trade without id is dead-lettered too');
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = ''", 'FAILED', 'and its row found by its key');
};

scenario validation_beyond => sub {
	my %case = (
		nan => [ qr/^price is NaN/, price => "'NaN'" ],
		infinite => [ qr/^quantity is Infinity/, quantity => "'Infinity'" ],
		negative_fee => [ qr/^buyer_fee is negative/, buyer_fee => '-0.1' ],
		fee_above_amount => [ qr/^seller_fee is above/, seller_fee => '100.01' ],
		no_base => [ qr/^symbol has no base/, symbol => "'/USDT'" ],
		no_quote => [ qr/^symbol has no base/, symbol => "'BTC-'" ],
		too_many_digits => [ qr/^price has more than/, price => '1e200' ],
	);
	scenario $_ => sub { is_invalid($_, @{ $case{$_} }) } for sort keys %case;
};

scenario one_bad_row_does_not_harm_its_statement => sub {
	$s->engine(<<'SQL');
INSERT INTO trades (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity)
VALUES ('mixed-1', 'BTC/USDT', 'b', 's', 'u1', 'u2', 10, 1), ('mixed-2', 'BTC/USDT', 'b', 's', 'u1', 'u2', 0, 1),
       ('mixed-3', 'BTC/USDT', 'b', 's', 'u1', 'u2', 10, 1)
SQL
	$s->settled_is('mixed', 2);
	$s->status_is('mixed-2', 'FAILED');
};

is($s->requests, 2, 'the wallet never saw an invalid trade');

scenario any_other_status_is_left_alone => sub {
	$s->sql(<<'SQL');
INSERT INTO trades (trade_id, symbol, price, quantity, settlement_status)
SELECT 'other-' || coalesce(s, 'null'), 'nonsense', -1, 0, s FROM unnest(ARRAY['SETTLED', 'FAILED', 'CANCELLED', '', NULL]) AS s
SQL
	is($s->sql(<<'SQL'), 0, 'neither queued nor dead-lettered');
SELECT count(*) FROM (SELECT trade_id FROM settlement.queue UNION ALL SELECT trade_id FROM settlement.dlq) AS t WHERE trade_id LIKE 'other%'
SQL
	$s->sql("DELETE FROM trades WHERE trade_id LIKE 'other%'");
};

scenario insufficient_balance => sub {
	$s->trade('poor', buyer => 'poor', symbol => 'BTC/USDT');
	$s->status_is('poor', 'FAILED');
	$s->dead_letter_is('poor', 'FAILED insufficient_balance INSUFFICIENT_BALANCE 1');
	is($s->sql("SELECT http_status, final_rejection, maybe_executed FROM settlement.dlq WHERE trade_id = 'poor'"), '422|t|f',
		'the wallet has said so, finally');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id = 'poor' AND outcome = 'rejected' AND http_status = 422"), 1,
		'its attempt is kept');
	is($s->effects_of('poor'), 0, 'nothing was booked');
};

scenario user_not_found => sub {
	$s->trade('lost', seller => 'nobody', symbol => 'BTC/USDT');
	$s->trade('lost too', seller => 'nobody', symbol => 'BTC/USDT');
	$s->status_is('lost', 'FAILED');
	$s->dead_letter_is($_, 'FAILED user_not_found USER_NOT_FOUND 1') for 'lost', 'lost too';
};

scenario redrive => sub {
	$s->sql("SELECT settlement.redrive('poor', 'not yet paid in')");
	$s->dead_letter_is('poor', 'FAILED insufficient_balance INSUFFICIENT_BALANCE 2', 'too early: dead again, and asked again');
	$s->wallet->fund(qw(poor USDT 1000));
	$s->sql("SELECT settlement.redrive('poor', 'paid in')");
	$s->status_is('poor', 'SETTLED');
	is($s->effects_of('poor'), 1, 'is booked once');
	is($s->sql("SELECT settlement_attempts, settlement_error IS NULL FROM trades WHERE trade_id = 'poor'"), '3|t',
		'its row has all attempts and no error any more');
	is($s->sql("SELECT string_agg(generation::text, ' ' ORDER BY at) FROM settlement.attempts WHERE trade_id = 'poor'"), '0 1',
		'each redrive took a new key');

	my ($status, undef, $err) = $s->try_sql("SELECT settlement.redrive('poor', 'again')");
	isnt($status, 0, 'what is settled cannot be redriven');
	($status, undef, $err) = $s->try_sql("SELECT settlement.redrive('lost', '')");
	like($err, qr/a reason is required/, 'nor anything without a reason');
};

scenario redrive_where => sub {
	$s->wallet->fund(qw(nobody BTC 1000));
	my $where = "settlement.redrive_where(code => 'USER_NOT_FOUND', reason => 'signed up'";
	is($s->sql("SELECT sum(matching), coalesce(sum(redriven), 0) FROM $where)"), '2|0', 'a dry run by default');
	$s->dead_letter_is('lost', 'FAILED user_not_found USER_NOT_FOUND 1', 'it changes nothing');
	$s->sql("SELECT * FROM $where, dry_run => false)");
	$s->settled_is('lost', 2);
	cmp_ok($s->sql("SELECT count(*) FROM settlement.audit_log WHERE reason = 'signed up'"), '>', 0, 'it is in the audit log');
};

scenario invalid_trades_cannot_be_redriven => sub {
	my ($status, undef, $err) = $s->try_sql("SELECT settlement.redrive('zero_quantity', 'try')");
	like($err, qr/still invalid: quantity is not greater than zero/, 'refused, and told why');
};

scenario resolve => sub {
	$s->trade('resolved', seller => 'nobody at all', symbol => 'BTC/USDT');
	$s->dead_letter_is('resolved', 'FAILED user_not_found USER_NOT_FOUND 1');
	is($s->sql("SELECT settlement.resolve('resolved', 'FAILED', NULL, 'cancelled by agreement')"), 'done', 'resolved as failed');
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'resolved'"), 0, 'is out of the DLQ');
	$s->status_is('resolved', 'FAILED');
	like($s->sql("SELECT settlement_error FROM trades WHERE trade_id = 'resolved'"), qr/cancelled by agreement/, 'and says why');
};

scenario dead_letters_harm_nobody => sub {
	$s->trades('well', 20);
	$s->settled_is('well', 20);
	$s->ledgers_are_equal;
};

done_testing();
