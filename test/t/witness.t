#!/usr/bin/perl
# The comparison with the wallet's ledger, on which all scenarios rely, notices
# what it is there for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;
use Walletd qw(new_key);

my $s = Settlement->start;
$s->trades('good', 5, symbol => 'BTC/USDT', buyer => 'u1', seller => 'u2');
$s->settled_is('good', 5);
$s->ledgers_are_equal;

sub differences_are { my ($expected, $name) = @_; like($s->ledger_differences, qr/^$expected/, $name) }

$s->sql("UPDATE trades SET price = price + 0.00000001 WHERE trade_id = 'good-2'");
differences_are('lost 0, doubled 0, unknown to the database 0, other settlement id 0, postings that differ 2, balances that differ 2',
	'a price that differs in the last digit');
$s->sql("UPDATE trades SET price = price - 0.00000001 WHERE trade_id = 'good-2'");

$s->sql("UPDATE trades SET settlement_id = 'x' WHERE trade_id = 'good-2'");
differences_are('lost 0, doubled 0, unknown to the database 0, other settlement id 1, postings that differ 0', 'another settlement id');
$s->sql("UPDATE trades SET settlement_id = (SELECT settlement_id FROM witness.ledger WHERE trade_id = 'good-2' LIMIT 1) WHERE trade_id = 'good-2'");
$s->ledgers_are_equal('as before');

$s->sql("ALTER TABLE trades DISABLE TRIGGER settlement_enqueue; SELECT put('never sent'); UPDATE trades SET settlement_status = 'SETTLED' WHERE trade_id = 'never sent'");
differences_are('lost 1,', 'a trade that was never paid');
$s->sql("DELETE FROM trades WHERE trade_id = 'never sent'");

$s->sql("UPDATE trades SET settlement_status = 'FAILED' WHERE trade_id = 'good-3'");
differences_are('lost 0, doubled 0, unknown to the database 1,', 'a trade that was paid, but failed for the database');
$s->sql("UPDATE trades SET settlement_status = 'SETTLED' WHERE trade_id = 'good-3'");

is($s->wallet->settle($s->wallet->trade(trade_id => 'good-1', buyer_id => 'u1', seller_id => 'u2'), new_key())->{status}, 200, 'pay a trade again');
differences_are('lost 0, doubled 1,', 'a trade that was paid twice');

done_testing();
