#!/usr/bin/perl
# The final check of the fault harness sees each kind of violation, names the
# trade, and tells its story.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib", "$FindBin::Bin/../chaos/lib";
use Ledgers;
use Settlement;
use Test::More;
use Walletd qw(new_key);

my $s = Settlement->start(conf => "settlement.attempt_history = all\n");
my $directory = $s->node->basedir;

# A second attached table, so that the trades come from a query.
$s->sql(<<'SQL');
SET ROLE exchange;
CREATE TABLE public.more_trades (LIKE public.trades INCLUDING DEFAULTS);
ALTER TABLE public.more_trades ADD PRIMARY KEY (trade_id);
RESET ROLE;
SQL
my $columns = join ', ', qw(trade_id symbol buyer_user_id seller_user_id price quantity buyer_fee seller_fee
	settlement_status settlement_id);
$s->sql("ALTER TABLE public.more_trades DROP COLUMN IF EXISTS $_") for split /\n/,
	$s->sql("SELECT attname FROM pg_attribute WHERE attrelid = 'public.more_trades'::regclass AND attname LIKE 'settle%'");
$s->attach('public.more_trades');
my $query = "SELECT $columns FROM public.trades UNION ALL SELECT $columns FROM public.more_trades";

sub write_ids
{
	my ($name, @ids) = @_;
	open my $out, '>', "$directory/$name" or die $!;
	print $out map { "$_\n" } @ids;
	close $out;
	return "$directory/$name";
}

$s->trades('good', 10, symbol => 'BTC/USDT', buyer => 'u1', seller => 'u2');
$s->trade('refused', buyer => 'poor');
$s->sql(q{INSERT INTO public.more_trades (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity)
	VALUES ('other', 'ETH/USDT', 'b', 's', 'u3', 'u4', 10, 2)});
$s->settled_is('good', 10);
$s->status_is('refused', 'FAILED');
$s->becomes("SELECT settlement_status FROM more_trades", 'SETTLED', 'the other table settles');
$s->at_rest(1);

my @all = ((map { "good-$_" } 1 .. 10), 'refused');
my $acknowledged = write_ids('acknowledged', @all, 'good-1');
my $ledgers = Ledgers->new(node => $s->node, wallet => $s->wallet, trades => $query,
	acknowledged => $acknowledged, maybe => write_ids('maybe', 'other', 'never committed'));

# What the check finds, in a form to compare: only what is not empty.
sub found
{
	my $found = $ledgers->check;
	return { map { $_ => $found->{$_} } grep { @{ $found->{$_} } } keys %{ $found->{counts} } };
}

my $sound = $ledgers->check;
is($sound->{violations}, 0, 'nothing is wrong with a sound state') or diag(explain($sound));
is_deeply([ @$sound{qw(trades settled dead unknown maybe_committed maybe_absent)} ], [ 12, 11, 1, 0, 1, 1 ], 'it counts');

# Each breaks one thing, is seen, and is mended.
sub breaks
{
	my ($name, $break, $expected, $mend) = @_;
	$s->sql($break);
	is_deeply(found(), $expected, $name) or diag(explain(found()));
	$s->sql($mend);
	return;
}

my ($id) = $s->sql("SELECT settlement_id FROM trades WHERE trade_id = 'good-1'");

$s->sql("CREATE TABLE kept AS SELECT * FROM trades WHERE trade_id IN ('good-1', 'refused')");
$s->sql("DELETE FROM trades WHERE trade_id = 'good-1'");
is_deeply([ sort keys %{ found() } ], [ qw(balance_differences lost phantom) ], 'a paid trade whose row is gone');
$s->sql("INSERT INTO trades SELECT * FROM kept WHERE trade_id = 'good-1'");
$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'good-1'", 'SETTLED', 'a row that comes back settles');
$s->at_rest(1);
is($ledgers->check->{violations}, 0, 'once');

breaks('an acknowledged trade without a row', "ALTER TABLE trades DISABLE TRIGGER settlement_enqueue; DELETE FROM trades WHERE trade_id = 'refused'",
	{ lost => ['refused'] }, "INSERT INTO trades SELECT * FROM kept WHERE trade_id = 'refused'");
breaks('a trade that nothing will ever end', "UPDATE trades SET settlement_status = 'PENDING' WHERE trade_id = 'refused'",
	{ lost => ['refused'], not_terminal => ['refused'],
		state_differences => ['refused: the row says PENDING, but it is a dead letter'] },
	"UPDATE trades SET settlement_status = 'FAILED' WHERE trade_id = 'refused'");
breaks('a trade that failed, but was paid', "UPDATE more_trades SET settlement_status = 'FAILED', quantity = 0",
	{ balance_differences => [ 'u3 ETH: the wallet has 1000000002, should have 1000000000', 'u3 USDT: the wallet has 999999980, should have 1000000000',
			'u4 ETH: the wallet has 999999998, should have 1000000000', 'u4 USDT: the wallet has 1000000020, should have 1000000000' ],
		state_differences => [ 'other: the row says FAILED, but there is no dead letter and no act of an operator',
			'other: the row says FAILED, the wallet paid as ' . $s->sql("SELECT settlement_id FROM more_trades") ] },
	"UPDATE more_trades SET settlement_status = 'SETTLED', quantity = 2");
breaks('a trade that settled, but was not paid', "INSERT INTO trades (trade_id, symbol, buyer_user_id, seller_user_id, price, quantity, settlement_status)
		VALUES ('never', 'BTC/USDT', 'u1', 'u1', 1, 1, 'SETTLED')",
	{ unannounced => ['never'], state_differences => ['never: the row says SETTLED, the wallet did not pay'] },
	"DELETE FROM trades WHERE trade_id = 'never'");
breaks('another settlement id', "UPDATE trades SET settlement_id = 'x' WHERE trade_id = 'good-1'",
	{ state_differences => ["good-1: the row says settlement x, the wallet $id"] },
	"UPDATE trades SET settlement_id = '$id' WHERE trade_id = 'good-1'");
$s->sql("UPDATE trades SET quantity = quantity + 0.00000001 WHERE trade_id = 'good-2'");
my $found = found();
is(scalar @{ $found->{state_differences} // [] }, 4, 'an amount that differs in the last digit, in four postings');
is(scalar @{ $found->{balance_differences} // [] }, 4, 'and in four balances');
$s->sql("UPDATE trades SET quantity = quantity - 0.00000001 WHERE trade_id = 'good-2'");

# A look-up that nobody does: it stays deferred.
$s->sql(<<'SQL');
UPDATE trades SET settlement_status = 'PENDING' WHERE trade_id = 'good-3';
INSERT INTO settlement.deferred (retry_at, reason, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
	buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT 'infinity', 'needs_lookup', now(), attached_id, 'trades', 'good-3', 'BTC/USDT', 'u1', 'u2', 'b', 's', 1, 1, 1, 0, 0
FROM settlement.attached WHERE relid = 'public.trades'::regclass;
SQL
$found = found();
is_deeply($found->{not_terminal}, ['good-3'], 'a trade that still waits is not terminal');
is($found->{lost}, undef, 'but not lost');
$s->sql("DELETE FROM settlement.deferred; UPDATE trades SET settlement_status = 'SETTLED' WHERE trade_id = 'good-3'");
is($ledgers->check->{violations}, 0, 'all is mended');

is($s->wallet->settle($s->wallet->trade(trade_id => 'ghost', buyer_id => 'u1', seller_id => 'u2'), new_key())->{status}, 200,
	'pay what nobody traded');
is_deeply(found()->{phantom}, ['ghost'], 'an effect without a trade');
is($s->wallet->settle($s->wallet->trade(trade_id => 'good-4', buyer_id => 'u1', seller_id => 'u2'), new_key())->{status}, 200, 'pay a trade again');
is_deeply(found()->{duplicates}, ['good-4'], 'a trade that was paid twice');
like($ledgers->check->{summary}, qr/^trades 12, settled 11, dead 1, unknown 0, duplicates 1, lost 0, phantom 1,/, 'the summary says it');

my $story = $ledgers->timeline('good-4');
like($story, qr/"trade_id":"good-4"/, 'the story has the row');
like($story, qr/settle: settled/, 'the attempts');
like($story, qr/It was settled at/, 'the explanation');
my %entries = map { $_ => 1 } $story =~ /^\d+,([0-9a-f-]{36}),[0-9a-f-]+,u1,/gm;
is(scalar keys %entries, 2, "and the wallet's entries, under both keys") or diag($story);

$s->wallet->stop;
is_deeply(found()->{phantom}, ['ghost'], 'it also reads the books of a wallet that is down');

done_testing();
