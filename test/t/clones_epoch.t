#!/usr/bin/perl
# Two copies that are both adopted: the wallet takes the one with the higher epoch.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Copies;
use Test::More;

my $s = Settlement->start(name => 'main', conf => <<'CONF');
max_connections = 30
max_worker_processes = 24
settlement.workers = 1
wal_writer_delay = 10s
CONF
my $node = $s->node;
my $backlog = backlog($s, sub { $node->safe_psql('template1', "CREATE DATABASE $_ TEMPLATE postgres") for qw(one two) });
my %epoch;

sub state_becomes
{
	my ($database, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($database, 'SELECT state FROM settlement.status', $state), $name);
}

sub settles
{
	my ($database, $trade) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($database, "SELECT settlement_status FROM trades WHERE trade_id = '$trade'", 'SETTLED'), "$trade settles");
}

# As a restore does it, and between two looks of the workers at the identity.
scenario the_identity_is_replaced_at_work => sub {
	state_becomes('postgres', 'ok', 'the original sends');
	my $asked = asked($s);
	$node->safe_psql('postgres', "BEGIN; UPDATE settlement.identity SET reason = 'restored'; SELECT put('came along'); COMMIT");
	state_becomes('postgres', 'fenced', 'until it has another identity');
	is(asked($s), $asked, 'the wallet is asked nothing of what came along');
	is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM settlement.claims), (SELECT count(*) FROM settlement.queue)'), '0|1', 'it waits');
};

scenario their_epochs_differ => sub {
	$epoch{$_} = $node->safe_psql($_, "SELECT settlement.adopt('I am the one')") for qw(one two);
	isnt($epoch{one}, $epoch{two}, 'no two are alike');
	cmp_ok($_, '>', 1, 'they are higher than that of the original') for values %epoch;
};

my ($low, $high) = sort { $epoch{$a} <=> $epoch{$b} } qw(one two);

scenario the_higher_one_wins => sub {
	$node->safe_psql($high, "SELECT settlement.resume(); SELECT put('of the higher')");
	settles($high, 'of the higher');
	my $effects = $s->effects;
	$node->safe_psql($low, "SELECT settlement.resume(); SELECT put('of the lower')");
	state_becomes($low, 'stale epoch', 'the wallet refuses the lower one');
	is($s->effects, $effects, 'it has no effect');
	like($node->safe_psql($low, "SELECT string_agg(x, ' ') FROM settlement.explain('of the lower') x"), qr/told of a newer primary/, 'explain() says why');
	is($node->safe_psql($low, 'SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	my $asked = asked($s);
	$s->set(enabled => 'off');
	state_becomes($low, 'disabled', 'sending is off');
	$s->reset('enabled');
	state_becomes($low, 'stale epoch', 'and refused still when it is on again');
	is(asked($s), $asked, 'without another request');
};

scenario who_loses_may_adopt_again => sub {
	# twice, so that the other one has to learn how far it is behind
	$epoch{$low} = $node->safe_psql($low, "SELECT settlement.adopt('$_')") for 'no, this one', 'for sure';
	cmp_ok($epoch{$low}, '>', $epoch{$high}, 'and is the highest then');
	settles($low, 'of the lower');
	$node->safe_psql($low, "SELECT put('with the highest')");
	settles($low, 'with the highest');
	$node->safe_psql($high, "SELECT put('too late')");
	state_becomes($high, 'stale epoch', 'the other one is refused');
	Copies::books_agree($s, $node, $_) for qw(one two);
};

# Epochs count within a database and its copies: another one, of the same wallet,
# has its own.
scenario another_database_of_the_wallet => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql('other', <<'SQL');
CREATE EXTENSION settlement;
CREATE TABLE trades (trade_id text PRIMARY KEY, symbol text, buy_order_id text, sell_order_id text,
                     buyer_user_id text, seller_user_id text, price numeric, quantity numeric);
SELECT settlement.attach('trades', source => 'other');
INSERT INTO trades VALUES ('of another', 'BTC/USDT', 'b', 's', 'u1', 'u2', 1, 1);
SQL
	settles('other', 'of another');
	$node->safe_psql('other', "SELECT settlement.adopt('to have a higher one')");
	$node->safe_psql('other', "INSERT INTO trades VALUES ('after that', 'BTC/USDT', 'b', 's', 'u1', 'u2', 1, 1)");
	settles('other', 'after that');
	$node->safe_psql($low, "SELECT put('still here')");
	settles($low, 'still here');
	is($node->safe_psql($_, 'SELECT lineage FROM settlement.identity'), $s->sql('SELECT lineage FROM settlement.identity'), 'copies have it in common') for qw(one two);
};

# The operator has been told the epoch; then the server crashes.
scenario a_crash_after_adopt => sub {
	$node->append_conf('postgresql.conf', 'settlement.enabled = off');
	$node->reload;
	state_becomes($high, 'disabled', 'sending is off');
	my $told = do {
		local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
		$node->safe_psql($high, "SELECT settlement.adopt('this one after all')");
	};
	cmp_ok($told, '>', $epoch{$low}, 'it is higher than what the wallet has said it has seen');
	$node->stop('immediate');
	$node->append_conf('postgresql.conf', 'settlement.enabled = on');
	$node->start;
	is($node->safe_psql($high, 'SELECT epoch FROM settlement.identity'), $told, 'it is still the epoch');
	settles($high, 'too late');
	is($s->wallet->stats->{epoch}, $told, 'and goes with the first request');
	Copies::books_agree($s, $node, $high);
};

done_testing();
